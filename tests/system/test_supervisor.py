"""The server under its supervisor: killed, upgraded, reloaded and drained under traffic."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from datagram_support import subscribers
from flow import Flow
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

from rtpfanout.api import session_pb2
from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

KILLS = int(os.environ.get("RTPFANOUT_KILLS", "5"))
UPGRADES = int(os.environ.get("RTPFANOUT_UPGRADES", "3"))
DENIED = "127.0.0.8"
LONG_LIST = int(os.environ.get("RTPFANOUT_LONG_LIST", "20000"))
"""Networks."""
IN_HAND_SECONDS = 0.05
"""How long before a kill a packet may have been sent that was in hand then, so that it may come
twice: a turn is far shorter, but the machine may be busy."""


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the servers of the test tell of themselves."""
    directory = tmp_path / "run"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory))
    return directory


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> ServerProcess:
    """With a store, so that sessions survive."""
    return start_server(store__path=str(tmp_path / "store.db"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The file that `configured` reads; it may be changed while that runs."""
    path = tmp_path / "server.toml"
    path.write_text("")
    return path


@pytest.fixture
def configured(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """A server with a configuration file."""
    with monkeypatch.context() as patch:
        patch.setattr(ServerProcess, "command", [*ServerProcess.command, "--config", str(config)])
        server = ServerProcess(store__path=str(tmp_path / "store.db"))
    yield server
    server.stop()


def state(server: ServerProcess) -> statefile.State:
    found = statefile.read(server.process.pid)
    assert found is not None
    return found


def server_pid(server: ServerProcess) -> int:
    return state(server).server_pid


def all_logged(server: ServerProcess, event: str) -> list[dict[str, object]]:
    return [entry for entry in list(server.log) if entry["event"] == event]


def kill(server: ServerProcess) -> float:
    """SIGKILL to the server process; when. Returns once the next one is ready."""
    ready = len(all_logged(server, "ready"))
    moment = time.monotonic()
    os.kill(server_pid(server), signal.SIGKILL)
    eventually(lambda: len(all_logged(server, "ready")), lambda n: n > ready, "ready again")
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
        eventually(lambda: server.http("/readyz").status_code, lambda c: c == 200, "calls again")
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


def assert_denied(server: ServerProcess, session: str) -> None:
    with pytest.raises(grpc.RpcError, match=re.escape(DENIED)):
        server.add(session, f"{DENIED}:7000")


def test_reload_is_all_or_nothing(configured: ServerProcess, config: Path) -> None:
    server = configured
    session = server.create("127.0.0.1:5000", 1)
    config.write_text('unknown = 1\n[address_policy]\ndeny = ["127.0.0.9/32"]\n')
    done = command("reload")
    assert done.returncode == 1
    assert "unknown" in done.stderr
    server.add(session, "127.0.0.9:7000")
    config.write_text(f'max_sessions = 9\n[address_policy]\ndeny = ["{DENIED}/32"]\n')
    done = command("reload")
    assert done.returncode == 0, done.stderr
    assert "max_sessions" in done.stderr
    assert_denied(server, session)
    kill(server)  # the next one has it, too
    connected(server)
    assert_denied(server, session)


def test_who_is_denied_by_a_reload_gets_nothing_any_more(
    configured: ServerProcess, config: Path
) -> None:
    server = configured
    with Flow() as flow, udp_socket("127.0.0.9") as denied:
        session = server.create(flow.source, 1, flow.viewer, address_of(denied))
        flow.start(server.ingest)
        eventually(lambda: queued(denied), bool, "packets to the one to be denied")
        config.write_text('[address_policy]\ndeny = ["127.0.0.9/32"]\n')
        assert command("reload").returncode == 0
        queued(denied)
        time.sleep(0.3)
        assert queued(denied) == []
        states = subscribers(server, session)
        assert states == {flow.viewer: "sending", address_of(denied): "refused"}
        config.write_text("")
        assert command("reload").returncode == 0
        eventually(lambda: queued(denied), bool, "packets again")
        flow.finish()
    assert flow.numbers == list(range(len(flow.sent_at)))
    assert server.metrics()["rtpfanout_policy_withheld_total"] == 1
    assert server.logged("subscribers withheld: they are refused now, and kept")["count"] == 1


def test_what_was_set_on_the_command_line_outlives_reloads_and_upgrades(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--config", str(config), "--set", "limits.max_subscribers=1", "--max-sessions", "1"]
    monkeypatch.setattr(ServerProcess, "command", [*ServerProcess.command, *flags])
    server = ServerProcess(store__path=str(tmp_path / "store.db"), max_sessions=5)
    session = server.create("127.0.0.1:5000", 1, "127.0.0.1:5001")
    for what in ("reload", "upgrade"):
        config.write_text("limits.max_subscribers = 9\nlimits.max_subscribers_per_ip = 7\n")
        done = command(what)
        assert done.returncode == 0, done.stderr
        connected(server)
        for call in (
            lambda: server.add(session, "127.0.0.1:5002"),
            lambda: server.create("127.0.0.1:5000", 2),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    server.stop()


def reload_with_signal(config: Path, pid: int, number: int, delay: float) -> None:
    """A reload that denies DENIED, done in the end though process `pid` is stopped until it gets
    a signal after `delay` seconds."""
    os.kill(pid, signal.SIGSTOP)
    config.write_text(f'[address_policy]\ndeny = ["{DENIED}/32"]\n')
    timer = threading.Timer(delay, os.kill, (pid, number))
    timer.start()
    done = command("reload")
    timer.join()
    assert done.returncode == 0, done.stderr


def test_a_server_that_dies_while_it_reloads(configured: ServerProcess, config: Path) -> None:
    server = configured
    session = server.create("127.0.0.1:5000", 1)
    reload_with_signal(config, server_pid(server), signal.SIGKILL, 0.5)
    eventually(lambda: len(all_logged(server, "ready")), lambda n: n == 2, "ready again")
    connected(server)
    assert_denied(server, session)


def test_a_reload_that_meets_a_starting_server(configured: ServerProcess, config: Path) -> None:
    """It was forked with the old configuration, and gets the new one as soon as it is ready."""
    server = configured
    session = server.create("127.0.0.1:5000", 1)
    old = server_pid(server)
    os.kill(old, signal.SIGKILL)
    starting = eventually(lambda: server_pid(server), lambda pid: pid != old, "another server")
    reload_with_signal(config, starting, signal.SIGCONT, 2)
    connected(server)
    assert_denied(server, session)
    assert server_pid(server) == starting


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
        eventually(lambda: server.http("/readyz").status_code, lambda c: c == 503, "not ready")
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


def test_a_long_deny_list(configured: ServerProcess, config: Path) -> None:
    """Applied as a whole, however long, and by the next server, too."""
    server = configured
    session = server.create("127.0.0.1:5000", 1, f"{DENIED}:7000")
    networks = [f"100.{64 + i // 65536}.{i // 256 % 256}.{i % 256}/32" for i in range(LONG_LIST)]
    listed = ", ".join(f'"{network}"' for network in [f"{DENIED}/32", *networks])
    config.write_text(f"[address_policy]\ndeny = [{listed}]\n")
    done = command("reload", "--timeout", "60")
    assert done.returncode == 0, done.stderr
    assert subscribers(server, session).get(f"{DENIED}:7000") != "sending"
    assert_denied(server, session)
    kill(server)
    connected(server)
    assert_denied(server, session)
    done = command("upgrade", "--pid", str(server.process.pid))
    assert done.returncode == 0, done.stderr
    connected(server)
    assert_denied(server, session)
