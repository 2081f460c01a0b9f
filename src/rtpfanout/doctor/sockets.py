"""Ports, socket buffers, and what the kernel's UDP can do: tried, not guessed.

The buffers are those of a real engine on a free port, so they are what `serve` gets when
the same user runs it.
"""

from __future__ import annotations

import errno
import resource
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rtpfanout._fastpath import Engine
from rtpfanout.doctor.finding import Finding, Level, ok, warn
from rtpfanout.listening import bind_fault, bound
from rtpfanout.model import Address

if TYPE_CHECKING:
    from rtpfanout.config import Settings
    from rtpfanout.host import Host

FILES_WANTED = 1024
"""A control connection takes one, and so does a scrape; sockets and timers take a few."""
FILES_OF_A_PORT = 4


def check_ports(settings: Settings, host: Host) -> Iterator[Finding]:
    """Can each configured address be bound?"""
    yield _port(host, "bind_address", settings.bind_address, "udp")
    main = settings.bind_address
    if settings.enable_rtcp_port and 0 < main.port < 65535:
        yield _port(host, "enable_rtcp_port", Address(main.ip, main.port + 1), "udp")
    if settings.ingest_ports:
        yield _ports_of_sessions(host, settings)
    yield _port(host, "grpc_bind_address", settings.grpc_bind_address, "tcp")
    if door := settings.rtsp_bind_address:
        yield _port(host, "rtsp_bind_address", door, "tcp")
        if settings.auth.jwt_keys and not (settings.tls.certificate or door.ip.is_loopback):
            yield warn(
                "tokens by RTSP",
                "can be read on the way by whoever carries them; with tls.certificate and tls.key"
                " players connect by rtsps://",
            )
    if settings.enable_metrics:
        yield _port(host, "metrics_bind_address", settings.metrics_bind_address, "tcp")


def check_buffers(settings: Settings, host: Host) -> Iterator[Finding]:
    """What an engine of these settings gets from the kernel, and the limit on open files."""
    try:
        engine = Engine(
            Address.parse("127.0.0.1:0"),
            max_sessions=1,
            max_subscribers=1,
            receive_queue_packets=settings.buffer_size,
        )
    except OSError as error:
        yield Finding(Level.FAIL, "engine", f"cannot be opened: {error.strerror}")
        return
    yield _buffer(
        host,
        "receive buffer",
        "net.core.rmem_max",
        engine.sockets.receive_buffer_bytes // 2,  # socket(7): the kernel doubles it
        engine.sockets.requested_receive_buffer_bytes,
        f"holds fewer than the {settings.buffer_size} packets of buffer_size: bursts may be lost",
    )
    yield _buffer(
        host,
        "send buffer",
        "net.core.wmem_max",
        engine.sockets.send_buffer_bytes // 2,
        engine.sockets.requested_send_buffer_bytes,
        _waiting(engine.sockets.send_buffer_bytes, engine.sockets.egress_lanes, host),
    )
    yield _ability("UDP_SEGMENT", engine.sockets.gso, "4.18", "each copy is a send of its own")
    yield _ability("UDP_GRO", engine.sockets.gro, "5.0", "each packet is received on its own")
    yield _open_files(FILES_WANTED + FILES_OF_A_PORT * len(settings.ingest_ports))


def _port(host: Host, key: str, address: Address, protocol: str) -> Finding:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    text = f"{address} ({protocol})"
    try:
        bound(address, kind).close()
    except OSError as error:
        return _clash(host, key, address, protocol, error)
    return ok(key, f"{text} is free")


def _ports_of_sessions(host: Host, settings: Settings) -> Finding:
    """A session gets none that another program has."""
    ports, ip = settings.ingest_ports, settings.bind_address.ip
    findings = [
        _port(host, "ingest_ports", Address(ip, number + behind), "udp")
        for number in ports.numbers()
        for behind in (0, 1)
    ]
    others = [found for found in findings if found.level is not Level.OK]
    if not others:
        return ok("ingest_ports", f"{ports}: {len(ports)} sessions can have a port of their own")
    return warn(
        "ingest_ports", f"{len(others)} of {ports} can't be had, the first: {others[0].text}"
    )


def _clash(host: Host, key: str, address: Address, protocol: str, error: OSError) -> Finding:
    text = f"{address} ({protocol})"
    if error.errno == errno.EADDRINUSE:
        owner = host.port_owner(protocol, address.port)
        if owner is None:
            return Finding(Level.FAIL, key, f"{text} is in use by another process")
        by = f"{text} is in use by process {owner.pid}: {owner.command}"
        is_ours = "rtpfanout" in owner.command and "serve" in owner.command.split()
        return Finding(Level.OK if is_ours else Level.FAIL, key, by)
    return Finding(Level.FAIL, key, f"{text}: {bind_fault(error)}")


def _buffer(
    host: Host, subject: str, sysctl: str, effective: int, requested: int, danger: str
) -> Finding:
    limit = host.sysctl(sysctl)
    if effective < requested:
        return warn(
            subject,
            f"{effective} of {requested} bytes: {danger}; CAP_NET_ADMIN lifts the limit too",
            sysctls={sysctl: str(requested)},
        )
    forced = limit is not None and limit < requested
    note = f", by CAP_NET_ADMIN; without it {sysctl} = {limit} limits it" if forced else ""
    return ok(subject, f"{effective} bytes{note}")


def _waiting(send_buffer: int, lanes: int, host: Host) -> str:
    """What fills a send buffer (in the kernel's account), and whom that hurts."""
    each = host.sysctl("net.ipv4.neigh.default.unres_qlen_bytes")
    fill = f"{send_buffer // each + 1} unreachable neighbours" if each else "unreachable neighbours"
    return (
        f"subscribers are spread over {lanes} sockets instead; {fill}, or a slow path, "
        "fill one of them, and those who share it then lose packets"
    )


def _ability(name: str, present: bool, since: str, otherwise: str) -> Finding:
    if present:
        return ok(name, "in this kernel")
    return warn(name, f"not in this kernel (Linux {since} and later have it): {otherwise}")


def _open_files(wanted: int) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the server raises its soft one to it
    unlimited = hard == resource.RLIM_INFINITY
    if unlimited or hard >= wanted:
        return ok("open files", "unlimited" if unlimited else str(hard))
    return warn(
        "open files",
        f"{hard}, wanted {wanted}: control connections, or ports of sessions, would be refused",
        f"ulimit -Hn {wanted}  # as root, or LimitNOFILE= in the unit",
    )
