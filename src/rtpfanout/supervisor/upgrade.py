"""An upgrade, step by step, without I/O: told words and ends of processes, it says what to do.

    STARTING      the installed version runs as a process of its own, the successor, up to the
                  point where it needs what the server has
    SUSPENDING    the server takes no more calls and lets go of the store; packets go on
    PREPARING     the successor reads the store and binds the addresses of calls
    HANDING_OVER  the server stops between two packets
    PROVING       the successor is the server, and has yet to become ready
    EXECUTING     it is ready, so the supervisor becomes the installed version, too

Up to the last step the supervisor is the old version, with all it needs to start the old server:
whatever fails, CLEARING takes the successor away, and the old server goes on or is started anew.
"""

from __future__ import annotations

import enum


class Phase(enum.Enum):
    """How far it is; IDLE: there is no upgrade."""

    IDLE = enum.auto()
    STARTING = enum.auto()
    SUSPENDING = enum.auto()
    PREPARING = enum.auto()
    HANDING_OVER = enum.auto()
    PROVING = enum.auto()
    EXECUTING = enum.auto()
    CLEARING = enum.auto()


class Order(enum.Enum):
    """What the supervisor does next."""

    START = enum.auto()
    """A successor."""
    SUSPEND = enum.auto()
    """Told to the server, as RESUME and HAND_OVER."""
    PREPARE = enum.auto()
    """Told to the successor."""
    HAND_OVER = enum.auto()
    PROMOTE = enum.auto()
    """The successor is the server now, and is told to go."""
    EXECUTE = enum.auto()
    """The installed version in the supervisor's place; returns only if that failed."""
    RESUME = enum.auto()
    KILL_SUCCESSOR = enum.auto()
    KILL_SERVER = enum.auto()
    SPAWN = enum.auto()
    """A server of the old version; there is none."""
    REPORT = enum.auto()
    """The upgrade has failed, for `Upgrade.reason`."""


_SUCCESSOR_STEPS = {
    (Phase.STARTING, "waiting"): (Phase.SUSPENDING, Order.SUSPEND),
    (Phase.PREPARING, "prepared"): (Phase.HANDING_OVER, Order.HAND_OVER),
}
_SERVER_STEPS = {
    (Phase.SUSPENDING, "suspended"): (Phase.PREPARING, Order.PREPARE),
    (Phase.HANDING_OVER, "handed over"): (Phase.PROVING, Order.PROMOTE),
    (Phase.PROVING, "ready"): (Phase.EXECUTING, Order.EXECUTE),
}


class Upgrade:
    """Each method is an event and returns the orders that follow, to be carried out in turn.

    An order that can't be carried out is told by `failed`. `phase` has changed when an event
    returns; a step that takes too long is told by `late`.
    """

    def __init__(self) -> None:
        self.phase = Phase.IDLE
        self.reason = ""
        self._has_successor = False  # that has not taken the server's place
        self._server_lives = True
        self._is_suspended = False  # or about to be
        self._may_resume = True  # once it is told to hand over it ends, whatever happens
        self._was_reported = False

    @property
    def is_on(self) -> bool:
        """From the question to the report."""
        return self.phase is not Phase.IDLE

    def ask(self, refusal: str = "") -> list[Order]:
        """Somebody wants an upgrade; `refusal` says why that can't be."""
        if self.is_on:
            return []  # its outcome will be the answer
        self.reason = refusal
        if refusal:
            return [Order.REPORT]
        self._server_lives, self._is_suspended, self._may_resume = True, False, True
        self._has_successor, self._was_reported = True, False
        self.phase = Phase.STARTING
        return [Order.START]

    def successor_said(self, word: str) -> list[Order]:
        """A word of the successor; those that are not due mean nothing."""
        return self._step(_SUCCESSOR_STEPS.get((self.phase, word)))

    def server_said(self, word: str) -> list[Order]:
        """A word of the server; those that are not due mean nothing."""
        return self._step(_SERVER_STEPS.get((self.phase, word)))

    def failed(self, reason: str) -> list[Order]:
        """The last order could not be carried out: there is no successor, or no way to tell."""
        if self.phase is Phase.EXECUTING:  # what runs is the new version: try again later
            self.reason = reason
            reports = [] if self._was_reported else [Order.REPORT]
            self._was_reported = True
            return reports
        if self.phase in (Phase.PROVING, Phase.IDLE):  # it does not know that it may go, or go on
            return [Order.KILL_SERVER]
        if self.phase is Phase.STARTING:
            self._has_successor = False
        elif self.phase is Phase.HANDING_OVER:
            self._may_resume = True
        return self._give_up(reason)

    def successor_ended(self, reason: str) -> list[Order]:
        """Before it took the server's place."""
        self._has_successor = False
        if self.phase is Phase.CLEARING:
            return self._cleared()
        return self._give_up(reason)

    def server_ended(self, reason: str) -> list[Order]:
        """Whichever reads the sockets; also when there is no upgrade."""
        self._server_lives = False
        if self.phase in (Phase.IDLE, Phase.EXECUTING):
            self.phase = Phase.IDLE
            return [Order.SPAWN]
        if self.phase is Phase.CLEARING:
            return self._cleared()
        if self.phase is Phase.PROVING:
            return self._give_up(f"the new server did not start: {reason}")
        return self._give_up(f"the old server died during the upgrade: {reason}")

    def late(self) -> list[Order]:
        """The step takes too long."""
        if self.phase is Phase.EXECUTING:
            return [Order.EXECUTE]
        if self.phase is Phase.PROVING:
            return [Order.KILL_SERVER]  # its end will be told
        hangs = self.phase is Phase.HANDING_OVER or (
            self.phase is Phase.CLEARING and not self._may_resume
        )
        # Before: whoever gives up there must not wait for a server that gives up its place.
        orders = [Order.KILL_SERVER] if hangs and self._server_lives else []
        if self.phase is Phase.CLEARING:
            return orders + [Order.KILL_SUCCESSOR] * self._has_successor
        return orders + self._give_up("the new version takes too long to start")

    def _step(self, step: tuple[Phase, Order] | None) -> list[Order]:
        if step is None:
            return []
        self.phase, order = step
        if order is Order.SUSPEND:
            self._is_suspended = True
        elif order is Order.HAND_OVER:
            self._may_resume = False
        elif order is Order.PROMOTE:
            self._has_successor = False
        return [order]

    def _give_up(self, reason: str) -> list[Order]:
        self.reason = reason
        self.phase = Phase.CLEARING
        if self._has_successor:
            return [Order.KILL_SUCCESSOR]
        return self._cleared()

    def _cleared(self) -> list[Order]:
        if self._has_successor or (self._server_lives and not self._may_resume):
            return []  # its end will be told
        orders = []
        if not self._server_lives:
            orders = [Order.SPAWN]
        elif self._is_suspended:
            orders = [Order.RESUME]
        self.phase = Phase.IDLE
        return [Order.REPORT, *orders]
