"""An upgrade to a version with another layout of the store, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support import START_SECONDS, ServerProcess, eventually

from rtpfanout.api import session_pb2
from rtpfanout.store.migrations import LAYOUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Of each Python process that begins after the file LATER_VERSION is there: a version that is later
# than this one by a column.
LATER = """
import os
if os.path.exists(os.environ["LATER_VERSION"]):
    from rtpfanout.store import migrations, database
    migrations.LAYOUTS += ("ALTER TABLE session ADD COLUMN extra TEXT NOT NULL DEFAULT 'x';",)
    migrations.LAYOUT = database.LAYOUT = len(migrations.LAYOUTS)
"""


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What installs it."""
    (tmp_path / "sitecustomize.py").write_text(LATER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("LATER_VERSION", str(tmp_path / "installed"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    return tmp_path / "installed"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    made = tmp_path / "server.toml"
    made.write_text("")
    return made


@pytest.fixture
def server(
    later: Path, path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    with monkeypatch.context() as patch:
        patch.setattr(ServerProcess, "command", [*ServerProcess.command, "--config", str(config)])
        server = ServerProcess(store__path=str(path))
    assert not later.exists()
    yield server
    server.stop()


def upgrade() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rtpfanout", "upgrade"],
        capture_output=True,
        text=True,
        timeout=4 * START_SECONDS,
        env=os.environ | {"LATER_VERSION": "/nowhere"},
        check=False,
    )


def layout(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[60:64])


def listed(server: ServerProcess) -> set[str]:
    answer = server.stub.ListSessions(
        session_pb2.ListSessionsRequest(), wait_for_ready=True, timeout=START_SECONDS
    )
    return {session.session_id for session in answer.sessions}


def test_the_store_is_brought_up_to_date_and_kept_as_it_was(
    server: ServerProcess, later: Path, path: Path
) -> None:
    first = server.create("127.0.0.2:5000", 1, "127.0.0.1:6000")
    later.touch()
    done = upgrade()
    assert done.returncode == 0, done.stderr
    assert listed(server) == {first}
    second = server.create("127.0.0.2:5001", 2)
    assert listed(server) == {first, second}
    assert layout(path) == LAYOUT + 1
    assert layout(path.with_name(f"store.db.layout-{LAYOUT}")) == LAYOUT
    assert not path.with_name("store.db.new").exists()


def test_an_upgrade_that_fails_leaves_the_store_to_the_version_before(
    server: ServerProcess, later: Path, path: Path, config: Path
) -> None:
    first = server.create("127.0.0.2:5000", 1, "127.0.0.1:6000")
    ready = server.log.copy()
    later.touch()
    # Found out when the store was read and changed.
    config.write_text('grpc_unix_socket = "/proc/none/calls"\n')
    done = upgrade()
    assert done.returncode == 1
    assert "/proc/none/calls" in done.stderr
    eventually(
        lambda: [entry for entry in server.log[len(ready) :] if entry["event"] == "ready"],
        bool,
        "calls again",
    )
    second = server.create("127.0.0.2:5001", 2)
    assert listed(server) == {first, second}
    assert layout(path) == LAYOUT
    assert [p.name for p in path.parent.glob("store.db.*")] == ["store.db.lock"]
