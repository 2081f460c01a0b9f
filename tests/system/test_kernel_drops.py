"""What the kernel offers to each socket of the port, or drops there: once, whoever reads them."""

from __future__ import annotations

import os
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest
from procs import thread_states
from supervisor_scene import command, kill, server_pid
from support import (
    SETTLE_SECONDS,
    address_of,
    eventually,
    queued,
    receive,
    requires_root,
    rtp_packet,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from scrape import Metrics
    from support import ServerProcess

    MakeSocket = Callable[..., socket.socket]
    StartServer = Callable[..., ServerProcess]

DROPS = "rtpfanout_kernel_receive_drops_total"
ERRORS = "rtpfanout_kernel_receive_errors_total"

pytestmark = pytest.mark.usefixtures("runtime_directory")


def stopped(pid: int) -> None:
    """None of its threads runs any more."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: thread_states(pid), lambda now: now == {"T"}, "it is stopped")


def upgrade(server: ServerProcess) -> None:
    done = command("upgrade", "--pid", str(server.process.pid))
    assert done.returncode == 0, done.stderr


def lost_to_the_kernel(metrics: Metrics) -> tuple[float, float]:
    return metrics[DROPS], metrics[ERRORS]


def test_a_broadcast_is_forwarded_once(
    start_server: StartServer, udp: MakeSocket, tmp_path: Path
) -> None:
    """By one of three workers, through a crash and an upgrade, in order, and none is a drop."""
    server = start_server(
        bind_address="0.0.0.0:0", workers=3, store__path=str(tmp_path / "store.db")
    )
    camera, viewer = udp(), udp()
    camera.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    server.create(address_of(camera), 1, address_of(viewer))
    sequence = 0

    def cast(count: int) -> list[bytes]:
        nonlocal sequence
        packets = [rtp_packet(1, sequence + i) for i in range(count)]
        for packet in packets:
            camera.sendto(packet, ("127.255.255.255", server.ingest.port))
        sequence += count
        return packets

    sent = cast(40)
    assert receive(viewer, 40) == sent
    assert lost_to_the_kernel(server.metrics()) == (0, 0)
    for replace in (kill, upgrade):
        stopped(server_pid(server))
        sent = cast(40)
        if replace is upgrade:
            os.kill(server_pid(server), signal.SIGCONT)
        replace(server)
        sent += cast(20)
        assert receive(viewer, 60) == sent
        assert lost_to_the_kernel(server.metrics()) == (0, 0)
    assert queued(viewer) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_dropped_while_a_server_is_replaced(
    start_server: StartServer, udp: MakeSocket, tmp_path: Path, workers: int
) -> None:
    """The next one counts it, and only that."""
    server = start_server(buffer_size=64, workers=workers, store__path=str(tmp_path / "store.db"))
    source, viewer = udp(), udp()
    server.create(address_of(source), 1, address_of(viewer))
    for sent in (3100, 500):
        stopped(server_pid(server))
        for n in range(sent):
            source.sendto(rtp_packet(1, n, bytes(1188)), server.ingest_target)
        kill(server)
        metrics = eventually(
            server.metrics,
            lambda m, sent=sent: m["rtp_packets_received_total"] + m[DROPS] >= sent,
            "received + kernel drops = sent",
        )
        assert metrics["rtp_packets_received_total"] + metrics[DROPS] == sent
        assert metrics["rtp_packets_received_total"] >= 64
        assert metrics[ERRORS] == 0
    upgrade(server)
    assert lost_to_the_kernel(server.metrics()) == (0, 0)


def test_wrong_checksums_refuse_nobody(start_server: StartServer, udp: MakeSocket) -> None:
    """They are no full queue, so the door stays open."""
    requires_root()
    server = start_server(workers=2)
    source = udp()
    to = server.ingest_target
    udp_length = 8 + 100
    packet = struct.pack("!HHHH", 40000, to[1], udp_length, 0xDEAD) + rtp_packet(7, 0, bytes(88))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as raw:
        deadline = time.monotonic() + SETTLE_SECONDS
        while server.metrics().get(ERRORS, 0) < 40:
            assert time.monotonic() < deadline
            for _ in range(4):
                raw.sendto(packet, (to[0], 0))
            time.sleep(0.25)
            assert server.metrics()['rtpfanout_overload_mark_passed{mark="kernel_drops"}'] == 0
    assert server.metrics()[DROPS] == 0
    server.create(address_of(source), 7)
