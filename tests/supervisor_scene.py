"""A server under its supervisor: its state, its log, commands, and kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import grpc
from support import (
    SETTLE_SECONDS,
    START_SECONDS,
    ServerProcess,
    address_of,
    eventually,
    queued,
    receive,
    requires,
    requires_root,
    rtp_packet,
    send_segmented,
    server_environment,
    udp_socket,
)

from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from collections.abc import Callable

    StartServer = Callable[..., ServerProcess]


def state(server: ServerProcess) -> statefile.ServerState:
    found = statefile.read(server.process.pid)
    assert found is not None
    return found


def server_pid(server: ServerProcess) -> int:
    return state(server).server_pid


def all_logged(server: ServerProcess, event: str) -> list[dict[str, object]]:
    return [entry for entry in list(server.log) if entry["event"] == event]


def kill(server: ServerProcess) -> float:
    """SIGKILL to the server process; when. Returns once the next one is ready."""
    first, ready = server_pid(server), len(all_logged(server, "ready"))
    moment = time.monotonic()
    os.kill(first, signal.SIGKILL)
    eventually(lambda: len(all_logged(server, "ready")), lambda n: n > ready, "ready again")
    eventually(lambda: server_pid(server), lambda pid: pid != first, "it is told of")
    return moment


def connected(server: ServerProcess) -> None:
    """The client has noticed that calls are taken again."""
    grpc.channel_ready_future(server.channel).result(SETTLE_SECONDS)


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rtpfanout", *words],
        env=server_environment({}) | environment,
        capture_output=True,
        text=True,
        timeout=4 * START_SECONDS,
        check=False,
    )


def dies_with_a_burst_in_hand(server: ServerProcess) -> None:
    """And all of it comes out, in order; returns when another one is ready."""
    requires("strace")
    requires_root()
    source, viewers = udp_socket(), [udp_socket() for _ in range(2)]
    server.create(address_of(source), 9, *map(address_of, viewers))
    packets = [rtp_packet(9, number, bytes(100)) for number in range(20)]
    first, ready = server_pid(server), len(all_logged(server, "ready"))
    kill_at_send = ["-e", "trace=sendmmsg", "-e", "inject=sendmmsg:signal=KILL"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(first), *kill_at_send], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    send_segmented(source, packets[:14], server.ingest_target)
    eventually(lambda: server_pid(server), lambda pid: pid != first, "another server")
    for packet in packets[14:]:
        source.sendto(packet, server.ingest_target)
    tracer.communicate(timeout=START_SECONDS)  # it ends with what it traced
    for viewer in viewers:
        assert receive(viewer, len(packets)) == packets
        assert not queued(viewer)
    eventually(lambda: len(all_logged(server, "ready")), lambda n: n > ready, "ready again")
