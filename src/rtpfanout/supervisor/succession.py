"""A server of the installed version, started by a supervisor of the version before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NoReturn, Self

import structlog

from rtpfanout import log, stderr
from rtpfanout.assembly import Start
from rtpfanout.errors import StartError
from rtpfanout.supervisor import child, ingress, signals
from rtpfanout.supervisor.link import Link, known
from rtpfanout.supervisor.preload import Preload
from rtpfanout.supervisor.process import ServerProcess

if TYPE_CHECKING:
    from rtpfanout.config import Settings

VARIABLE = "RTPFANOUT_SUCCESSOR"
CHECK_VARIABLE = "RTPFANOUT_CHECK_START"
"""With it, `serve` ends with 0 once everything it needs is imported and the settings are read. A
version that knows no VARIABLE heeds it, instead of starting beside the server that runs."""
_LAST_CHARACTERS = 500
_TRACEBACK = "Traceback (most recent call last)"

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True)
class Succession:
    """What a successor gets: descriptors, and the settings of the one before that it may keep.

    It may be of another version: no key of it may change.
    """

    sockets: list[int]
    link: int
    stderr: int
    """The pipe that its log goes to once it can start; before, what it says is for the report."""
    is_terminal: bool
    found: dict[str, str]
    """Addresses of free ports that were found, by key."""
    keeps: bool = False
    """Whether the supervisor keeps sockets of other ports; a version before this one doesn't."""

    @classmethod
    def take(cls) -> Self | None:
        """In the successor, once."""
        text = os.environ.pop(VARIABLE, "")
        if not text:
            return None
        os.environ.pop(CHECK_VARIABLE, None)
        return known(cls, json.loads(text))


class Successor(ServerProcess):
    """As its supervisor sees it. `settings` are what it found, once it is waiting."""

    settings: dict[str, Any]

    def __init__(self, sockets: Sequence[int], settings: Settings) -> None:
        """Starts it, beside a server with these settings. Raises OSError."""
        ours, theirs = Link.pair()
        self._errors = os.memfd_create("rtpfanout-errors", os.MFD_CLOEXEC)
        found = {key: str(getattr(settings, key) or "") for key in ingress.FREE_PORTS}
        told = Succession(
            list(sockets),
            theirs.sock.fileno(),
            os.dup(stderr.STDERR),
            stderr.is_terminal(),
            found,
            keeps=True,
        )
        try:
            self._process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]],
                env=os.environ | {VARIABLE: json.dumps(asdict(told)), CHECK_VARIABLE: "1"},
                stdin=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=[*sockets, told.link, told.stderr],
            )
        except OSError:
            ours.close()
            os.close(self._errors)
            raise
        finally:
            theirs.close()
            os.close(told.stderr)
        super().__init__(self._process.pid, ours)
        self.settings = {}

    def waits(self, message: dict[str, Any]) -> None:
        """It says that it can start, and with what."""
        self.settings = message["settings"]
        if descriptors := message.get("descriptors"):
            self.in_hand = descriptors[0]

    def reason(self, code: int) -> str:
        """After it was reaped."""
        self._process.returncode = code
        if self.failure or self.phase:
            return super().reason(code)
        text = os.pread(self._errors, 1 << 16, 0).decode(errors="replace").strip()
        if code == 0:
            return (
                "the version that is installed can't take over from this one while it runs;"
                " stop the server and start it again"
            )
        if _TRACEBACK in text:
            _log.error("the new version fails", said=text)
            text = text.splitlines()[-1]
        return text[-_LAST_CHARACTERS:] or super().reason(code)

    def forget(self) -> None:
        """It was reaped, or a program that is executed now has it."""
        os.close(self._errors)


def succeed(settings: Settings, told: Succession) -> NoReturn:
    """In the successor: waits, and then is the server. Raises StartError."""
    signals.leave_to_supervisor()
    if not settings.enable_supervisor:
        raise StartError("an upgrade can't end the supervisor; restart", field="enable_supervisor")
    supervisor = os.getppid()
    for descriptor in told.sockets:
        os.set_inheritable(descriptor, False)
    link = Link.adopt(told.link)
    Preload().finish()  # the last that may fail for what is installed
    stderr.join(told.stderr, terminal=told.is_terminal)
    log.configure(settings.log.level, settings.log.format)
    settings = ingress.inherited(settings, told.found, told.sockets)
    in_hand = ingress.open_in_hand(told.sockets)
    link.tell(
        "waiting",
        settings=settings.model_dump(mode="json"),
        descriptors=[] if in_hand is None else [in_hand],
    )
    start = Start(settings, told.sockets, in_hand, waits=True)
    child.main(start, link, supervisor, keeps=told.keeps)
