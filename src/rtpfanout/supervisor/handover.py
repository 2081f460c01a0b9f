"""What a supervisor leaves to the program that it executes in its own place."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any

from rtpfanout.supervisor.process import SIGNALS

VARIABLE = "RTPFANOUT_HANDOVER"


@dataclass(frozen=True)
class Handover:
    """Sockets, and a link to the server `server` (its pid), as descriptors; what was known.

    The program that gets it may be of another version: no key of it may change.
    """

    sockets: list[int]
    link: int
    server: int
    state: dict[str, Any]
    settings: dict[str, Any]

    def execute(self) -> None:
        """Replaces this program by the one that is installed now. Raises OSError if it can't."""
        kept = [*self.sockets, self.link]
        environment = os.environ | {VARIABLE: json.dumps(vars(self))}
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        # A signal that comes before the new program has its handlers waits for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)  # noqa: S606
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            for descriptor in kept:
                os.set_inheritable(descriptor, False)
            raise

    @classmethod
    def take(cls) -> Handover | None:
        """In the new program, once: what the one before left, SIGNALS still blocked."""
        text = os.environ.pop(VARIABLE, "")
        if not text:
            return None
        handed = json.loads(text)
        for descriptor in handed["sockets"]:
            os.set_inheritable(descriptor, False)
        return cls(
            handed["sockets"],
            handed["link"],
            handed["server"],
            handed["state"],
            handed["settings"],
        )
