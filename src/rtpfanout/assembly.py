"""The parts of a server as the settings want them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from rtpfanout import netif
from rtpfanout._fastpath import Engine
from rtpfanout.descriptors import shares
from rtpfanout.errors import StartError
from rtpfanout.kept import RTCP, KeptSockets, opened_with_rtcp
from rtpfanout.listening import bind_error, listener
from rtpfanout.model import Address, EventKind, parse_ip
from rtpfanout.overload import OverloadLimits
from rtpfanout.policy import AddressPolicy
from rtpfanout.sessions import Limits, Wanted
from rtpfanout.store import default_path
from rtpfanout.workers import check_cpus, worker_count

if TYPE_CHECKING:
    from collections import Counter

    from rtpfanout.auth import Access
    from rtpfanout.config import Settings
    from rtpfanout.doorman import Doorman
    from rtpfanout.groups import Memberships
    from rtpfanout.hooks import Hook
    from rtpfanout.http import HttpServer, Site
    from rtpfanout.model import IPAddress
    from rtpfanout.rtsp import Door
    from rtpfanout.service import ControlServer
    from rtpfanout.sessions import SessionManager

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Start:
    """What a server begins with: alone, forked by a supervisor, or in another's place."""

    settings: Settings
    sockets: Sequence[int] = ()
    """Ingress sockets opened before, as _fastpath.open_sockets makes them; none: its own."""
    in_hand: int | None = None
    """Of _fastpath.open_in_hand: what a server that died had received and not sent."""
    trusts_store: bool = False
    """A server has read it without a fault since this host's start."""
    kept: KeptSockets = field(default_factory=KeptSockets)
    """Of ports beside the main one."""
    waits: bool = False
    """Another server still runs, whose place this one takes when it is told."""


class Parts(Protocol):
    """What a server has that its API and its HTTP side show. See Server."""

    settings: Settings
    engine: Engine
    manager: SessionManager
    memberships: Memberships
    access: Access
    doorman: Doorman | None
    hook: Hook | None
    requests: Counter[tuple[str, str]]
    ended: Counter[str]
    rtsp: Door | None
    rtsp_address: Address | None

    @property
    def is_alive(self) -> bool: ...
    @property
    def is_ready(self) -> bool: ...


def open_engine(start: Start) -> Engine:
    """An engine that adopts the sockets, or opens its own if there are none. Raises StartError."""
    settings, kept = start.settings, start.kept
    check_cpus(settings.worker_cpus)
    if not settings.enable_rtcp_port:
        kept.give_up([RTCP])
    if kept.find(RTCP):
        engine = _open_main(start)
    else:
        engine, rtcp = opened_with_rtcp(
            settings, lambda: _open_main(start), lambda made: made.bound, lambda _made: None
        )
        if rtcp is not None:
            kept.add(RTCP, [rtcp])
    for rtcp in kept.find(RTCP) or ():
        engine.add_rtcp_port(rtcp)
    _warn_of_foreign_address(settings)
    _warn_of_small_buffer(engine)
    _warn_of_missing_steering(engine, worker_count(settings.workers))
    return engine


def _open_main(start: Start) -> Engine:
    settings = start.settings
    try:
        return Engine(
            settings.bind_address,
            max_sessions=settings.max_sessions,
            max_subscribers=settings.max_fanout_per_session,
            receive_queue_packets=settings.buffer_size,
            workers=worker_count(settings.workers),
            split_threshold=settings.split_threshold,
            busy_poll_us=settings.busy_poll_us,
            check_padding=settings.check_padding,
            segmentation=settings.segmentation,
            path_mtu_discovery=settings.path_mtu_discovery,
            egress_address=parse_ip(settings.egress_address) if settings.egress_address else None,
            sockets=start.sockets,
            in_hand=start.in_hand,
        )
    except OSError as error:
        raise bind_error(error, settings.bind_address, "bind_address") from None


def address_policy_of(
    engine: Engine, settings: Settings, is_local: Callable[[IPAddress], bool]
) -> AddressPolicy:
    """Where sources and subscribers may be."""
    return AddressPolicy(
        ingress=engine.bound,
        sends_ipv4=engine.sockets.sends_ipv4,
        sends_ipv6=engine.sockets.sends_ipv6,
        allow=settings.address_policy.allow,
        deny=settings.address_policy.deny,
        loopback_allowed=settings.grpc_bind_address.ip.is_loopback,
        is_local=is_local,
        side_ports=frozenset(side_ports_of(settings, engine.bound)),
    )


def side_ports_of(settings: Settings, main: Address) -> Iterator[int]:
    """What may be ours beside the main port."""
    if settings.enable_rtcp_port:
        yield main.port + 1
    for number in settings.ingest_ports.numbers():
        yield from (number, number + 1)


def store_path(settings: Settings) -> str:
    """The file that sessions are kept in, or MEMORY."""
    path = settings.store.path
    return default_path(settings.bind_address) if path == "auto" else path


def limits_of(settings: Settings) -> Limits:
    """How much of everything there may be."""
    return Limits(
        sessions=settings.max_sessions,
        fanout=settings.max_fanout_per_session,
        subscribers=settings.limits.max_subscribers,
        subscribers_per_ip=settings.limits.max_subscribers_per_ip,
        session_timeout_ns=round(settings.session_timeout_secs * 1e9),
        overload=OverloadLimits(
            busy=settings.overload.busy,
            kernel_drops=settings.overload.kernel_drops,
            memory_bytes=settings.overload.memory_mib * 2**20,
        ),
        shed=settings.overload.shed,
    )


def control_server(server: Parts) -> tuple[ControlServer, Address]:
    """The control API, bound and not yet answering, and where it is. Raises StartError."""
    from rtpfanout.service import ControlServer, server_credentials

    settings = server.settings
    address = settings.grpc_bind_address
    # gRPC does not say why it cannot bind, so see first whether it could.
    listener(address, "grpc_bind_address").close()
    control = ControlServer(server.manager, server.requests, server.access, server.ended)
    tls, local = settings.tls, settings.grpc_unix_socket
    credentials = None
    if tls.certificate:
        credentials = server_credentials(tls.certificate, tls.key, tls.client_ca)
    try:
        port = control.listen(str(address), credentials)
    except RuntimeError as error:
        raise StartError(f"{address}: {error}", field="grpc_bind_address") from None
    if local:
        try:
            control.listen_local(Path(local))
        except (RuntimeError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartError(f"{local}: {reason}", field="grpc_unix_socket") from None
    return control, Address(address.ip, port)


def rtsp_door(server: Parts, address: Address) -> tuple[Door, Address]:
    """The RTSP door, bound and not yet taking connections, and where. Raises StartError."""
    # Nothing of it is loaded where there is none.
    from rtpfanout.rtsp import Certificates, Door, Stage

    settings, ended = server.settings, server.ended
    certificates = None
    if settings.tls.certificate:
        try:
            certificates = Certificates(settings)
        except (OSError, ValueError) as error:
            raise StartError(f"tls can't be used: {error}", field="tls.certificate") from None
    ended.update(rtsp_crowded=0, rtsp_late=0)
    sock, most = listener(address, "rtsp_bind_address"), shares().rtsp
    door = Door(
        Stage(
            server.engine,
            server.manager,
            server.access,
            has_rtcp_port=settings.enable_rtcp_port,
            most_relays=2 * most,
        ),
        sock,
        most,
        lambda reason: ended.update([f"rtsp_{reason}"]),
        certificates,
        takes_plain=settings.insecure,
    )
    return door, Address(address.ip, sock.getsockname()[1])


def http_server(server: Parts) -> HttpServer:
    """Metrics and health."""
    # Packets flow before these are loaded.
    from rtpfanout import http, metrics, session_series

    registry = metrics.server_registry(server.engine, server.manager, server.requests)
    access, ended, doorman = server.access, server.ended, server.doorman
    assert doorman
    registry.register(
        metrics.ControlCollector(
            server.memberships, access.failures, ended, doorman.counts, doorman.answers
        )
    )
    if server.rtsp:
        from rtpfanout.rtsp import DoorCollector

        registry.register(DoorCollector(lambda: server.rtsp))
    if hook := server.hook:
        from rtpfanout.hooks.collector import HookCollector

        registry.register(HookCollector(hook))
    # Who may see the sessions one by one: on loopback everybody, as ever.
    settings = server.settings
    is_local = settings.metrics_bind_address.ip.is_loopback
    site = _page(server, is_local=is_local) if settings.enable_page else None
    app = http.create_app(
        server_metrics=registry,
        session_series=session_series.session_series(
            server.manager, settings.metrics_session_labels
        ),
        is_alive=lambda: server.is_alive,
        is_ready=lambda: server.is_ready,
        sessions_status=None if is_local else access.overview_status,
        page=site,
    )
    return http.HttpServer(
        app,
        shares().http,
        lambda reason: ended.update([f"http_{reason}"]),
        site.close if site else lambda: None,
    )


def _page(server: Parts, *, is_local: bool) -> Site:
    from rtpfanout import page

    settings, address = server.settings, server.rtsp_address
    rtsp = (
        None
        if address is None
        else {
            "scheme": "rtsps" if settings.tls.certificate else "rtsp",
            "host": "" if address.ip.is_unspecified else str(address.ip),
            "port": address.port,
        }
    )
    return page.create_site(
        server.manager,
        server.access,
        server.engine.bound,
        rtsp,
        is_local=is_local,
        is_insecure=settings.insecure,
    )


def hook_of(server: Parts) -> Hook | None:
    """What tells the outside of events, if it is wanted. Raises ConfigError."""
    settings = server.settings.events
    if not settings.webhook:
        return None
    from rtpfanout.hooks import Hook, Secrets

    secret = settings.webhook_secret
    kinds = frozenset(map(EventKind, settings.webhook_kinds))
    return Hook(
        settings.webhook,
        Secrets(Path(secret) if secret else None),
        server.manager.events,
        Wanted(kinds=kinds),
        f"{socket.gethostname()}:{server.engine.bound.port}",
    )


def totals(engine: Engine) -> dict[str, int]:
    """What the log says at the end."""
    stats = engine.stats()
    return {name: stats[name] for name in ("packets_received", "packets_forwarded", "packets_sent")}


def _warn_of_foreign_address(settings: Settings) -> None:
    text = settings.egress_address
    if text and not netif.address_is_local(parse_ip(text)):
        _log.warning(
            "egress_address is not an address of this host: until it is, the kernel chooses",
            egress_address=text,
        )


def _warn_of_small_buffer(engine: Engine) -> None:
    requested = engine.sockets.requested_receive_buffer_bytes
    effective = engine.sockets.receive_buffer_bytes // 2  # socket(7): the kernel doubles it
    if effective < requested:
        _log.warning(
            "receive buffer is smaller than buffer_size asks for: bursts may be lost",
            requested_bytes=requested,
            effective_bytes=effective,
            remedy=f"sysctl -w net.core.rmem_max={requested}",
        )


def _warn_of_missing_steering(engine: Engine, workers: int) -> None:
    receiving = engine.sockets.receiving_workers
    if receiving < workers:
        _log.warning(
            "the kernel does not steer packets to workers: some only help the others to send",
            workers=workers,
            receiving_workers=receiving,
            remedy="allow SO_ATTACH_REUSEPORT_CBPF (Linux 4.5), or set workers = 1",
        )
