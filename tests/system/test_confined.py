"""A server that may do little: another user, a read-only root, no /tmp, no home, no /proc."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from support import (
    SETTLE_SECONDS,
    START_SECONDS,
    ServerProcess,
    address_of,
    eventually,
    requires,
    requires_root,
    rtp_packet,
    server_environment,
    transfer,
    udp_socket,
    unmet,
)

import rtpfanout
from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

USER = "10001"
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
READ_ONLY = """
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=0700,uid="$0",gid="$0" none "$STATE_DIRECTORY"
for place in $(cut -d ' ' -f 2 /proc/self/mounts | sort -u); do
    case "$place" in
    /proc|/proc/*|/sys|/sys/*|/dev|/dev/*|"$STATE_DIRECTORY") ;;
    *) mount -o remount,bind,ro "$place" 2>/dev/null || true ;;
    esac
done
cd /
exec "$@"
"""
WITHOUT_PROC = 'mount --make-rprivate / && mount -t tmpfs none /proc && exec "$@"'
NOT_THEIRS = ("HOME", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "RUNTIME_DIRECTORY")


def needed_by(name: str) -> set[str]:
    """The distribution `name` and all that it needs without extras."""
    found, waiting = set(), [name]
    while waiting:
        if (one := waiting.pop()) not in found:
            found.add(one)
            needs = map(Requirement, metadata.requires(one) or [])
            waiting += [r.name for r in needs if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


def copy_packages(place: Path) -> None:
    """The package and what it needs, to `place`: a checkout may be root's alone."""
    shutil.copytree(Path(rtpfanout.__file__).parent, place / "rtpfanout")
    for name in needed_by("rtpfanout") - {"rtpfanout"}:
        for file in metadata.files(name) or []:
            source = Path(str(file.locate()))
            if ".." not in file.parts and source.is_file():
                target = place / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    for entry in [place, *place.rglob("*")]:
        entry.chmod(0o755 if entry.is_dir() else 0o644)


@pytest.fixture(scope="module")
def public_packages() -> Iterator[Path]:
    """Not below pytest's own directories, which only root can pass."""
    requires_root()
    made = Path(tempfile.mkdtemp(prefix="rtpfanout-test-"))
    copy_packages(made)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def python(public_packages: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """One that an ordinary user can run, and which finds the server."""
    requires("setpriv", "unshare", "nsenter")
    monkeypatch.setenv("PYTHONPATH", str(public_packages))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    said = []
    for candidate in (sys.executable, "/usr/bin/python3"):
        tried = subprocess.run(
            # By another program: setpriv itself still runs what only root can.
            [*AS_USER, "sh", "-c", f"{candidate} -c 'import rtpfanout._fastpath, grpc'"],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        if tried.returncode == 0:
            return candidate
        said.append(f"{candidate}: {tried.stderr.strip()}")
    unmet(f"needs a Python that an ordinary user can run ({'; '.join(said)})")
    raise AssertionError


@pytest.fixture
def state_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """To be mounted over. Not below pytest's own, which only root can pass."""
    made = Path(tempfile.mkdtemp(prefix="rtpfanout-test-"))
    made.chmod(0o755)
    monkeypatch.setenv("STATE_DIRECTORY", str(made))
    for name in NOT_THEIRS:
        monkeypatch.delenv(name, raising=False)
    yield made
    shutil.rmtree(made)


def batch(server: ServerProcess, session: str, first: int) -> None:
    addresses = [f"10.{first}.{n // 250}.{1 + n % 250}:6000" for n in range(1000)]
    server.stub.BatchAddSubscribers(
        session_pb2.BatchAddSubscribersRequest(session_id=session, subscriber_addresses=addresses)
    )


@pytest.mark.usefixtures("state_directory")
def test_a_container_with_a_read_only_root(
    python: str, udp: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docker/compose.yaml and the Kubernetes pod have it."""
    program = [*AS_USER, "--bounding-set=-all", "--inh-caps=-all", python, "-m", "rtpfanout"]
    unshared = ["unshare", "-m", "bash", "-c", READ_ONLY, USER]
    monkeypatch.setattr(ServerProcess, "command", [*unshared, *program, "serve"])
    with udp_socket() as free:
        bind = address_of(free)
    server = ServerProcess(bind_address=bind, max_fanout_per_session=10_000)
    try:
        camera, viewer = udp(), udp()
        session = server.create(address_of(camera), 1, address_of(viewer))
        some = [rtp_packet(1, n) for n in range(20)]
        assert transfer(camera, server.ingest_target, some, [viewer]) == [some]
        server.stub.UpdateSession(session_pb2.UpdateSessionRequest(session_id=session, paused=True))
        for first in range(5):  # SQLite has no place for temporary files either
            batch(server, session, first)
        inside = ["nsenter", "-m", "-t", str(server.process.pid), *program]
        for word in ("doctor", "reload", "upgrade", "drain"):
            done = subprocess.run(
                [*inside, word],
                env=server_environment({}),
                capture_output=True,
                text=True,
                timeout=4 * START_SECONDS,
                check=False,
            )
            assert done.returncode == 0, f"{word}: {done.stderr} {server.log[-5:]}"
        assert server.process.wait(SETTLE_SECONDS) == 0
    finally:
        server.stop()
    assert [entry for entry in server.log if entry["level"] == "error"] == []
    assert server.other_lines == []


@pytest.mark.usefixtures("state_directory")
def test_without_a_home_it_ends_with_2_and_one_line(
    python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STATE_DIRECTORY")
    with udp_socket() as free:
        bind = address_of(free)
    ports = {"grpc_bind_address": "127.0.0.1:0", "metrics_bind_address": "127.0.0.1:0"}
    homeless = ["setpriv", "--reuid=47114", "--regid=47114", "--clear-groups"]
    done = subprocess.run(
        [*homeless, python, "-m", "rtpfanout", "serve"],
        env=server_environment({"bind_address": bind, "log__format": "json"} | ports),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "store.path" in line]
    assert "home" in line


def test_without_proc_housekeeping_goes_on(
    tmp_path: Path, udp: Callable[..., socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    requires_root()
    requires("unshare")
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    unshared = ["unshare", "-m", "bash", "-c", WITHOUT_PROC, "bash"]
    monkeypatch.setattr(ServerProcess, "command", [*unshared, *ServerProcess.command])
    server = ServerProcess(store__path=tmp_path / "s.db")
    try:
        session = server.create(address_of(udp()), 1)
        for _ in range(2):  # as often as leases are looked at, everything else is
            server.stub.AddSubscriber(
                session_pb2.AddSubscriberRequest(
                    session_id=session, subscriber_address="127.0.0.1:6000", ttl_secs=0.1
                )
            )
            eventually(lambda: server.stats(session).subscriber_count, lambda n: n == 0, "its end")
        assert (tmp_path / f"run/{server.process.pid}.json").exists()
    finally:
        server.stop()
    assert [entry for entry in server.log if entry["level"] in ("error", "critical")] == []
    assert server.other_lines == []
