"""The port behind the main one, where RTCP comes in: taken, kept over crash and upgrade."""

from __future__ import annotations

import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from supervisor_scene import command, connected, kill, server_pid
from support import ServerProcess, eventually, udp_socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.usefixtures("runtime_directory")

RECEIVER_REPORT = bytes([0x80, 201, 0, 1, 0, 0, 0, 7])


def behind(server: ServerProcess) -> tuple[str, int]:
    host, port = server.ingest_target
    return host, port + 1


def rtcp_dropped(server: ServerProcess) -> float:
    return server.metrics().dropped().get("rtcp", 0)


def report(server: ServerProcess, times: int = 1) -> None:
    with udp_socket() as sock:
        for _ in range(times):
            sock.sendto(RECEIVER_REPORT, behind(server))


@pytest.mark.parametrize("supervised", [True, False])
def test_what_comes_there_is_rtcp(start_server: StartServer, *, supervised: bool) -> None:
    server = start_server(enable_supervisor=supervised)
    report(server)
    assert server.settled(1).dropped() == {"rtcp": 1}


def test_what_comes_while_no_server_runs_is_queued(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(store__path=str(tmp_path / "store.db"))
    first = server_pid(server)
    os.kill(first, signal.SIGSTOP)
    report(server, 3)
    kill(server)
    assert server_pid(server) != first
    eventually(lambda: rtcp_dropped(server), lambda n: n == 3, "what had been queued")
    for number in (4, 5):
        done = command("upgrade", "--pid", str(server.process.pid))
        assert done.returncode == 0, done.stderr
        connected(server)
        report(server)
        eventually(lambda: rtcp_dropped(server), lambda n: n == 1, f"report {number}")


def test_it_is_left_to_others(start_server: StartServer) -> None:
    server = start_server(enable_rtcp_port=False)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(behind(server))
