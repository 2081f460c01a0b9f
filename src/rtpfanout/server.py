"""The server: assembles the packet path, the control API and the HTTP side, in this order.

Packets flow before gRPC and the web server are even imported. On the way out the order
is reversed, after whoever watches our health has been told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rtpfanout import _fastpath, log, netif
from rtpfanout.doorman import Doorman
from rtpfanout.errors import StartError
from rtpfanout.model import Address
from rtpfanout.policy import AddressPolicy
from rtpfanout.sessions import Limits, SessionManager
from rtpfanout.store import Store, default_path
from rtpfanout.workers import Workers, check_cpus, worker_count

if TYPE_CHECKING:
    from rtpfanout.auth import Access
    from rtpfanout.config import Settings
    from rtpfanout.http import HttpServer
    from rtpfanout.service import ControlServer

HOUSEKEEPING_SECONDS = 1.0
LOCAL_ADDRESSES_SECONDS = 5.0
CALL_GRACE_SECONDS = 0.25
"""What is left to running calls at the end; the whole of `stop` has to fit in a second."""
LISTEN_BACKLOG = 128

_log = structlog.stdlib.get_logger(__name__)


class Server:
    """One server in the running event loop: `start` it once, then `stop` it once.

    `ingest_address`, `grpc_address` and `metrics_address` (None without metrics) are what
    is really bound, once `start` has returned. `finished` is set when a packet loop ends
    by itself, which `failed` tells; a signal handler may set it too.
    """

    ingest_address: Address
    grpc_address: Address
    metrics_address: Address | None = None
    engine: _fastpath.Engine
    manager: SessionManager
    store: Store | None = None
    _access: Access

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.finished = asyncio.Event()
        self._is_ready = False
        self._requests: Counter[tuple[str, str]] = Counter()
        self._workers: Workers | None = None
        self._doorman: Doorman | None = None
        self._control: ControlServer | None = None
        self._http: HttpServer | None = None
        self._http_task: asyncio.Task[None] | None = None
        self._housekeeping: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """All packet loops run."""
        return self._workers is not None and self._workers.are_alive

    @property
    def failed(self) -> bool:
        """A packet loop ended by itself."""
        return self._workers is not None and self._workers.failed

    @property
    def is_ready(self) -> bool:
        """Packets and calls are taken: not while starting, stopping, or without a packet loop."""
        return self._is_ready and self.is_alive

    async def start(self) -> None:
        """Returns when packets and calls are taken. Raises StartError, everything undone."""
        try:
            self._start_packet_path()
            await self._start_control()
            if self.settings.enable_metrics:
                self._start_http()
        except BaseException:
            await self.stop()
            raise
        self._housekeeping = asyncio.create_task(self._housekeep())
        self._is_ready = True
        # The keys of the configuration, so that a reader of the log can find the ports.
        _log.info(
            "ready",
            bind_address=str(self.ingest_address),
            grpc_bind_address=str(self.grpc_address),
            metrics_bind_address=str(self.metrics_address) if self.metrics_address else None,
            pid=os.getpid(),
            workers=self.engine.workers,
            receiving_workers=self.engine.receiving_workers,
            gso=self.engine.gso,
            gro=self.engine.gro,
        )

    async def stop(self) -> None:
        """Drains: what was received before leaves; running calls get CALL_GRACE_SECONDS."""
        self._is_ready = False
        if self._housekeeping:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
        if self._control:
            await self._control.drain()
            await self._control.stop(CALL_GRACE_SECONDS)
        if self._doorman:
            self._doorman.detach()
            await asyncio.to_thread(self._doorman.stop)
        await asyncio.gather(self._stop_workers(), self._stop_http())
        if self.store is not None:
            await asyncio.to_thread(self.store.close)

    def _start_packet_path(self) -> None:
        settings = self.settings
        check_cpus(settings.worker_cpus)
        count = worker_count(settings.workers)
        try:
            self.engine = _fastpath.Engine(
                settings.bind_address,
                max_sessions=settings.max_sessions,
                max_subscribers=settings.max_fanout_per_session,
                receive_queue_packets=settings.buffer_size,
                workers=count,
                split_threshold=settings.split_threshold,
                busy_poll_us=settings.busy_poll_us,
                check_padding=settings.check_padding,
            )
        except OSError as error:
            raise _bind_error(error, settings.bind_address, "bind_address") from None
        self.ingest_address = self.engine.bound
        self._warn_of_small_buffer()
        self._warn_of_missing_steering(count)
        path = settings.store.path
        self.store = Store(default_path(settings.bind_address) if path == "auto" else path)
        self.manager = SessionManager(
            self.engine,
            self._address_policy(),
            self.store,
            limits=Limits(
                sessions=settings.max_sessions,
                fanout=settings.max_fanout_per_session,
                subscribers=settings.limits.max_subscribers,
                subscribers_per_ip=settings.limits.max_subscribers_per_ip,
                session_timeout_ns=round(settings.session_timeout_secs * 1e9),
            ),
        )
        self._restore()
        self._read_local_addresses()
        loop = asyncio.get_running_loop()
        self._doorman = Doorman(
            self.engine, self.manager, consent_secs=settings.consent.timeout_secs
        )
        self._doorman.attach(loop)

        def on_end() -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(self.finished.set)

        self._workers = Workers(self.engine, count, settings.worker_cpus, on_end)
        self._workers.start()

    def _address_policy(self) -> AddressPolicy:
        return AddressPolicy(
            ingest=self.engine.bound,
            sends_ipv4=self.engine.sends_ipv4,
            sends_ipv6=self.engine.sends_ipv6,
            allow=self.settings.address_policy.allow,
            deny=self.settings.address_policy.deny,
            loopback_allowed=self.settings.grpc_bind_address.ip.is_loopback,
            is_local=netif.address_is_local,
        )

    def _warn_of_small_buffer(self) -> None:
        requested = self.engine.requested_receive_buffer_bytes
        effective = self.engine.receive_buffer_bytes // 2  # socket(7): the kernel doubles it
        if effective < requested:
            _log.warning(
                "receive buffer is smaller than buffer_size asks for: bursts may be lost",
                requested_bytes=requested,
                effective_bytes=effective,
                remedy=f"sysctl -w net.core.rmem_max={requested}",
            )

    def _warn_of_missing_steering(self, workers: int) -> None:
        receiving = self.engine.receiving_workers
        if receiving < workers:
            _log.warning(
                "the kernel does not steer packets to workers: some only help the others to send",
                workers=workers,
                receiving_workers=receiving,
                remedy="allow SO_ATTACH_REUSEPORT_CBPF (Linux 4.5), or set workers = 1",
            )

    async def _start_control(self) -> None:
        from rtpfanout.auth import Access
        from rtpfanout.service import ControlServer, server_credentials

        self._access = Access.of(self.settings)
        address = self.settings.grpc_bind_address
        # gRPC does not say why it cannot bind, so see first whether it could.
        _listener(address, "grpc_bind_address").close()
        control = ControlServer(self.manager, self._requests, self._access)
        tls, local = self.settings.tls, self.settings.grpc_unix_socket
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
        await control.start()
        self._control = control
        self.grpc_address = Address(address.ip, port)

    def _start_http(self) -> None:
        from rtpfanout import http, metrics
        from rtpfanout.doorman.metrics import DoormanCollector

        listener = _listener(self.settings.metrics_bind_address, "metrics_bind_address")
        self.metrics_address = Address(
            self.settings.metrics_bind_address.ip, listener.getsockname()[1]
        )
        server_metrics = metrics.server_registry(self.engine, self.manager, self._requests)
        server_metrics.register(metrics.AuthenticationCollector(self._access.failures))
        if self._doorman:
            server_metrics.register(DoormanCollector(self._doorman))
        # Who may see the sessions one by one: on loopback everybody, as ever.
        is_local = self.settings.metrics_bind_address.ip.is_loopback
        self._http = http.HttpServer(
            http.create_app(
                server_metrics=server_metrics,
                session_metrics=metrics.sessions_registry(self.manager),
                is_alive=lambda: self.is_alive,
                is_ready=lambda: self.is_ready,
                sessions_status=None if is_local else self._access.overview_status,
            )
        )
        self._http_task = asyncio.create_task(self._http.serve_on(listener))

    async def _stop_workers(self) -> None:
        if self._workers:
            await asyncio.to_thread(self._workers.stop)

    async def _stop_http(self) -> None:
        if self._http and self._http_task:
            self._http.should_exit = True
            await self._http_task

    def _restore(self) -> None:
        restored = self.manager.restore()
        if restored.sessions:
            _log.info(
                "restored",
                store=self.store.path if self.store else None,
                sessions=restored.sessions,
                subscribers=restored.subscribers,
                expired_subscribers=restored.expired_subscribers,
            )

    def _read_local_addresses(self) -> None:
        try:
            self.manager.on_local_addresses(netif.local_addresses())
        except OSError as error:
            _log.warning("this host's addresses can't be read", reason=str(error))

    async def _housekeep(self) -> None:
        looked_at = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(HOUSEKEEPING_SECONDS)
            try:
                if asyncio.get_running_loop().time() >= looked_at + LOCAL_ADDRESSES_SECONDS:
                    looked_at = asyncio.get_running_loop().time()
                    await asyncio.to_thread(self._read_local_addresses)
                # In a thread: it waits for the packet loop to let go of each.
                await asyncio.to_thread(self.manager.expire_subscribers)
                expired = await asyncio.to_thread(self.manager.expire_idle)
            except Exception:
                _log.exception("housekeeping failed")
                continue
            for view in expired:
                _log.info(
                    "session expired",
                    session_id=view.session_id,
                    source=view.source_address,
                    ssrc=f"{view.ssrc:#010x}",
                    subscribers=view.subscriber_count,
                    session_timeout_secs=self.settings.session_timeout_secs,
                )


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT. 0 after an orderly end, 1 if the packet loop failed.

    Raises StartError.
    """
    log.configure(settings.log.level, settings.log.format)
    return asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> int:
    server = Server(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.finished.set)
    await server.start()
    await server.finished.wait()
    _log.info("stopping")
    await server.stop()
    _log.info("stopped", **_totals(server.engine))
    return 1 if server.failed else 0


def _totals(engine: _fastpath.Engine) -> dict[str, int]:
    stats = engine.stats()
    return {name: stats[name] for name in ("packets_received", "packets_forwarded", "packets_sent")}


def _listener(address: Address, key: str) -> socket.socket:
    """A listening TCP socket. Raises StartError naming the configuration key."""
    family = socket.AF_INET if address.ip.version == 4 else socket.AF_INET6
    host, _, scope = str(address.ip).partition("%")
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only_ipv6 = not address.ip.is_unspecified
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_ipv6)
            listener.bind((host, address.port, 0, int(scope or 0)))
        else:
            listener.bind((host, address.port))
        listener.listen(LISTEN_BACKLOG)
    except OSError as error:
        listener.close()
        raise _bind_error(error, address, key) from None
    return listener


def _bind_error(error: OSError, address: Address, key: str) -> StartError:
    reasons = {
        errno.EADDRINUSE: "the port is in use by another process; stop it or choose another port",
        errno.EACCES: "permission denied; choose a port from 1024 up or grant CAP_NET_BIND_SERVICE",
        errno.EADDRNOTAVAIL: "this host has no such address; choose one of its own, or a wildcard",
    }
    reason = reasons.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
    return StartError(f"cannot bind {address}: {reason}", field=key)
