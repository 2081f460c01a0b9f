"""Where a server tells of itself, and whom a command believes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import structlog

from rtpfanout.supervisor import statefile
from rtpfanout.supervisor.statefile import ServerState, StateFile

PID = os.getpid()
NOBODY = 65534


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the environment names."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", f"{tmp_path / 'run'}:/another")
    return tmp_path / "run"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ordinary user's environment that names nothing, and a shared directory."""
    for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(statefile.os, "geteuid", lambda: 4711)
    monkeypatch.setattr(statefile, "_SHARED", tmp_path / "shared")
    (tmp_path / "shared").mkdir()
    return tmp_path


def test_what_is_written_is_found_and_then_gone(runtime: Path) -> None:
    file = StateFile(ServerState(PID, bind_address="127.0.0.1:5004"))
    file.write()
    assert statefile.running() == [file.state]
    assert statefile.read(PID) == file.state
    assert runtime.stat().st_mode & 0o777 == 0o700
    file.remove()
    assert statefile.read(PID) is None
    assert list(runtime.iterdir()) == []


def test_the_first_place_that_can_be_had(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = bare / "home/.local/state/rtpfanout/run"
    assert statefile.places() == [state]
    monkeypatch.setenv("STATE_DIRECTORY", str(bare / "kept"))
    assert statefile.places() == [bare / "kept/run"]
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(bare / "session"))
    assert statefile.places() == [bare / "session/rtpfanout", bare / "kept/run"]
    (bare / "session").write_text("in the way")
    file = StateFile(ServerState(PID))
    file.write()
    assert (bare / f"kept/run/{PID}.json").exists()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(bare / "given"))
    assert statefile.places() == [bare / "given"]
    assert statefile.running() == []
    assert list((bare / "shared").iterdir()) == []


def test_nowhere_to_write_is_told_once(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert statefile.places() == []
    file = StateFile(ServerState(PID))
    with structlog.testing.capture_logs() as lines:
        file.write()
        file.write()
    file.remove()
    (line,) = lines
    assert line["tried"] == []
    assert "RUNTIME_DIRECTORY" in line["event"]
    assert list((bare / "shared").iterdir()) == []


def test_a_server_of_before_is_found_in_the_shared_directory_if_it_is_ours(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = bare / "shared/rtpfanout-4711"
    monkeypatch.setattr(statefile.os, "geteuid", lambda: 0 if os.getuid() == 0 else os.getuid())
    ours = bare / f"shared/rtpfanout-{os.getuid()}"
    there = ServerState(PID, started=statefile.start_of(PID))
    elsewhere = bare / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / f"{PID}.json").write_text(json.dumps(vars(there)))
    ours.symlink_to(elsewhere)
    assert statefile.read(PID) is None
    ours.unlink()
    elsewhere.rename(ours)
    assert statefile.read(PID) == there
    ours.chmod(0o770)
    assert statefile.read(PID) is None


@pytest.mark.parametrize("kind", ["link", "pipe", "another user's", "no object", "another pid"])
def test_what_is_not_believed(runtime: Path, kind: str) -> None:
    runtime.mkdir()
    path, good = runtime / f"{PID}.json", ServerState(PID, started=statefile.start_of(PID))
    text = json.dumps(vars(good))
    if kind == "link":
        (runtime / "good").write_text(text)
        path.symlink_to(runtime / "good")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "another user's":
        if os.getuid() != 0:
            pytest.skip("needs root")
        path.write_text(text)
        os.chown(path, NOBODY, NOBODY)
    else:
        path.write_text("[]" if kind == "no object" else text.replace(str(PID), "1"))
    assert statefile.read(PID) is None


def test_a_link_leads_no_write_elsewhere(runtime: Path) -> None:
    runtime.mkdir()
    for name in (f"{PID}.tmp", f"{PID}.json"):
        (runtime / name).symlink_to(runtime / "victim")
    (runtime / "victim").write_text("precious")
    StateFile(ServerState(PID)).write()
    assert (runtime / "victim").read_text() == "precious"
    assert statefile.read(PID) is not None
