"""The supervisor's program replaced by the one that is installed now, and what it leaves to it."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from rtpfanout import stderr
from rtpfanout.supervisor import signals
from rtpfanout.supervisor.link import known

if TYPE_CHECKING:
    from rtpfanout.supervisor.statefile import ServerState
    from rtpfanout.supervisor.succession import Successor
    from rtpfanout.supervisor.terminal import Hangup

VARIABLE = "RTPFANOUT_HANDOVER"


@dataclass(frozen=True)
class Replacement:
    """Sockets, and a link to the server `server` (its pid), as descriptors; what was known.

    The program that gets it may be of another version: no key of it may change. `is_proven`: the
    server is of this version already, became ready, and has `settings`. Else it is of the version
    before, which knew none of the keys from `in_hand` on, and this one has yet to take over.
    """

    sockets: list[int]
    link: int
    server: int
    state: dict[str, Any]
    settings: dict[str, Any]
    in_hand: int | None = None
    """Descriptor of the memory that the server receives into."""
    stderr: list[int] = field(default_factory=list)
    """`stderr.descriptors()`."""
    had_terminal: bool = False
    ignores_hangup: bool = False
    is_proven: bool = False
    kept: dict[str, list[int]] | None = None
    """Of the server's other ports; None by a version that knew of none."""

    @classmethod
    def of(
        cls,
        server: Successor,
        sockets: list[int],
        kept: dict[str, list[int]],
        state: ServerState,
        hangup: Hangup,
    ) -> Self:
        """By a supervisor whose server has proven that its version can take over."""
        return cls(
            sockets=sockets,
            link=server.link.sock.fileno(),
            server=server.pid,
            state=vars(state),
            settings=server.settings,
            in_hand=server.in_hand,
            stderr=stderr.descriptors(),
            had_terminal=hangup.had_terminal,
            ignores_hangup=hangup.ignored,
            is_proven=True,
            kept=kept,
        )

    def execute(self) -> None:
        """Replaces this program by the one that is installed now. Raises OSError if it can't."""
        memory = os.memfd_create("rtpfanout-handover", 0)
        kept = [*self._descriptors(), memory]
        try:
            with os.fdopen(memory, "w", closefd=False) as file:
                json.dump(asdict(self), file)
            environment = os.environ | {VARIABLE: str(memory)}
            for descriptor in kept:
                os.set_inheritable(descriptor, True)
            # A signal that comes before the new program has its handlers waits for them.
            signals.block()
            if self.ignores_hangup:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            with stderr.at_rest():
                os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606
        finally:  # it could not be executed
            signals.unblock()
            for descriptor in self._descriptors():
                os.set_inheritable(descriptor, False)
            os.close(memory)

    @classmethod
    def take(cls) -> Self | None:
        """In the new program, once: what the one before left, `signals` still blocked."""
        text = os.environ.pop(VARIABLE, "")
        if not text:
            return None
        if text.isdigit():
            with os.fdopen(int(text), "r+") as file:
                file.seek(0)
                handed = json.load(file)
        else:
            handed = json.loads(text)
        taken = known(cls, handed)
        for descriptor in taken._descriptors():
            os.set_inheritable(descriptor, False)
        return taken

    def _descriptors(self) -> Iterator[int]:
        yield from self.sockets
        yield self.link
        yield from self.stderr
        for sockets in (self.kept or {}).values():
            yield from sockets
        if self.in_hand is not None:
            yield self.in_hand
