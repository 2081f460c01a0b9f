"""Upgrades under traffic: what a new server takes over, and what leaves the old one running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from flow import Flow
from supervisor_scene import (
    all_logged,
    command,
    connected,
    dies_with_a_burst_in_hand,
    kill,
    server_pid,
)
from support import (
    START_SECONDS,
    ServerProcess,
    address_of,
    eventually,
    receive,
    requires,
    requires_root,
    rtp_packet,
    udp_socket,
)

from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.usefixtures("runtime_directory")

UPGRADES = int(os.environ.get("RTPFANOUT_UPGRADES", "3"))


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> ServerProcess:
    """With a store, so that sessions survive."""
    return start_server(store__path=str(tmp_path / "store.db"))


def test_upgrades_under_traffic(server: ServerProcess) -> None:
    with Flow(per_second=2000) as flow:
        server.create(flow.source, 1, flow.viewer)
        flow.start(server.ingest)
        pids = {server_pid(server)}
        for number in range(UPGRADES):
            done = command("upgrade", "--pid", str(server.process.pid))
            assert done.returncode == 0, done.stderr
            pids.add(server_pid(server))
            connected(server)  # what it acknowledges is known to all that come after
            server.create(f"127.0.0.2:{5000 + number}", 7)
        flow.finish()
    assert flow.numbers == list(range(len(flow.sent_at)))
    assert len(pids) == UPGRADES + 1
    listed = server.stub.ListSessions(session_pb2.ListSessionsRequest())
    assert len(listed.sessions) == UPGRADES + 1
    assert server.process.poll() is None, "the process that was started is still the same one"


def test_a_version_that_does_not_start_changes_nothing(
    configured: ServerProcess, config: Path
) -> None:
    server = configured
    with Flow() as flow:
        server.create(flow.source, 1, flow.viewer)
        flow.start(server.ingest)
        before = server_pid(server)
        config.write_text("max_sessions = 'many'\n")
        done = command("upgrade")
        assert done.returncode == 1
        assert "max_sessions" in done.stderr
        flow.finish()
    assert server_pid(server) == before
    assert flow.numbers == list(range(len(flow.sent_at)))
    assert server.http("/readyz").status_code == 200


def test_a_server_that_cannot_take_over_leaves_the_old_one(
    configured: ServerProcess, config: Path
) -> None:
    server = configured
    with Flow() as flow:
        server.create(flow.source, 1, flow.viewer)
        flow.start(server.ingest)
        before = server_pid(server)
        ready = len(all_logged(server, "ready"))
        config.write_text("worker_cpus = [1023]\n")  # found out only when it starts for good
        done = command("upgrade")
        assert done.returncode == 1
        assert "no CPU 1023" in done.stderr
        assert server_pid(server) == before
        eventually(lambda: len(all_logged(server, "ready")), lambda n: n > ready, "calls again")
        connected(server)
        server.create("127.0.0.2:5000", 7)
        flow.finish()
    assert flow.numbers == list(range(len(flow.sent_at)))


def test_an_upgrade_that_was_refused_leaves_nothing_behind(
    configured: ServerProcess, config: Path
) -> None:
    """Neither its settings, nor a server that hands on less than one before."""
    server = configured
    config.write_text("worker_cpus = [1023]\n")
    for _ in range(2):
        assert command("upgrade").returncode == 1
        eventually(server.readiness, lambda c: c == 200, "calls again")
    done = command("reload")
    assert done.returncode == 0, done.stderr
    assert "worker_cpus has changed and needs a restart" in done.stderr
    connected(server)
    dies_with_a_burst_in_hand(server)
    kill(server)


SEVERAL_STARTS = "four servers, one after the other; one of three moments is enough for every day"


@pytest.mark.parametrize(
    "at",
    [
        pytest.param("waiting", marks=pytest.mark.slow(SEVERAL_STARTS)),
        pytest.param("suspended", marks=pytest.mark.slow(SEVERAL_STARTS)),
        "prepared",
    ],
)
def test_the_old_server_dies_during_an_upgrade(server: ServerProcess, at: str) -> None:
    """At each step before it has handed over: another of its own version follows."""
    requires("strace")
    requires_root()
    source, viewer = udp_socket(), udp_socket()
    server.create(address_of(source), 9, address_of(viewer))
    old = server_pid(server)
    supervisor = subprocess.Popen(
        [
            "strace",
            "-f",
            "-e",
            "trace=sendmsg,sendto,recvmsg",
            "-s",
            "60",
            "-p",
            str(server.process.pid),
            "-o",
            "|cat",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    asking = subprocess.Popen(
        [sys.executable, "-m", "rtpfanout", "upgrade", "--pid", str(server.process.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert supervisor.stdout is not None
    for line in supervisor.stdout:
        if f'\\"word\\": \\"{at}\\"' in line:
            os.kill(old, signal.SIGKILL)
            break
    supervisor.terminate()
    _, complaint = asking.communicate(timeout=4 * START_SECONDS)
    supervisor.wait(START_SECONDS)
    assert "the old server died during the upgrade" in complaint
    assert asking.returncode == 1
    connected(server)
    source.sendto(rtp_packet(9), server.ingest_target)
    assert receive(viewer, 1) == [rtp_packet(9)]
    done = command("upgrade", "--pid", str(server.process.pid))
    assert done.returncode == 0, done.stderr
    connected(server)


def test_what_keeps_nothing_is_not_upgraded(start_server: StartServer) -> None:
    server = start_server(store__path=":memory:")
    done = command("upgrade", "--pid", str(server.process.pid))
    assert done.returncode == 1
    assert "store.path" in done.stderr
