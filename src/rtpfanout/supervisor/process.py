"""A server process as its supervisor sees it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.supervisor import child, signals
from rtpfanout.supervisor.link import Link, close_all

if TYPE_CHECKING:
    from rtpfanout.assembly import Start

SILENT_LOOKS = 10
"""After so many without a sign of life it is taken for one that hangs."""
START_SECONDS = 300.0
"""Until one that was forked forwards packets: ten million subscribers take 20 of them."""

_log = structlog.stdlib.get_logger(__name__)


@dataclass
class ServerProcess:
    """`phase` is the last word it said, "" before; `failure` why it can't start.

    `in_hand`: the memory that it receives into, which is ours, too; None if it has no such.
    """

    pid: int
    link: Link
    in_hand: int | None = None
    phase: str = ""
    began: float = field(default_factory=time.monotonic)
    failure: dict[str, Any] | None = None
    silent_looks: int = 0

    def hangs(self, now: float) -> bool:
        """To be asked once a second: it is silent, or says for long that it lives and no more."""
        self.silent_looks += 1
        is_late = not self.phase and now - self.began > START_SECONDS
        return self.silent_looks >= SILENT_LOOKS or is_late

    def signal(self, number: signal.Signals) -> None:
        """It is our child and not reaped, so the id is its own."""
        os.kill(self.pid, number)

    def kill(self, event: str) -> None:
        """For what the log says."""
        _log.error(event, server_pid=self.pid)
        self.signal(signal.SIGKILL)

    def reason(self, code: int) -> str:
        """Why it ended, after it was reaped with that exit code."""
        return str(self.failure["message"]) if self.failure else f"exit code {code}"


def fork_server(start: Start, closed: Iterable[int]) -> ServerProcess:
    """A new server. It closes the descriptors `closed`, which are the supervisor's alone.

    Raises OSError: there is no room for another process, or for its link.
    """
    ours, theirs = Link.pair()
    supervisor = os.getpid()
    # No signal may reach the child while it still has the supervisor's handlers.
    signals.block()
    gc.freeze()  # what is here now is no garbage, and the child's collector leaves it alone
    try:
        pid = os.fork()
    except OSError:
        signals.unblock()
        ours.close()
        theirs.close()
        raise
    if pid == 0:
        try:
            signals.leave_to_supervisor()
            signals.unblock()
            close_all([ours.sock.fileno(), *closed])
            child.main(start, theirs, supervisor)
        finally:
            os._exit(child.EXIT_FAILED)  # never back into the supervisor's loop
    signals.unblock()
    theirs.close()
    return ServerProcess(pid, ours, start.in_hand)


def reaped() -> Iterator[tuple[int, int]]:
    """Children that have ended: process id and exit code, negative for a signal."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, os.waitstatus_to_exitcode(status)
