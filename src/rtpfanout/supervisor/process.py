"""A server process as its supervisor sees it, and the trial of a new version."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rtpfanout.supervisor import child
from rtpfanout.supervisor.link import Link

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rtpfanout.config import Settings

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Those that the supervisor acts on."""
CHECK_VARIABLE = "RTPFANOUT_CHECK_START"
"""With it, `serve` ends with 0 once everything it needs is imported and the settings are read."""
_LAST_CHARACTERS = 500


@dataclass
class Process:
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

    def signal(self, number: signal.Signals) -> None:
        """It is our child and not reaped, so the id is its own."""
        os.kill(self.pid, number)


def fork_server(
    settings: Settings,
    sockets: Sequence[int],
    in_hand: int | None,
    closed: Iterable[int],
    *,
    waits: bool,
    trusts_store: bool,
) -> Process:
    """A new server. It closes the descriptors `closed`, which are the supervisor's alone."""
    ours, theirs = Link.pair()
    supervisor = os.getpid()
    # No signal may reach the child while it still has the supervisor's handlers.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    gc.freeze()  # what is here now is no garbage, and the child's collector leaves it alone
    pid = os.fork()
    if pid == 0:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # the supervisor's
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        ours.close()
        for descriptor in closed:
            os.close(descriptor)
        child.main(
            settings,
            sockets,
            in_hand,
            theirs,
            supervisor,
            waits=waits,
            trusts_store=trusts_store,
        )
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    theirs.close()
    return Process(pid, ours, in_hand)


class Trial:
    """This command, as it is installed now, asked to start without touching anything."""

    def __init__(self) -> None:
        """Raises OSError."""
        # Not a temporary file: there may be no directory that we can write to.
        self._errors = os.fdopen(os.memfd_create("rtpfanout-trial"), "w+b")
        self._process = subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            env=os.environ | {CHECK_VARIABLE: "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        self.pid = self._process.pid

    def fault(self, code: int) -> str:
        """After it was reaped with that exit code: what it complained of, or ""."""
        self._process.returncode = code
        with self._errors:
            self._errors.seek(0)
            text = self._errors.read().decode(errors="replace").strip()[-_LAST_CHARACTERS:]
        return "" if code == 0 else text or f"exit code {code}"

    def kill(self) -> None:
        """It takes too long."""
        os.kill(self.pid, signal.SIGKILL)
