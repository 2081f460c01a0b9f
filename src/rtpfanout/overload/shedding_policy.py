"""Who goes when a session is dropped from: whole subscribers, monitors first, pilots never.

A stream with holes is of no use to anybody, so a session that the packet path has to drop
packets of (reason `overload`) loses subscribers instead, until what is left fits: every second
half of its monitors, then half of its recorders. But only while the overload lasts: what a burst
has left in the queue is over before anybody could be shed for it. Whoever is shed comes back as
soon as the workers have time for it, all at once if they have for all.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rtpfanout.model import SubscriberClass

SHED_ORDER = (SubscriberClass.MONITOR, SubscriberClass.RECORDER)
WINDOW, LASTING = 5, 4
"""An overload lasts when so many of the last WINDOW samples had too many drops, this one too."""
LEAST_DROPPED = 0.02
"""Share of a session's packets that is too many."""
SETTLING = 2
"""Samples after a step in which its effect can't be seen yet."""
ROOM = 0.8
"""Share of its time that the busiest worker may be busy once somebody is brought back."""
LONGEST_CALM = 64
"""Samples without a drop that are waited for at most, where coming back was too early before."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the workers do: the share of its time that the busiest is busy, and what a copy takes.

    `copy_seconds` is 0 where no copy was sent, so that nobody knows.
    """

    busy: float
    copy_seconds: float


@dataclass(frozen=True, slots=True)
class Standing:
    """One session over the last sample: packets dropped as `overload`, and a second's forwarded.

    `sending` and `shed` are how many of each class get copies and how many are shed.
    """

    dropped: int
    dropped_share: float
    """Of the packets that it was sent."""
    packets_per_second: float
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
    recent: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    settling: int = 0
    calm: int = 0
    wanted_calm: int = 1
    has_restored: bool = False


class SheddingPolicy:
    """What to do about each session, asked for each sample, about once a second.

    `begin` says what the workers do, before the sessions are asked about. Remembers only sessions
    that had drops lately.
    """

    def __init__(self) -> None:
        self._memory: dict[int, _Memory] = {}
        self._room = 0.0
        self._copy_seconds = 0.0

    @property
    def watched(self) -> tuple[int, ...]:
        """Handles of sessions to ask about even when nothing was dropped of them."""
        return tuple(self._memory)

    def begin(self, load: Load) -> None:
        """A new sample: what is brought back in it shares the room that there is."""
        self._room = max(0.0, ROOM - load.busy)
        self._copy_seconds = load.copy_seconds

    def forget(self, handle: int) -> None:
        """The session is gone."""
        self._memory.pop(handle, None)

    def steps(self, handle: int, standing: Standing) -> list[Step]:
        """The next steps for a session; none leave it as it is."""
        memory = self._memory.get(handle)
        if memory is None:
            if standing.dropped == 0:
                return []
            memory = self._memory[handle] = _Memory()
        is_dropping = standing.dropped > 0 and standing.dropped_share >= LEAST_DROPPED
        memory.recent.append(is_dropping)
        memory.settling = max(0, memory.settling - 1)
        if standing.dropped > 0:
            memory.calm = 0
            return self._shed(memory, standing) if is_dropping else []
        memory.calm += 1
        if any(standing.shed.values()):
            return self._bring_back(memory, standing)
        if memory.calm >= max(WINDOW, 2 * memory.wanted_calm):
            self.forget(handle)
        return []

    def _shed(self, memory: _Memory, standing: Standing) -> list[Step]:
        if memory.settling or sum(memory.recent) < LASTING:
            return []
        for kind in SHED_ORDER:
            if count := standing.sending.get(kind, 0):
                if memory.has_restored:  # they came back too early
                    memory.wanted_calm = min(2 * memory.wanted_calm, LONGEST_CALM)
                    memory.has_restored = False
                memory.settling = SETTLING
                return [Step(True, kind, (count + 1) // 2)]
        return []

    def _bring_back(self, memory: _Memory, standing: Standing) -> list[Step]:
        if memory.calm < memory.wanted_calm:
            return []
        left = self._fitting(standing)
        steps = []
        for kind in reversed(SHED_ORDER):
            if count := min(left, standing.shed.get(kind, 0)):
                steps.append(Step(False, kind, count))
                left -= count
        if steps:
            memory.has_restored = True
        return steps

    def _fitting(self, standing: Standing) -> int:
        """How many of those that are shed there is room for. Takes the room."""
        shed = sum(standing.shed.values())
        if standing.packets_per_second <= 0:
            return shed
        if self._copy_seconds <= 0:  # only a try can tell
            return (shed + 1) // 2
        each = standing.packets_per_second * self._copy_seconds
        count = min(shed, int(self._room / each))
        self._room -= count * each
        return count
