"""A server that was started on a terminal ends with it; SIGHUP is a reload for all others."""

from __future__ import annotations

import os
import pty
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support import eventually, server_environment

from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = [sys.executable, "-m", "rtpfanout", "serve"]
ADDRESS = "127.0.0.1:0"
PLACES = dict.fromkeys(("bind_address", "grpc_bind_address", "metrics_bind_address"), ADDRESS)


@pytest.fixture(autouse=True)
def directory(runtime_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nohup writes."""
    monkeypatch.chdir(runtime_directory.parent)


def on_terminal(*command: str) -> tuple[int, int]:
    """Process id, and the other end of the terminal."""
    environment = server_environment(PLACES)
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever those who test made of it
        os.execvpe(command[0], command, environment)  # noqa: S606
    return pid, terminal


def bound_at(pid: int) -> str:
    """Where the server receives, once it is ready."""
    state = statefile.read(pid)
    return state.bind_address if state and not state.bind_address.endswith(":0") else ""


def reloads(pid: int) -> int:
    state = statefile.read(pid)
    return state.reloads if state else 0


def has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def end(pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_it_ends_with_its_terminal() -> None:
    pid, terminal = on_terminal(*COMMAND)
    eventually(lambda: bound_at(pid), bool, "ready")
    server = statefile.read(pid)
    assert server is not None
    os.close(terminal)
    eventually(lambda: has_ended(pid), bool, "the end")
    assert statefile.start_of(server.server_pid) == 0


def test_a_hangup_while_the_terminal_is_there_is_a_reload() -> None:
    pid, terminal = on_terminal(*COMMAND)
    eventually(lambda: bound_at(pid), bool, "ready")
    os.kill(pid, signal.SIGHUP)
    eventually(lambda: reloads(pid), lambda n: n == 1, "a reload")
    end(pid)
    os.close(terminal)


@pytest.mark.parametrize("keeper", ["nohup", "setsid"])
def test_who_wants_to_outlive_the_terminal_does(keeper: str) -> None:
    command = ["nohup"] if keeper == "nohup" else ["setsid", "--wait"]
    pid, terminal = on_terminal("sh", "-c", f"{' '.join([*command, *COMMAND])} & wait")
    (state,) = eventually(statefile.running, lambda found: len(found) == 1, "a server")
    eventually(lambda: bound_at(state.pid), bool, "ready")
    os.close(terminal)
    eventually(lambda: has_ended(pid), bool, "the shell's end")
    os.kill(state.pid, signal.SIGHUP)
    eventually(lambda: reloads(state.pid), lambda n: n >= 1, "a reload")
    os.kill(state.pid, signal.SIGTERM)
    eventually(lambda: statefile.start_of(state.pid), lambda start: start == 0, "the end")
