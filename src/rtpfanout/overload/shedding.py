"""Who goes when a session is dropped from: whole subscribers, monitors first, pilots never.

A stream with holes is of no use to anybody, so a session that the packet path had to drop
packets of (reason `overload`) loses subscribers instead, until what is left fits: every second
half of its monitors, then half of its recorders. Whoever is shed comes back the same way, once
nothing was dropped for a while; that while doubles when it proves too short.
"""

from __future__ import annotations

from dataclasses import dataclass

from rtpfanout.model import SubscriberClass

SHED_ORDER = (SubscriberClass.MONITOR, SubscriberClass.RECORDER)
FIRST_CALM = 2
"""Seconds without a drop before the first come back, if they have not been shed lately."""
LONGEST_CALM = 64


@dataclass(frozen=True, slots=True)
class Standing:
    """One session over the last second: packets dropped as `overload`, and its subscribers.

    `sending` and `shed` are how many of each class get copies and how many are shed.
    """

    dropped: int
    sending: dict[SubscriberClass, int]
    shed: dict[SubscriberClass, int]


@dataclass(frozen=True, slots=True)
class Step:
    """Shed (or with `shed` False bring back) `count` subscribers of a class."""

    shed: bool
    subscriber_class: SubscriberClass
    count: int


@dataclass(slots=True)
class _Memory:
    calm: int = 0
    wanted_calm: int = FIRST_CALM
    has_restored: bool = False


class SheddingPolicy:
    """What to do about each session, asked once a second. Remembers sessions that shed only."""

    def __init__(self) -> None:
        self._memory: dict[int, _Memory] = {}

    @property
    def watched(self) -> tuple[int, ...]:
        """Handles of sessions to ask about even when nothing was dropped of them."""
        return tuple(self._memory)

    def forget(self, handle: int) -> None:
        """The session is gone."""
        self._memory.pop(handle, None)

    def step(self, handle: int, standing: Standing) -> Step | None:
        """The next step for a session, or None to leave it as it is."""
        if standing.dropped > 0:
            return self._shed(handle, standing)
        memory = self._memory.get(handle)
        if memory is None:
            return None
        memory.calm += 1
        if memory.calm < memory.wanted_calm:
            return None
        for kind in reversed(SHED_ORDER):
            if count := standing.shed.get(kind, 0):
                memory.has_restored = True
                return Step(False, kind, (count + 1) // 2)
        if memory.calm >= 2 * memory.wanted_calm:
            self.forget(handle)
        return None

    def _shed(self, handle: int, standing: Standing) -> Step | None:
        memory = self._memory.get(handle)
        for kind in SHED_ORDER:
            if count := standing.sending.get(kind, 0):
                if memory is None:
                    memory = self._memory[handle] = _Memory()
                if memory.has_restored:  # they came back too early
                    memory.wanted_calm = min(2 * memory.wanted_calm, LONGEST_CALM)
                    memory.has_restored = False
                memory.calm = 0
                return Step(True, kind, (count + 1) // 2)
        if memory is not None:
            memory.calm = 0
        return None
