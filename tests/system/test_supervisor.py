"""The server under its supervisor: killed, stopped, hung and drained under traffic."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
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
    SETTLE_SECONDS,
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
from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.usefixtures("runtime_directory")

KILLS = int(os.environ.get("RTPFANOUT_KILLS", "5"))
IN_HAND_SECONDS = 0.05
"""How long before a kill a packet may have been sent that was in hand then, so that it may come
twice: a turn is far shorter, but the machine may be busy."""


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> ServerProcess:
    """With a store, so that sessions survive."""
    return start_server(store__path=str(tmp_path / "store.db"))


def test_kills_under_traffic(server: ServerProcess, record_property: Callable[..., None]) -> None:
    with Flow() as flow:
        session = server.create(flow.source, 1, flow.viewer)
        flow.start(server.ingest)
        moments = []
        for _ in range(KILLS):
            time.sleep(1)  # a server that dies young would be replaced after a pause
            moments.append(kill(server))
        time.sleep(0.2)
        flow.finish()
    assert flow.first_arrivals == list(range(len(flow.sent_at))), "lost, or out of order"
    for number in flow.doubled:
        before = min(abs(moment - flow.sent_at[number]) for moment in moments)
        assert before < IN_HAND_SECONDS, "doubled although it was only queued"
    gaps = sorted(flow.gap_around(moment) for moment in moments)
    for name, value in (
        ("sent", len(flow.sent_at)),
        ("doubled", len(flow.doubled)),
        ("gap median ms", round(statistics.median(gaps) * 1e3)),
        ("gap maximum ms", round(gaps[-1] * 1e3)),
    ):
        record_property(name, value)
        print(f"{name}: {value}")
    connected(server)
    assert server.stub.GetSession(session_pb2.GetSessionRequest(session_id=session)).session_id


def test_what_a_killed_server_had_in_hand(server: ServerProcess) -> None:
    """It dies of its first send, with a burst read from the queue, and more comes meanwhile."""
    dies_with_a_burst_in_hand(server)
    assert all_logged(server, "ready")[1]["packets_recovered"] == 14
    assert server.settled()["rtpfanout_packets_recovered_total"] == 14


def test_a_store_that_is_damaged_meanwhile(start_server: StartServer, tmp_path: Path) -> None:
    """The next server trusts what the one before read; the one after that looks again."""
    path = tmp_path / "store.db"
    server = start_server(store__path=str(path))
    for number in range(200):
        server.create(f"127.0.0.1:{5000 + number}", number)
    done = command("upgrade", "--pid", str(server.process.pid))  # all is in the file itself then
    assert done.returncode == 0, done.stderr
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    kill(server)
    connected(server)
    assert len(list(tmp_path.glob("store.db.damaged-*"))) >= 1
    assert not server.stub.ListSessions(session_pb2.ListSessionsRequest()).sessions


def test_drain_tells_first_and_forwards_to_the_end(
    start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server(store__path=str(tmp_path / "store.db"), drain_secs=1)
    with Flow() as flow:
        server.create(flow.source, 1, flow.viewer)
        flow.start(server.ingest)
        time.sleep(0.2)
        began = time.monotonic()
        server.send_signal(signal.SIGTERM)
        eventually(server.readiness, lambda c: c == 503, "not ready")
        assert server.process.wait(SETTLE_SECONDS) == 0
        ended = time.monotonic()
        flow.finish()
    assert ended - began >= 1
    assert max(at for _, at in flow.got) > began + 0.9
    assert statefile.read(server.process.pid) is None


def test_drain_by_command(server: ServerProcess) -> None:
    done = command("drain")
    assert done.returncode == 0, done.stderr
    assert server.process.wait(SETTLE_SECONDS) == 0
    assert command("drain").returncode == 3


def test_crashes_at_the_start_back_off(server: ServerProcess) -> None:
    for count in range(6):
        before = server_pid(server)
        os.kill(before, signal.SIGKILL)
        eventually(
            lambda: len(all_logged(server, "server process ended, another one starts")),
            lambda n, count=count: n > count,
            "the end is logged",
        )
        eventually(lambda: server_pid(server), lambda pid, before=before: pid != before, "another")
    entries = all_logged(server, "server process ended, another one starts")
    # The first may have lived long enough to be no crash at the start.
    pauses = [entry["pause_seconds"] for entry in entries]
    assert pauses[:3] == [0, 0, 0]
    assert pauses[3:] in ([0.1, 0.2, 0.4], [0, 0.1, 0.2])
    eventually(lambda: server.log[-1]["event"], lambda event: event == "ready", "ready at last")


def test_no_server_is_left_behind(server: ServerProcess) -> None:
    child = server_pid(server)
    server.process.kill()
    server.process.wait()
    eventually(lambda: statefile.start_of(child), lambda start: start == 0, "the server is gone")


def test_a_stopped_server_is_replaced(server: ServerProcess) -> None:
    """A worker that hangs where no signal reaches it is like one that is never scheduled."""
    child = server_pid(server)
    os.kill(child, signal.SIGSTOP)
    eventually(lambda: server_pid(server), lambda pid: pid != child, "another server")
    assert all_logged(server, "server process shows no sign of life, it is killed")
    eventually(lambda: len(all_logged(server, "ready")), lambda n: n == 2, "ready again")


def test_without_a_supervisor(start_server: StartServer) -> None:
    server = start_server(enable_supervisor=False)
    assert server.pid == server.process.pid
    assert statefile.running() == []


@pytest.mark.parametrize("call", ["clone", "socketpair", "memfd_create"])
def test_what_can_not_be_had_is_asked_for_again(server: ServerProcess, call: str) -> None:
    """A process, or a descriptor: a supervisor lives on, says so once and tries again."""
    requires("strace")
    requires_root()
    source, viewer = udp_socket(), udp_socket()
    server.create(address_of(source), 9, address_of(viewer))
    fault = f"{call}:error=EAGAIN:when=1..3"
    calls = f"{call},clone3,vfork" if call == "clone" else call
    tracer = subprocess.Popen(
        ["strace", f"-etrace={calls}", f"-einject={fault}", "-p", str(server.process.pid)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    kill(server)
    tracer.terminate()
    tracer.wait(START_SECONDS)
    told = all_logged(server, "no server can be started, it is tried again")
    assert len(told) == (call != "memfd_create")
    connected(server)
    source.sendto(rtp_packet(9), server.ingest_target)
    assert receive(viewer, 1) == [rtp_packet(9)]
    assert server.process.poll() is None


def test_a_server_that_hangs_before_it_says_anything_is_replaced(server: ServerProcess) -> None:
    old = server_pid(server)
    os.kill(old, signal.SIGKILL)
    starting = eventually(lambda: server_pid(server), lambda pid: pid != old, "another server")
    os.kill(starting, signal.SIGSTOP)
    eventually(lambda: server_pid(server), lambda pid: pid not in (old, starting), "a third")
    eventually(lambda: len(all_logged(server, "ready")), lambda n: n == 2, "ready again")
