"""The supervisor: holds the ingress sockets, and sees to it that a server reads them.

It forks the server, and forks another when that one dies: what comes meanwhile is in the sockets.
In an upgrade it starts a server of the installed version, which takes the old one's place between
two packets, and when that one has become ready it executes the installed version in its own place.
One thread but for that of `stderr`, and without a running gRPC, so that a fork is cheap and safe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from rtpfanout import stderr
from rtpfanout.assembly import Start, store_path
from rtpfanout.config import Settings
from rtpfanout.errors import RtpFanoutError, StartError
from rtpfanout.store import MEMORY
from rtpfanout.supervisor import ingress, signals
from rtpfanout.supervisor.keeping import Keeper
from rtpfanout.supervisor.link import Link, close_all, readable_of
from rtpfanout.supervisor.notify import Notifier
from rtpfanout.supervisor.preload import Preload
from rtpfanout.supervisor.process import ServerProcess, fork_server, reaped
from rtpfanout.supervisor.reloads import Reloads
from rtpfanout.supervisor.replacement import Replacement
from rtpfanout.supervisor.restarts import Restarts
from rtpfanout.supervisor.servers import Servers
from rtpfanout.supervisor.signals import OwnSignals
from rtpfanout.supervisor.statefile import ServerState, StateFile
from rtpfanout.supervisor.succession import Successor
from rtpfanout.supervisor.terminal import Hangup
from rtpfanout.supervisor.upgrade import Order, Upgrade

STOP_SECONDS = 10.0
"""Beyond drain_secs, until a server that should end is killed."""
STEP_SECONDS = 60.0
"""For each step of an upgrade: restoring ten million subscribers takes 20 of them."""
NO_ROOM_SECONDS = 0.5
"""Until a server that could not be forked is tried again."""
LOOK_SECONDS = 1.0
_NEVER = float("inf")

_log = structlog.stdlib.get_logger(__name__)


class Supervisor:
    """Runs until SIGTERM or SIGINT. `reload` reads the configuration again."""

    def __init__(self, settings: Settings, reload: Callable[[], Settings]) -> None:
        self._reloads = Reloads(settings)
        self._reload = reload
        self._notifier = Notifier()
        self._servers = Servers()
        self._upgrade = Upgrade()
        self._sockets: list[int] = []
        self._keeper = Keeper()
        self._in_hand: int | None = None  # of the servers that are forked here, one after another
        self._stopping = False
        self._exit_code = 0
        self._kill_at = _NEVER
        self._step_ends = _NEVER
        self._spawn_at = _NEVER
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._restarts = Restarts()
        self._was_ready = False
        self._trusts_store = False  # read in full by a server that became ready
        self._has_room = True
        self._preload = Preload()
        self._file = StateFile(ServerState(os.getpid(), bind_address=str(settings.bind_address)))
        self._hangup = Hangup.here()
        self._signals = OwnSignals()

    def run(self, left: Replacement | None) -> int:
        """The exit code; `left` by a program in whose place this one was executed.

        Raises StartError if the first server can't start.
        """
        self._signals.listen()
        try:
            if left:
                self._take_over(left)
                self._reap()  # it may have died meanwhile
            else:
                settings = self._reloads.settings
                self._sockets = ingress.open_or_adopt(settings, self._notifier, self._keeper)
                self._reloads.settings = ingress.fitting(settings, self._sockets)
                self._spawn()
            self._file.write()
            while not self._turn():
                pass
        finally:
            self._file.remove()
        return self._exit_code

    def _spawn(self) -> None:
        """What can't be had now, a process or a descriptor, is asked for again."""
        self._spawn_at = _NEVER
        if self._in_hand is None:
            self._in_hand = ingress.open_in_hand(self._sockets)
        mine = [*self._servers.by_link(), *self._signals.descriptors, *stderr.descriptors()]
        settings = self._reloads.settings
        kept = self._keeper.copy()
        start = Start(settings, self._sockets, self._in_hand, self._trusts_store, kept)
        try:
            server = self._servers.current = fork_server(start, mine)
        except OSError as error:
            self._spawn_at = time.monotonic() + NO_ROOM_SECONDS
            if self._has_room:
                _log.error("no server can be started, it is tried again", reason=error.strerror)
            self._has_room = False
            return
        self._has_room = True
        self._file.state.server_pid = server.pid
        self._file.write()

    def _turn(self) -> bool:
        """One wait for something to happen, and what follows; True at the end."""
        links = self._servers.by_link()
        ends = min(self._kill_at, self._step_ends, self._spawn_at, self._look_at)
        patience = 0.0 if self._preload.is_due else max(0.0, ends - time.monotonic())
        wakes = self._signals.descriptors[0]
        readable = readable_of([wakes, *links], patience)
        for descriptor in readable:
            if descriptor in links:
                self._listen_to(links[descriptor])
        for number in self._signals.came():
            self._on_signal(number)
        self._reap()
        self._on_time(time.monotonic())
        if not readable:
            self._preload.step()
        return self._stopping and not self._servers

    def _on_time(self, now: float) -> None:
        if now >= self._kill_at:
            self._kill_at = _NEVER
            for process in self._servers:
                process.kill("server process does not end, it is killed")
        if now >= self._step_ends:
            _log.error("upgrade: this step takes too long", step=self._upgrade.phase.name)
            self._follow(self._upgrade.late())
        if now >= self._spawn_at and not self._stopping:
            self._spawn()
        if now >= self._look_at:
            self._look_at = now + (self._notifier.watchdog_seconds / 3 or LOOK_SECONDS)
            self._look(now)

    def _look(self, now: float) -> None:
        """A server that lives has a thread which says so twice a second."""
        if self._hangup.has_come_true():
            self._stop()
        if server := self._servers.current:
            if server.hangs(now):
                server.kill("server process shows no sign of life, it is killed")
            elif server.phase:
                self._notifier.alive()
            if server.phase == "ready":
                self._preload.begin()

    # -- signals

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        elif number == signal.SIGHUP:
            self._hangup.came = True
            if self._hangup.has_come_true():
                self._stop()
            else:
                self._on_reload()
        elif number == signal.SIGUSR2:
            self._follow(self._upgrade.ask(self._refusal()))

    def _stop(self) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._spawn_at = self._step_ends = _NEVER
        self._notifier.stopping()
        self._kill_at = time.monotonic() + self._reloads.settings.drain_secs + STOP_SECONDS
        self._servers.signal(signal.SIGTERM)

    def _on_reload(self) -> None:
        self._notifier.reloading()
        try:
            if self._upgrade.is_on or self._stopping:
                raise StartError("the server is being upgraded or stopped; try again")
            wanted = self._reload()
        except RtpFanoutError as error:
            _log.error("configuration not reloaded, nothing changes", reason=error.message)
            self._reloaded(error.message, [])
            return
        # One that still starts was forked with what was before, and hears it when it is ready.
        server = self._servers.current
        if answer := self._reloads.ask(wanted, server.link if server else None):
            self._reloaded(*answer)

    def _reloaded(self, error: str, needs_restart: Sequence[str]) -> None:
        self._file.reloaded(error, needs_restart)
        self._notifier.ready("configuration not reloaded" if error else "configuration reloaded")

    # -- processes that end

    def _reap(self) -> None:
        for pid, code in reaped():
            if not (process := self._servers.of(pid)):
                continue
            self._listen_to(process)  # its last words
            process.link.close()
            successor = self._servers.successor
            if process is self._servers.current:
                self._server_ended(process, code)
            elif successor and process is successor:
                self._successor_ended(successor, code)

    def _server_ended(self, server: ServerProcess, code: int) -> None:
        self._servers.current = None
        reason = server.reason(code)
        self._trusts_store = server.phase == "ready"
        if isinstance(server, Successor):  # of another version
            server.forget()
            self._in_hand = ingress.fitting_memory(server.in_hand, self._in_hand, self._sockets)
        if self._stopping:
            self._exit_code = 0 if code == 0 or self._servers.successor else 1
            return
        for answer in self._reloads.server_ended():
            self._reloaded(*answer)
        if server.failure and not self._was_ready:
            raise StartError(server.failure["message"], field=server.failure["field"])
        pause = self._restarts.pause(self._trusts_store, time.monotonic() - server.began)
        self._spawn_at = _NEVER
        orders = self._upgrade.server_ended(reason)
        if pause == 0 or Order.SPAWN not in orders:
            self._follow(orders)
        else:
            self._spawn_at = time.monotonic() + pause
            self._follow([order for order in orders if order is not Order.SPAWN])
        _log.error(
            "server process ended, another one starts",
            server_pid=server.pid,
            reason=reason,
            pause_seconds=pause,
        )
        self._notifier.status("the server process ended, another one starts")

    def _successor_ended(self, successor: Successor, code: int) -> None:
        self._servers.successor = None
        reason = successor.reason(code)
        successor.forget()
        if successor.in_hand is not None:
            os.close(successor.in_hand)
        if not self._stopping:
            self._follow(self._upgrade.successor_ended(f"the new version does not start: {reason}"))

    # -- what they say

    def _listen_to(self, process: ServerProcess) -> None:
        for message in process.link.heard():
            word = message["word"]
            process.silent_looks = 0
            if word == "alive" or self._keeper.heard(message):
                continue
            if word == "failed":
                process.failure = message
            elif word == "reloaded":
                self._reloaded(*self._reloads.applied(message.get("error", "")))
            else:
                process.phase = word
                self._advance(process, message)

    def _advance(self, process: ServerProcess, message: dict[str, Any]) -> None:
        if process is self._servers.current:
            if process.phase == "ready":
                self._on_ready(process, message)
            self._follow(self._upgrade.server_said(process.phase))
        elif process is self._servers.successor:
            if process.phase == "waiting":
                process.waits(message)
            else:
                close_all(message.get("descriptors", ()))
            self._follow(self._upgrade.successor_said(process.phase))

    def _on_ready(self, server: ServerProcess, message: dict[str, Any]) -> None:
        self._was_ready = True
        if isinstance(server, Successor):
            server.settings |= {k: message[k] for k in ingress.FREE_PORTS if message.get(k)}
        else:
            self._reloads.settings = ingress.with_found(self._reloads.settings, message)
            self._preload.begin()
        self._file.state.bind_address = message["bind_address"]
        self._file.write()
        self._notifier.ready(f"forwarding from {message['bind_address']}")

    # -- upgrade

    def _refusal(self) -> str:
        server = self._servers.current
        if self._stopping or not server or server.phase != "ready":
            return "the server is not ready; try again"
        if store_path(self._reloads.settings) == MEMORY:
            return "store.path keeps nothing, an upgrade would forget all sessions"
        return ""

    def _follow(self, orders: list[Order]) -> None:
        """Carries them out; what can't be makes others of them."""
        while orders and not self._stopping:
            self._step_ends = time.monotonic() + STEP_SECONDS if self._upgrade.is_on else _NEVER
            if reason := self._carry_out(orders.pop(0)):
                orders = self._upgrade.failed(reason)
        if not self._upgrade.is_on:
            self._step_ends = _NEVER

    def _carry_out(self, order: Order) -> str:
        """Why it can't be, or ""."""
        server, successor = self._servers.current, self._servers.successor
        match order:
            case Order.START:
                return self._servers.start_successor(self._sockets, self._reloads.settings)
            case Order.SUSPEND | Order.HAND_OVER | Order.RESUME if server:
                return server.link.tell(order.name.lower().replace("_", " "))
            case Order.PREPARE if successor:
                return self._keeper.give(successor.link) or successor.link.tell("prepare")
            case Order.PROMOTE:
                return self._promote()
            case Order.EXECUTE:
                return self._execute()
            case Order.KILL_SUCCESSOR if successor:
                successor.signal(signal.SIGKILL)
            case Order.KILL_SERVER if server:
                server.signal(signal.SIGKILL)
            case Order.SPAWN:
                self._spawn()
            case Order.REPORT:
                self._upgraded(self._upgrade.reason)
        return ""

    def _promote(self) -> str:
        if not (server := self._servers.promote()):
            return "there is no successor"
        self._file.state.server_pid = server.pid
        return server.link.tell("go")

    def _execute(self) -> str:
        """Replaces this program by the one that is installed now; returns only if it can't."""
        server = self._servers.current
        if not isinstance(server, Successor):
            return "there is no new server"
        _log.info("upgrading the supervisor", server_pid=server.pid)
        kept = self._keeper.sockets
        left = Replacement.of(server, self._sockets, kept, self._file.state, self._hangup)
        try:
            left.execute()
        except OSError as error:
            return (
                f"the new server runs, but not its supervisor: {sys.executable} can't be executed:"
                f" {error.strerror}; it is tried again"
            )
        return ""

    def _take_over(self, left: Replacement) -> None:
        """In the new program: what the one before left."""
        self._sockets, self._keeper = left.sockets, Keeper(left.kept)
        if left.is_proven:
            self._reloads.settings = Settings.model_validate(left.settings)
            self._in_hand = left.in_hand
        else:
            self._reloads.settings = ingress.inherited(
                self._reloads.settings, left.settings, self._sockets
            )
        self._servers.current = ServerProcess(
            left.server, Link.adopt(left.link), in_hand=self._in_hand, phase="ready"
        )
        if left.kept is None:
            self._servers.current.link.tell("show")
        self._was_ready = True
        self._hangup = Hangup(left.had_terminal, left.ignores_hangup)
        self._file = StateFile(ServerState.of(left.state))
        with contextlib.suppress(Exception):  # it is tried again
            self._preload.finish()
        signals.unblock()
        if left.is_proven:
            self._upgraded("")
        else:  # a version that left it to its successor to replace the server
            self._follow(self._upgrade.ask())

    def _upgraded(self, error: str) -> None:
        self._file.upgraded(error)
        if error:
            _log.error("not upgraded, the server goes on", reason=error)
        else:
            _log.info("upgraded", server_pid=self._file.state.server_pid)
