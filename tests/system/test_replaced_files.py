"""What is installed changes under a running server: it goes on as what was started, however often
it dies, until an upgrade has succeeded."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from flow import Flow
from pki import Authority, bearer, write_keys, write_server
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

import rtpfanout
from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StartServer = Callable[..., ServerProcess]

CAN_BE_STARTED = "a server can be started whatever is installed now"


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the servers of the test tell of themselves."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that servers of this test run, and that may be changed."""
    package = Path(rtpfanout.__file__).parent
    copy = tmp_path / "installed/rtpfanout"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__", "*.c", "*.o"))
    monkeypatch.setenv("PYTHONPATH", str(copy.parent))
    return copy


@pytest.fixture
def server(
    installed: Path, start_server: StartServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """It runs what is `installed`, and has imported all that it will ever need."""
    monkeypatch.chdir(installed.parent)
    server = start_server(store__path=str(tmp_path / "store.db"), log__level="debug")
    server.logged(CAN_BE_STARTED)
    return server


def server_pid(server: ServerProcess) -> int:
    state = statefile.read(server.process.pid)
    assert state is not None
    return state.server_pid


def times_ready(server: ServerProcess) -> int:
    return sum(entry["event"] == "ready" for entry in list(server.log))


def kill(server: ServerProcess) -> None:
    """SIGKILL to the server process; returns once the next one is ready and found."""
    ready = times_ready(server)
    os.kill(server_pid(server), signal.SIGKILL)
    eventually(lambda: times_ready(server), lambda n: n > ready, "ready again")
    grpc.channel_ready_future(server.channel).result(SETTLE_SECONDS)


def upgrade(server: ServerProcess) -> subprocess.CompletedProcess[str]:
    """By a command of the version that the test is of, not of what is installed."""
    environment = server_environment({})
    del environment["PYTHONPATH"]
    return subprocess.run(
        [sys.executable, "-m", "rtpfanout", "upgrade", "--pid", str(server.process.pid)],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=4 * START_SECONDS,
        check=False,
    )


def replace_all(installed: Path, text: str) -> None:
    """Each file of the package but for the first, and what was compiled of it."""
    for path in installed.rglob("*.py"):
        if path != installed / "__init__.py":
            path.write_text(text)
    for path in installed.rglob("__pycache__"):
        shutil.rmtree(path)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def use_everything(server: ServerProcess, number: int) -> None:
    session = server.create(f"127.0.0.9:{5000 + number}", 7, "127.0.0.1:6000")
    assert server.stats(session).subscriber_count == 1
    assert server.http("/readyz").status_code == 200
    assert "rtp_packets_received_total" in server.http("/metrics").text
    assert session in server.http("/metrics/sessions").text
    with pytest.raises(grpc.RpcError):
        server.add(session, "no address")
    server.delete(session)


def test_a_server_is_followed_by_itself_whatever_is_installed(
    server: ServerProcess, installed: Path
) -> None:
    """Between an installation and the upgrade, and after one that was refused."""
    with Flow() as flow:
        server.create(flow.source, 1, flow.viewer)
        flow.start(server.ingest)
        replace_all(installed, "raise ImportError('broken')\n")
        for number in range(2):
            kill(server)
            use_everything(server, number)
        done = upgrade(server)
        assert done.returncode == 1
        assert "broken" in done.stderr
        for number in range(2, 5):
            kill(server)
            use_everything(server, number)
        flow.finish()
    assert flow.first_arrivals == list(range(len(flow.sent_at)))


FAULTS = [  # file, what is appended to it, what the command says
    ("service/calls.py", "raise ImportError('needs a newer grpcio')", "needs a newer grpcio"),
    (
        "supervisor/child.py",
        "async def _fail(*_): os.kill(os.getpid(), 9)\nServer.start_serving = _fail",
        "the new server did not start: exit code -9",
    ),
]
FURTHER_FAULTS = [
    ("cli/serve.py", "import sys; sys.exit(0)", "can't take over from this one"),
    ("supervisor/child.py", "import os; os.abort()", "exit code -6"),
    (
        "supervisor/child.py",
        "def _fail(*_): raise RuntimeError('after the promise')\nServer.catch_up = _fail",
        "exit code 1",
    ),
    (
        "supervisor/child.py",
        "def _fail(*_): os.kill(os.getpid(), 9)\nServer.start_packets = _fail",
        "exit code -9",
    ),
]
BETWEEN = pytest.mark.slow("five servers, one after the other, for each step between")


@pytest.mark.parametrize(
    ("name", "fault", "reason"),
    [*FAULTS, *(pytest.param(*fault, marks=BETWEEN) for fault in FURTHER_FAULTS)],
)
def test_a_version_that_fails_at_any_step_leaves_the_old_one(
    server: ServerProcess, installed: Path, name: str, fault: str, reason: str
) -> None:
    with Flow() as flow:
        server.create(flow.source, 1, flow.viewer)
        flow.start(server.ingest)
        append(installed / name, f"\n{fault}\n")
        for number in range(2):
            done = upgrade(server)
            assert done.returncode == 1
            assert reason in done.stderr
            eventually(lambda: server.http("/readyz").status_code, lambda c: c == 200, "ready")
            grpc.channel_ready_future(server.channel).result(SETTLE_SECONDS)
            kill(server)
            use_everything(server, number)
        flow.finish()
    assert flow.first_arrivals == list(range(len(flow.sent_at)))


def test_then_a_good_one_takes_over(server: ServerProcess, installed: Path) -> None:
    calls = installed / "service/calls.py"
    good = calls.read_text()
    append(calls, "\nraise ImportError('broken')\n")
    assert upgrade(server).returncode == 1
    calls.write_text(good + "\nprint('of the second version', file=__import__('sys').stderr)\n")
    done = upgrade(server)
    assert done.returncode == 0, done.stderr
    grpc.channel_ready_future(server.channel).result(SETTLE_SECONDS)
    use_everything(server, 0)
    supervised = eventually(
        lambda: server.other_lines, lambda lines: "of the second version" in lines, "its word"
    )
    assert len(supervised) == 1, "the supervisor; what the new server says at its start is kept"
    calls.write_text("raise ImportError('of the third')\n")
    kill(server)
    use_everything(server, 1)


def test_what_is_in_hand_after_an_upgrade_that_failed(
    server: ServerProcess, installed: Path
) -> None:
    """It is handed on as before one."""
    requires("strace")
    requires_root()
    append(installed / "service/calls.py", "\nraise ImportError('broken')\n")
    assert upgrade(server).returncode == 1
    source, viewer = udp_socket(), udp_socket()
    server.create(address_of(source), 9, address_of(viewer))
    packets = [rtp_packet(9, number, bytes(100)) for number in range(20)]
    first, ready = server_pid(server), times_ready(server)
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
    tracer.communicate(timeout=START_SECONDS)
    assert receive(viewer, len(packets)) == packets
    assert not queued(viewer)
    eventually(lambda: times_ready(server), lambda n: n > ready, "ready again")


def test_a_server_that_is_forked_opens_nothing_of_what_is_installed(
    start_server: StartServer, tmp_path: Path
) -> None:
    """Neither of ours nor of others': what it needs has been imported. With TLS and tokens."""
    requires("strace")
    requires_root()
    authority = Authority()
    server = start_server(
        store__path=str(tmp_path / "store.db"),
        log__level="debug",
        auth__jwt_keys=write_keys(tmp_path / "keys.json"),
        grpc_unix_socket=str(tmp_path / "socket"),
        **write_server(tmp_path, authority),
    )
    server.logged(CAN_BE_STARTED)
    opened = tmp_path / "opened"
    tracer = subprocess.Popen(
        [
            "strace",
            "-f",
            "-e",
            "trace=open,openat",
            "-o",
            str(opened),
            "-p",
            str(server.process.pid),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    assert "attached" in tracer.stderr.readline()
    ready = times_ready(server)
    os.kill(server_pid(server), signal.SIGKILL)
    eventually(lambda: times_ready(server), lambda n: n > ready, "ready again")
    credentials = grpc.ssl_channel_credentials(authority.pem)
    with grpc.secure_channel(
        str(server.grpc), credentials, [("grpc.enable_http_proxy", 0)]
    ) as channel:
        stub = session_pb2_grpc.SessionServiceStub(channel)
        grpc.channel_ready_future(channel).result(SETTLE_SECONDS)
        request = session_pb2.CreateSessionRequest(
            source_address="127.0.0.1:5000", ssrc=1, media_type="video"
        )
        operator = bearer(role="operator", sub="ann")
        stub.CreateSession(request, metadata=operator)
        with pytest.raises(grpc.RpcError):
            stub.CreateSession(request, metadata=operator)
        with pytest.raises(grpc.RpcError):
            stub.CreateSession(request)
    for path in ("/metrics", "/metrics/sessions", "/healthz", "/nothing"):
        server.http(path)
    time.sleep(1.5)  # housekeeping
    server.stop()
    tracer.communicate(timeout=START_SECONDS)
    lines = opened.read_text().splitlines()
    assert lines
    code = [line for line in lines if re.search(r'(\.py|\.pyc|\.so|site-packages[^"]*)"', line)]
    assert not code
