"""SIGHUP: read the configuration again, or the terminal is gone."""

from __future__ import annotations

import os
import signal

TERMINAL = "/dev/tty"


def has_terminal() -> bool:
    """This process has a controlling terminal; the kernel takes it away before it sends SIGHUP."""
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


class Hangup:
    """Whether the end of the terminal is the end of a server that was started on one.

    `ignored`: SIGHUP is, as nohup(1) leaves it.
    """

    def __init__(self, had_terminal: bool, ignored: bool) -> None:
        self.had_terminal = had_terminal
        self.ignored = ignored
        self.came = False

    @classmethod
    def here(cls) -> Hangup:
        """Before a handler is set."""
        return cls(has_terminal(), signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)

    def has_come_true(self) -> bool:
        """SIGHUP `came`, the terminal is gone, and nobody asked to outlive it.

        A shell that ends may send the signal before the terminal goes.
        """
        return self.came and self.had_terminal and not self.ignored and not has_terminal()
