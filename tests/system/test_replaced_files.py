"""What is installed changes under a running server: it goes on as what was started, however often
it dies, until an upgrade has succeeded."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from flow import Flow
from pki import Authority, bearer, write_keys, write_server
from supervisor_scene import connected, dies_with_a_burst_in_hand, kill
from support import (
    SETTLE_SECONDS,
    START_SECONDS,
    ServerProcess,
    eventually,
    requires,
    requires_root,
    server_environment,
)

import rtpfanout
from rtpfanout.api import session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.usefixtures("runtime_directory")

CAN_BE_STARTED = "a server can be started whatever is installed now"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that servers of this test run, and that may be changed."""
    package = Path(rtpfanout.__file__).parent
    copy = tmp_path / "installed/rtpfanout"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("*.c", "*.o"))
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
            connected(server)
            use_everything(server, number)
        done = upgrade(server)
        assert done.returncode == 1
        assert "broken" in done.stderr
        for number in range(2, 5):
            kill(server)
            connected(server)
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
            eventually(server.readiness, lambda c: c == 200, "ready")
            connected(server)
            kill(server)
            connected(server)
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
    connected(server)
    use_everything(server, 0)
    supervised = eventually(
        lambda: server.other_lines, lambda lines: "of the second version" in lines, "its word"
    )
    assert len(supervised) == 1, "the supervisor; what the new server says at its start is kept"
    calls.write_text("raise ImportError('of the third')\n")
    kill(server)
    connected(server)
    use_everything(server, 1)


def test_what_is_in_hand_after_an_upgrade_that_failed(
    server: ServerProcess, installed: Path
) -> None:
    """It is handed on as before one."""
    append(installed / "service/calls.py", "\nraise ImportError('broken')\n")
    assert upgrade(server).returncode == 1
    dies_with_a_burst_in_hand(server)


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
    kill(server)
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
