"""A packet loop with more to do in one turn than STUCK_SECONDS: it works, and nobody ends it.

strace makes every send take its time, so that it takes as long on any machine: a turn takes 4 s,
and no single send more than a fraction of STUCK_SECONDS.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from support import (
    ServerProcess,
    address_of,
    eventually,
    queued,
    requires,
    requires_root,
    rtp_packet,
    udp_socket,
)

from rtpfanout.supervisor.watching import STUCK_SECONDS

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

SSRC = 7
SUBSCRIBERS = 60
PACKETS = 64
SEND_SECONDS = 0.25
SENDS = (PACKETS - 1) * SUBSCRIBERS // 256
"""Of a turn with all but the first packet, each of which is as long as no other."""


@contextmanager
def slow_sends(server: ServerProcess, log: Path) -> Iterator[None]:
    """Of this server process and those that follow it."""
    assert SENDS * SEND_SECONDS > 1.5 * STUCK_SECONDS
    delay = f"inject=sendmmsg:delay_enter={int(SEND_SECONDS * 1e6)}"
    command = ["strace", "-f", "-o", str(log), "-e", "trace=sendmmsg", "-e", delay]
    command += ["-p", str(server.process.pid), "-p", str(server.pid)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tracer.stderr is not None
        for _ in range(2):
            assert "attached" in tracer.stderr.readline()
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.communicate(timeout=30)


def scene(server: ServerProcess, source: socket.socket, viewer: socket.socket) -> list[bytes]:
    """A session with one viewer, and many subscribers where nobody listens; its packets."""
    others = [f"127.1.0.{number}:9" for number in range(1, SUBSCRIBERS)]
    server.create(address_of(source), SSRC, address_of(viewer), *others)
    return [rtp_packet(SSRC, number, bytes(100 + number)) for number in range(PACKETS)]


def send(server: ServerProcess, source: socket.socket, packets: list[bytes]) -> None:
    for packet in packets:
        source.sendto(packet, server.ingest_target)


def numbers(viewer: socket.socket, got: list[int], least: int) -> list[int]:
    """Adds to `got` the packets that came, by number, until they are `least` different ones."""

    def look() -> int:
        got.extend(len(packet) - len(rtp_packet(SSRC, 0, bytes(100))) for packet in queued(viewer))
        return len(set(got))

    eventually(look, lambda came: came >= least, f"{least} packets came")
    return got


def logged(server: ServerProcess, words: str) -> int:
    return sum(words in entry["event"] for entry in list(server.log))


def test_a_long_turn_is_no_reason_to_end(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    requires_root()
    requires("strace")
    server = start_server(store__path=str(tmp_path / "store.db"), workers=1)
    with udp_socket() as source, udp_socket() as viewer:
        packets = scene(server, source, viewer)
        with slow_sends(server, tmp_path / "calls"):
            send(server, source, packets)
            got = numbers(viewer, [], PACKETS)
    assert got == list(range(PACKETS))
    assert not logged(server, "stuck") + logged(server, "another one starts")
    os.kill(server.pid, 0)  # the first process still


def test_who_recovers_what_took_so_long_is_left_alone(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    requires_root()
    requires("strace")
    server = start_server(store__path=str(tmp_path / "store.db"), workers=1)
    with udp_socket() as source, udp_socket() as viewer:
        packets = scene(server, source, viewer)
        with slow_sends(server, tmp_path / "calls"):
            send(server, source, packets)
            # The first leaves alone, and what came meanwhile is the next turn.
            got = numbers(viewer, [], 2)
            os.kill(server.pid, signal.SIGKILL)
            numbers(viewer, got, PACKETS)
    assert list(dict.fromkeys(got)) == list(range(PACKETS)), "lost, or out of order"
    assert not logged(server, "stuck")
    assert logged(server, "another one starts") == 1
    counted = server.settled()
    assert counted["rtpfanout_packets_recovered_total"] >= PACKETS // 2
    assert counted.dropped().get("abandoned", 0) == 0
