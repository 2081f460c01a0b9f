"""Start, stop and the two kinds of end: signals, ports in use, timeouts, full queues."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import (
    SETTLE_SECONDS,
    START_SECONDS,
    ServerProcess,
    address_of,
    eventually,
    receive,
    requires,
    requires_root,
    rtp_packet,
    server_environment,
    transfer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeSocket = Callable[..., socket.socket]
    StartServer = Callable[..., ServerProcess]

# Root without what lets it bind low ports and exceed net.core.rmem_max (capabilities(7)).
UNPRIVILEGED = ("setpriv", "--bounding-set=-net_admin,-net_bind_service")
ADDRESSES = ("bind_address", "grpc_bind_address", "metrics_bind_address")


def serve(command: tuple[str, ...] = (), /, **settings: object) -> subprocess.CompletedProcess[str]:
    """A start that is to fail, by way of `command`."""
    free = dict.fromkeys(ADDRESSES, "127.0.0.1:0")
    return subprocess.run(
        [*command, sys.executable, "-m", "rtpfanout", "serve"],
        env=server_environment(free | settings),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(server: ServerProcess, number: signal.Signals) -> None:
    assert server.stop(number) == 0
    assert [entry["event"] for entry in server.log] == ["ready", "stopping", "stopped"]
    assert server.other_lines == []


def test_it_ends_under_load_and_with_calls_open(server: ServerProcess, udp: MakeSocket) -> None:
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    ended = threading.Event()

    def send() -> None:
        while not ended.is_set():
            source.sendto(rtp_packet(1), server.ingest_target)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        receive(subscriber, 100)
        server.send_signal(signal.SIGTERM)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert server.process.wait(SETTLE_SECONDS) == 0
    finally:
        ended.set()
        sender.join()
    server.logged("stopped")
    fares = "the source of a session fares otherwise"  # where it was looked at meanwhile
    events = [entry["event"] for entry in server.log if entry["event"] != fares]
    # A line per changing call, never one per packet.
    assert events == ["ready", "audit", "audit", "stopping", "stopped"]


def test_what_was_queued_leaves_before_the_end(server: ServerProcess, udp: MakeSocket) -> None:
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    some = [rtp_packet(1, n) for n in range(200)]
    os.kill(server.pid, signal.SIGSTOP)
    for packet in some:
        source.sendto(packet, server.ingest_target)
    server.send_signal(signal.SIGTERM)  # waits as the packets do
    os.kill(server.pid, signal.SIGCONT)
    assert receive(subscriber, len(some)) == some
    assert server.process.wait(SETTLE_SECONDS) == 0


def test_packets_flow_before_grpc_is_imported() -> None:
    program = "import sys, rtpfanout.server; print({'grpc', 'uvicorn'} & set(sys.modules))"
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert printed.stdout == "set()\n"


@pytest.mark.parametrize("key", ADDRESSES)
def test_a_port_in_use_is_one_line_and_code_2(key: str) -> None:
    kind = socket.SOCK_DGRAM if key == "bind_address" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = serve(**{key: address})
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert key in line
    assert address in line
    assert "in use" in line
    assert ended.stdout == ""


def test_a_port_behind_it_in_use_is_one_line_and_code_2() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        ended = serve(bind_address=f"127.0.0.1:{port - 1}")
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith(f"error: enable_rtcp_port: cannot bind 127.0.0.1:{port} for RTCP")
    assert "in use" in line
    assert line.endswith("or set enable_rtcp_port = false")


@pytest.mark.parametrize("key", ADDRESSES)
def test_an_address_of_another_host_is_one_line_and_code_2(key: str) -> None:
    ended = serve(**{key: "192.0.2.1:7"}, insecure=True)
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1
    assert key in lines[0]
    assert "no such address" in lines[0]


def test_without_permission_it_says_so() -> None:
    requires_root()
    requires("setpriv")
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 7:
        pytest.skip("every port is free for all on this host")
    ended = serve(UNPRIVILEGED, bind_address="127.0.0.1:7")
    assert ended.returncode == 2
    assert "bind_address" in ended.stderr
    assert "permission denied" in ended.stderr


def test_no_http_listener_without_metrics(start_server: StartServer, udp: MakeSocket) -> None:
    server = start_server(enable_metrics=False)
    assert server.metrics_address is None
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    some = [rtp_packet(1, n) for n in range(10)]
    assert transfer(source, server.ingest_target, some, [subscriber]) == [some]
    listening = _listening_ports(server.pid)
    assert listening == {server.grpc.port}


def _listening_ports(pid: int) -> set[int]:
    """TCP ports a process listens on, from /proc (proc(5))."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        link = str(entry.readlink())
        if link.startswith("socket:["):
            inodes.add(link[8:-1])
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def test_an_idle_session_expires(start_server: StartServer, udp: MakeSocket) -> None:
    server = start_server(session_timeout_secs=2)
    source, busy, subscriber = udp(), udp(), udp()
    address = address_of(subscriber)
    used = server.create(address_of(source), 1, address)
    fed = server.create(address_of(busy), 2, address)

    def feed() -> set[str]:
        busy.sendto(rtp_packet(2), server.ingest_target)
        return {entry["session_id"] for entry in server.log if entry["event"] == "session expired"}

    assert eventually(feed, bool, "a session expires") == {used}
    with pytest.raises(grpc.RpcError) as error:
        server.stats(used)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert server.stats(fed).subscriber_count == 1
    metrics = server.settled()
    assert metrics["rtpfanout_sessions_expired_total"] == 1
    assert metrics["active_sessions"] == 1
    assert metrics["total_subscribers"] == 1
    server.create(address_of(source), 1)  # the key is free again


def test_what_the_kernel_drops_is_counted(start_server: StartServer, udp: MakeSocket) -> None:
    server = start_server(buffer_size=64)
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    os.kill(server.pid, signal.SIGSTOP)
    sent = 2000
    for n in range(sent):
        source.sendto(rtp_packet(1, n, bytes(1188)), server.ingest_target)
    os.kill(server.pid, signal.SIGCONT)
    metrics = eventually(
        server.metrics,
        lambda m: (
            m["rtp_packets_received_total"] + m["rtpfanout_kernel_receive_drops_total"] >= sent
            and m.differences() == (0, 0, 0, 0)
        ),
        "received + kernel drops = sent",
    )
    received = metrics["rtp_packets_received_total"]
    assert received + metrics["rtpfanout_kernel_receive_drops_total"] == sent
    assert 64 <= received < sent
    assert len(receive(subscriber, int(received))) == received


def test_a_buffer_smaller_than_asked_for_is_warned_of() -> None:
    requires_root()
    requires("setpriv")
    limit = int(Path("/proc/sys/net/core/rmem_max").read_text())
    # A port that is taken ends it after the warning.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = serve(
            UNPRIVILEGED,
            buffer_size=min(16_777_216, limit // 1000),
            grpc_bind_address=f"127.0.0.1:{taken.getsockname()[1]}",
        )
    assert "sysctl -w net.core.rmem_max=" in ended.stderr


def test_ready_and_healthy_only_while_it_serves(server: ServerProcess) -> None:
    assert server.http("/healthz").status_code == 200
    assert server.http("/readyz").status_code == 200
    watch = health_pb2_grpc.HealthStub(server.channel).Watch(health_pb2.HealthCheckRequest())
    next(watch)  # an open call holds the end up for the grace period
    server.send_signal(signal.SIGTERM)
    seen = set()
    while server.process.poll() is None:
        try:
            seen.add(server.http("/readyz").status_code)
        except httpx.TransportError:  # the listener is gone
            break
        time.sleep(0.005)
    assert 503 in seen
    assert server.process.wait(SETTLE_SECONDS) == 0
