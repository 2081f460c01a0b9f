"""The supervisor: holds the ingress sockets, and sees to it that a server reads them.

It forks the server, and forks another when that one dies: what comes meanwhile is in the sockets.
An upgrade executes the new version of this program in place, with the sockets and the old server
kept, and lets a new server take the old one's place between two packets. Single-threaded, and
without gRPC, so that a fork is cheap and safe.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout import _fastpath
from rtpfanout.errors import RtpFanoutError, StartError
from rtpfanout.server import bind_error
from rtpfanout.supervisor import child
from rtpfanout.supervisor.link import Link
from rtpfanout.supervisor.notify import Notifier, given_sockets
from rtpfanout.supervisor.statefile import State, StateFile
from rtpfanout.workers import worker_count

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout.config import Settings

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the second restart in a row, doubling; the first one is at once."""
HEALTHY_SECONDS = 60.0
"""After which the next crash counts as the first again."""
STOP_SECONDS = 10.0
"""Beyond drain_secs, until a server that should end is killed."""
STEP_SECONDS = 30.0
"""For each step of a hand-over."""
CHECK_SECONDS = 60.0
HANDOVER_VARIABLE = "RTPFANOUT_HANDOVER"
CHECK_VARIABLE = "RTPFANOUT_CHECK_START"
"""With it, `serve` ends with 0 once everything it needs is imported and the settings are read."""

_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
_log = structlog.stdlib.get_logger(__name__)


@dataclass
class Process:
    """A server process. `phase` is the last word it said, "" before."""

    pid: int
    link: Link
    phase: str = ""
    began: float = field(default_factory=time.monotonic)
    failure: dict[str, Any] | None = None


class Supervisor:
    """Runs until SIGTERM or SIGINT. `reload` reads the configuration again."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        self._settings = settings
        self._reload = reload
        self._notifier = Notifier()
        self._server: Process | None = None  # who reads the sockets, or is about to
        self._successor: Process | None = None  # who waits to take its place
        self._sockets: list[int] = []
        self._stopping = False
        self._kill_at = float("inf")
        self._step_ends = float("inf")
        self._spawn_at: float | None = None
        self._crashes = 0
        self._was_ready = False
        self._file = StateFile(State(os.getpid(), bind_address=str(settings.bind_address)))
        self._signals: list[int] = []
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """The exit code. Raises StartError if the first server can't start."""
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        if handed := os.environ.pop(HANDOVER_VARIABLE, ""):
            self._take_over(json.loads(handed))
        else:
            self._sockets = given_sockets() or self._open_sockets()
            self._notifier.keep(self._sockets)
            self._server = self._spawn(waits=False)
        self._file.write()
        try:
            while True:
                code = self._turn()
                if code is not None:
                    return code
        finally:
            self._file.remove()

    def _open_sockets(self) -> list[int]:
        settings = self._settings
        try:
            return _fastpath.open_sockets(
                settings.bind_address, worker_count(settings.workers), settings.buffer_size
            )
        except OSError as error:
            raise bind_error(error, settings.bind_address, "bind_address") from None

    def _spawn(self, *, waits: bool) -> Process:
        ours, theirs = Link.pair()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            for process in (self._server, self._successor):
                if process:
                    process.link.close()
            ours.close()
            for descriptor in self._wakeup:
                os.close(descriptor)
            child.main(self._settings, self._sockets, theirs, self._reload, waits=waits)
        theirs.close()
        return Process(pid, ours)

    def _turn(self) -> int | None:
        """One wait for something to happen, and what follows; the exit code at the end."""
        links = {
            process.link.sock.fileno(): process
            for process in (self._server, self._successor)
            if process and not process.link.closed
        }
        readable, _, _ = select.select([self._wakeup[0], *links], [], [], self._patience())
        for descriptor in readable:
            if descriptor in links:
                self._listen_to(links[descriptor])
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup[0], 4096)
        while self._signals:
            self._on_signal(self._signals.pop(0))
        code = self._reap()
        if code is None:
            self._on_time()
        return code

    def _patience(self) -> float | None:
        ends = [self._kill_at, self._step_ends]
        if self._spawn_at is not None:
            ends.append(self._spawn_at)
        if self._notifier.watchdog_seconds:
            ends.append(time.monotonic() + self._notifier.watchdog_seconds / 3)
        nearest = min(ends)
        return None if nearest == float("inf") else max(0.0, nearest - time.monotonic())

    def _on_time(self) -> None:
        now = time.monotonic()
        if now >= self._kill_at:
            self._kill_at = float("inf")
            for process in (self._server, self._successor):
                if process:
                    _log.error("server process does not end, it is killed", server_pid=process.pid)
                    os.kill(process.pid, signal.SIGKILL)
        if now >= self._step_ends and self._successor:
            self._step_ends = float("inf")
            _log.error("hand-over takes too long, the new server is ended")
            os.kill(self._successor.pid, signal.SIGKILL)
        if self._spawn_at is not None and now >= self._spawn_at and not self._stopping:
            self._spawn_at = None
            if self._server is None:
                self._server = self._spawn(waits=False)
            else:
                self._begin_handover()
        if self._notifier.watchdog_seconds and self._server and self._server.phase == "ready":
            self._notifier.alive()  # the server's own watch ends it when a packet loop is stuck

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP:
            self._notifier.reloading()
            with contextlib.suppress(RtpFanoutError):  # the server tells what is wrong
                self._settings = self._reload()
            if self._server:
                os.kill(self._server.pid, signal.SIGHUP)
        elif number == signal.SIGUSR2:
            self._upgrade()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._spawn_at = None
        self._notifier.stopping()
        self._kill_at = time.monotonic() + self._settings.drain_secs + STOP_SECONDS
        for process in (self._successor, self._server):
            if process:
                os.kill(process.pid, signal.SIGTERM)

    # -- processes that end

    def _reap(self) -> int | None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid = 0
            if pid == 0:
                break
            code = os.waitstatus_to_exitcode(status)
            for process in (self._server, self._successor):
                if process and process.pid == pid:
                    self._listen_to(process)  # its last words
                    process.link.close()
            if self._server and self._server.pid == pid:
                self._server_ended(self._server, code)
            elif self._successor and self._successor.pid == pid:
                self._successor_ended(code)
            if self._stopping and self._server is None and self._successor is None:
                return max(code, 0) if code >= 0 else 1
        return 0 if self._stopping and self._server is None and self._successor is None else None

    def _server_ended(self, server: Process, code: int) -> None:
        self._server = None
        if self._stopping:
            return
        if server.failure and not self._was_ready:
            raise StartError(server.failure["message"], field=server.failure["field"])
        if self._successor:  # it takes the place, whether the old one gave it or died
            if server.phase != "handed over":
                _log.error("server process died during the hand-over", exit_code=code)
            self._server, self._successor = self._successor, None
            self._step_ends = float("inf")
            self._server.link.tell("prepare")
            self._server.link.tell("go")
            return
        reason = server.failure["message"] if server.failure else None
        healthy = time.monotonic() - server.began >= HEALTHY_SECONDS
        self._crashes = 1 if healthy else self._crashes + 1
        pause = 0.0
        if self._crashes > 1:
            pause = min(FIRST_PAUSE * 2 ** (self._crashes - 2), LONGEST_PAUSE)
        _log.error(
            "server process ended, another one starts",
            server_pid=server.pid,
            exit_code=code,
            reason=reason,
            pause_seconds=pause,
        )
        if pause == 0:
            self._server = self._spawn(waits=False)
            self._file.state.server_pid = self._server.pid
            self._file.write()
        else:
            self._spawn_at = time.monotonic() + pause

    def _successor_ended(self, code: int) -> None:
        successor, self._successor = self._successor, None
        self._step_ends = float("inf")
        if self._stopping or successor is None:
            return
        reason = successor.failure["message"] if successor.failure else f"exit code {code}"
        self._file.state.error = f"the new server did not start: {reason}"
        self._file.write()
        suspended = self._server is not None and self._server.phase == "suspended"
        _log.error("hand-over failed, the old server goes on", reason=reason, retried=suspended)
        if suspended:  # it forwards, but takes no calls: try until one does
            self._crashes += 1
            pause = min(FIRST_PAUSE * 2**self._crashes, LONGEST_PAUSE)
            self._spawn_at = time.monotonic() + pause

    # -- what they say

    def _listen_to(self, process: Process) -> None:
        for message in process.link.heard():
            word = message["word"]
            if word == "failed":
                process.failure = message
            elif word == "reloaded":
                self._on_reloaded(message)
            else:
                process.phase = word
                self._advance(process, message)

    def _on_reloaded(self, message: dict[str, Any]) -> None:
        self._file.state.reloads += 1
        self._file.state.error = message["error"]
        self._file.write()
        self._notifier.ready("configuration not reloaded" if message["error"] else "reloaded")

    def _advance(self, process: Process, message: dict[str, Any]) -> None:
        """The next step of a hand-over: waiting, suspend, suspended, prepare, prepared, hand
        over, handed over, go."""
        if process is self._server and process.phase == "ready":
            self._was_ready = True
            self._file.state.server_pid = process.pid
            self._file.state.bind_address = message["bind_address"]
            self._file.write()
            self._notifier.ready(f"forwarding from {message['bind_address']}")
        if self._successor is None or self._server is None:
            return
        self._step_ends = time.monotonic() + STEP_SECONDS
        if process is self._successor and process.phase == "waiting":
            if self._server.phase == "suspended":
                process.link.tell("prepare")
            else:
                self._server.link.tell("suspend")
        elif process is self._server and process.phase == "suspended":
            self._successor.link.tell("prepare")
        elif process is self._successor and process.phase == "prepared":
            self._server.link.tell("hand over")
        elif process is self._server and process.phase == "handed over":
            self._successor.link.tell("go")
            self._file.state.generation += 1
            self._file.state.error = ""
            self._file.write()

    # -- upgrade

    def _upgrade(self) -> None:
        """Replaces this program by the one that is installed now; returns only if it can't."""
        if self._stopping or self._successor or not self._server or not self._was_ready:
            self._refuse_upgrade("the server is not in a state to be upgraded; try again")
            return
        if reason := _fault_of_new_version():
            self._refuse_upgrade(f"the new version does not start: {reason}")
            return
        _log.info("upgrading", old_server_pid=self._server.pid)
        kept = [*self._sockets, self._server.link.sock.fileno()]
        os.environ[HANDOVER_VARIABLE] = json.dumps(
            {
                "sockets": self._sockets,
                "link": self._server.link.sock.fileno(),
                "server": self._server.pid,
                "phase": self._server.phase,
                "state": vars(self._file.state),
            }
        )
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        # A signal that comes before the new program has its handlers waits for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
        except OSError as error:
            os.environ.pop(HANDOVER_VARIABLE)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            for descriptor in kept:
                os.set_inheritable(descriptor, False)
            self._refuse_upgrade(f"{sys.executable} can't be executed: {error.strerror}")

    def _refuse_upgrade(self, reason: str) -> None:
        _log.error("not upgraded, the server goes on", reason=reason)
        self._file.state.error = reason
        self._file.write()

    def _take_over(self, handed: dict[str, Any]) -> None:
        """In the new program: what the one before left."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self._sockets = handed["sockets"]
        for descriptor in self._sockets:
            os.set_inheritable(descriptor, False)
        self._server = Process(handed["server"], Link.adopt(handed["link"]), handed["phase"])
        self._was_ready = True
        self._file = StateFile(State(**handed["state"]))
        self._signals.append(signal.SIGCHLD)  # it may have died meanwhile
        self._begin_handover()

    def _begin_handover(self) -> None:
        self._successor = self._spawn(waits=True)
        self._step_ends = time.monotonic() + STEP_SECONDS


def _fault_of_new_version() -> str:
    """What it says when it is asked to start without touching anything; empty if all is well."""
    try:
        check = subprocess.run(
            [sys.executable, *sys.orig_argv[1:]],
            env=os.environ | {CHECK_VARIABLE: "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=CHECK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    if check.returncode == 0:
        return ""
    return check.stderr.strip()[-500:] or f"exit code {check.returncode}"
