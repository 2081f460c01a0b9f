"""The supervisor: holds the ingress sockets, and sees to it that a server reads them.

It forks the server, and forks another when that one dies: what comes meanwhile is in the sockets.
An upgrade executes the new version of this program in place, with the sockets and the old server
kept, and lets a new server take the old one's place between two packets. Single-threaded, and
without gRPC, so that a fork is cheap and safe.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.config import changed_keys, live_settings
from rtpfanout.errors import RtpFanoutError, StartError
from rtpfanout.model import Address
from rtpfanout.supervisor import ingress
from rtpfanout.supervisor.handover import Handover
from rtpfanout.supervisor.link import Link
from rtpfanout.supervisor.notify import Notifier
from rtpfanout.supervisor.process import SIGNALS, Process, Trial, fork_server
from rtpfanout.supervisor.restarts import Restarts
from rtpfanout.supervisor.statefile import State, StateFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout.config import Settings

STOP_SECONDS = 10.0
"""Beyond drain_secs, until a server that should end is killed."""
STEP_SECONDS = 60.0
"""For each step of an upgrade: restoring ten million subscribers takes 20 of them."""
LOOK_SECONDS = 1.0
SILENT_LOOKS = 10
"""After so many without a sign of life from a server that was ready it is killed."""
_NEVER = float("inf")

_log = structlog.stdlib.get_logger(__name__)


class Supervisor:
    """Runs until SIGTERM or SIGINT. `reload` reads the configuration again."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        self._settings = settings
        self._reload = reload
        self._notifier = Notifier()
        self._server: Process | None = None  # who reads the sockets, or is about to
        self._successor: Process | None = None  # who waits to take its place
        self._trial: Trial | None = None  # of the version to upgrade to
        self._sockets: list[int] = []
        self._in_hand: int | None = None  # of the server, and then of the one that follows it
        self._stopping = False
        self._exit_code = 0
        self._kill_at = _NEVER
        self._step_ends = _NEVER
        self._spawn_at = _NEVER
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._restarts = Restarts()
        self._was_ready = False
        self._trusts_store = False  # read in full by a server that became ready
        self._is_upgrading = False
        self._reloading: list[str] | None = None  # what needs a restart, while a server applies it
        self._file = StateFile(State(os.getpid(), bind_address=str(settings.bind_address)))
        self._signals: list[int] = []
        self._wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> int:
        """The exit code. Raises StartError if the first server can't start."""
        signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, _frame: self._signals.append(number))
        try:
            if handed := Handover.take():
                self._take_over(handed)
            else:
                self._sockets = ingress.open_or_adopt(self._settings, self._notifier)
                self._settings = ingress.fitting(self._settings, self._sockets)
                self._spawn()
            self._file.write()
            while not self._turn():
                pass
        finally:
            self._file.remove()
        return self._exit_code

    def _spawn(self) -> None:
        self._spawn_at = _NEVER
        if self._in_hand is None:
            self._in_hand = ingress.open_in_hand(self._sockets)
        self._server = self._fork(self._in_hand, waits=False)
        self._file.state.server_pid = self._server.pid
        self._file.write()

    def _fork(self, in_hand: int | None, *, waits: bool) -> Process:
        links = [p.link.sock.fileno() for p in self._processes() if not p.link.closed]
        return fork_server(
            self._settings,
            self._sockets,
            in_hand,
            [*links, *self._wakeup],
            waits=waits,
            trusts_store=self._trusts_store,
        )

    def _processes(self) -> list[Process]:
        return [process for process in (self._server, self._successor) if process]

    def _turn(self) -> bool:
        """One wait for something to happen, and what follows; True at the end."""
        links = {p.link.sock.fileno(): p for p in self._processes() if not p.link.closed}
        ends = min(self._kill_at, self._step_ends, self._spawn_at, self._look_at)
        patience = max(0.0, ends - time.monotonic())
        readable, _, _ = select.select([self._wakeup[0], *links], [], [], patience)
        for descriptor in readable:
            if descriptor in links:
                self._listen_to(links[descriptor])
        with contextlib.suppress(BlockingIOError):
            os.read(self._wakeup[0], 4096)
        while self._signals:
            self._on_signal(self._signals.pop(0))
        self._reap()
        self._on_time(time.monotonic())
        return self._stopping and not self._processes()

    def _on_time(self, now: float) -> None:
        if now >= self._kill_at:
            self._kill_at = _NEVER
            for process in self._processes():
                _log.error("server process does not end, it is killed", server_pid=process.pid)
                process.signal(signal.SIGKILL)
        if now >= self._step_ends:
            self._step_ends = _NEVER
            _log.error("the new version takes too long to start, it is ended")
            if self._successor:
                self._successor.signal(signal.SIGKILL)
            if self._trial:
                self._trial.kill()
        if now >= self._spawn_at and not self._stopping:
            self._spawn()
        if now >= self._look_at:
            self._look_at = now + (self._notifier.watchdog_seconds / 3 or LOOK_SECONDS)
            self._look()

    def _look(self) -> None:
        """A server that lives has a thread which says so twice a second."""
        server = self._server
        if server is None or server.phase in ("", "failed"):
            return
        server.silent_looks += 1
        if server.silent_looks == SILENT_LOOKS:
            _log.error("server process shows no sign of life, it is killed", server_pid=server.pid)
            server.signal(signal.SIGKILL)
        if server.silent_looks < SILENT_LOOKS:
            self._notifier.alive()

    # -- signals

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP:
            self._on_reload()
        elif number == signal.SIGUSR2:
            self._on_upgrade()

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._spawn_at = _NEVER
        self._notifier.stopping()
        self._kill_at = time.monotonic() + self._settings.drain_secs + STOP_SECONDS
        for process in self._processes():
            process.signal(signal.SIGTERM)
        if self._trial:
            self._trial.kill()

    def _on_reload(self) -> None:
        self._notifier.reloading()
        try:
            if self._is_upgrading or self._stopping:
                raise StartError("the server is being upgraded or stopped; try again")
            wanted = self._reload()
        except RtpFanoutError as error:
            _log.error("configuration not reloaded, nothing changes", reason=error.message)
            self._reloaded(error.message, [])
            return
        needs_restart = changed_keys(self._settings, wanted)[1]
        self._settings = live_settings(self._settings, wanted)
        if self._server:  # one that still starts was forked with what was before
            self._server.link.tell("reload", settings=wanted.model_dump(mode="json"))
            self._reloading = needs_restart
        else:  # the next one will have it
            self._reloaded("", needs_restart)

    def _reloaded(self, error: str, needs_restart: list[str]) -> None:
        self._reloading = None
        state = self._file.state
        state.reloads += 1
        state.error = error
        state.needs_restart = needs_restart
        self._file.write()
        self._notifier.ready("configuration not reloaded" if error else "configuration reloaded")

    # -- processes that end

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            for process in self._processes():
                if process.pid == pid:
                    self._listen_to(process)  # its last words
                    process.link.close()
            if self._server and self._server.pid == pid:
                self._server_ended(self._server, code)
            elif self._successor and self._successor.pid == pid:
                self._successor_ended(self._successor, code)
            elif self._trial and self._trial.pid == pid:
                self._trial_ended(self._trial, code)

    def _server_ended(self, server: Process, code: int) -> None:
        self._server = None
        self._trusts_store = server.phase == "ready"
        if self._stopping:
            self._exit_code = 0 if code == 0 or self._successor else 1
            return
        if self._reloading is not None:  # the next one has it from the start
            self._reloaded("", self._reloading)
        if server.failure and not self._was_ready:
            raise StartError(server.failure["message"], field=server.failure["field"])
        if self._successor:
            _log.error("the old server died during the upgrade", exit_code=code)
            self._promote(self._successor)
            return
        if self._is_upgrading and not self._trial:
            self._upgraded(_reason(server, code))
        pause = self._restarts.pause(server.phase == "ready", time.monotonic() - server.began)
        if pause == 0:
            self._spawn()
        else:
            self._spawn_at = time.monotonic() + pause
        _log.error(
            "server process ended, another one starts",
            server_pid=server.pid,
            reason=_reason(server, code),
            pause_seconds=pause,
        )
        self._notifier.status("the server process ended, another one starts")

    def _promote(self, successor: Process) -> None:
        """It takes the place, whether the old one gave it or died."""
        self._server, self._successor = successor, None
        _close(self._in_hand)
        self._in_hand = successor.in_hand
        self._file.state.server_pid = successor.pid
        successor.link.tell("prepare")
        successor.link.tell("go")

    def _successor_ended(self, successor: Process, code: int) -> None:
        self._successor = None
        _close(successor.in_hand)
        if self._stopping:
            return
        self._upgraded(f"the new server did not start: {_reason(successor, code)}")
        if self._server and self._server.phase == "suspended":
            self._server.link.tell("resume")

    # -- what they say

    def _listen_to(self, process: Process) -> None:
        for message in process.link.heard():
            word = message["word"]
            process.silent_looks = 0
            if word == "alive":
                continue
            if word == "failed":
                process.failure = message
            elif word == "reloaded":
                self._reloaded("", message["needs_restart"])
            else:
                process.phase = word
                self._advance(process, message)

    def _advance(self, process: Process, message: dict[str, Any]) -> None:
        """The next step: waiting, suspend, suspended, prepare, prepared, hand over, handed over,
        go, ready; the orders among these are ours."""
        if process is self._server and process.phase == "ready":
            self._on_ready(message)
        if self._successor is None or self._server is None:
            return
        self._step_ends = time.monotonic() + STEP_SECONDS
        if process is self._successor and process.phase == "waiting":
            self._server.link.tell("suspend")
        elif process is self._server and process.phase == "suspended":
            self._successor.link.tell("prepare")
        elif process is self._successor and process.phase == "prepared":
            self._server.link.tell("hand over")
        elif process is self._server and process.phase == "handed over":
            process.link.close()  # its end is no news
            self._promote(self._successor)

    def _on_ready(self, message: dict[str, Any]) -> None:
        self._was_ready = True
        # The next server gets the ports that this one found.
        found = {
            key: Address.parse(message[key])
            for key in ("grpc_bind_address", "metrics_bind_address")
            if message[key] and getattr(self._settings, key).port == 0
        }
        self._settings = self._settings.model_copy(update=found)
        self._file.state.bind_address = message["bind_address"]
        self._file.write()
        self._notifier.ready(f"forwarding from {message['bind_address']}")
        if self._is_upgrading and self._successor is None and not self._trial:
            self._upgraded("")

    # -- upgrade

    def _on_upgrade(self) -> None:
        """Tries the version that is installed now, while everything goes on."""
        if self._is_upgrading:
            return
        self._is_upgrading = True
        if self._stopping or not self._server or self._server.phase != "ready":
            self._upgraded("the server is not ready; try again")
        elif ingress.forgets(self._settings):
            self._upgraded("store.path keeps nothing, an upgrade would forget all sessions")
        else:
            try:
                self._trial = Trial()
            except OSError as error:
                self._upgraded(str(error))
            else:
                self._step_ends = time.monotonic() + STEP_SECONDS

    def _trial_ended(self, trial: Trial, code: int) -> None:
        self._trial = None
        if self._stopping:
            return
        if fault := trial.fault(code):
            self._upgraded(f"the new version does not start: {fault}")
        elif not self._server or self._server.phase != "ready":
            self._upgraded("the server is not ready; try again")
        else:
            self._execute(self._server)

    def _execute(self, server: Process) -> None:
        """Replaces this program by the one that is installed now; returns only if it can't."""
        _log.info("upgrading", old_server_pid=server.pid)
        handover = Handover(
            self._sockets,
            server.link.sock.fileno(),
            server.pid,
            vars(self._file.state),
            self._settings.model_dump(mode="json"),
        )
        try:
            handover.execute()
        except OSError as error:
            self._upgraded(f"{sys.executable} can't be executed: {error.strerror}")

    def _take_over(self, handed: Handover) -> None:
        """In the new program: what the one before left."""
        self._sockets = handed.sockets
        self._settings = ingress.inherited(self._settings, handed.settings, self._sockets)
        self._server = Process(handed.server, Link.adopt(handed.link), phase="ready")
        self._was_ready = True
        self._is_upgrading = True
        self._file = StateFile(State.of(handed.state))
        self._signals.append(signal.SIGCHLD)  # it may have died meanwhile
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._successor = self._fork(ingress.open_in_hand(self._sockets), waits=True)
        self._step_ends = time.monotonic() + STEP_SECONDS

    def _upgraded(self, error: str) -> None:
        self._is_upgrading = False
        self._step_ends = _NEVER
        state = self._file.state
        state.upgrades += 1
        state.error = error
        self._file.write()
        if error:
            _log.error("not upgraded, the server goes on", reason=error)
        else:
            _log.info("upgraded", server_pid=state.server_pid)


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


def _reason(process: Process, code: int) -> str:
    return process.failure["message"] if process.failure else f"exit code {code}"
