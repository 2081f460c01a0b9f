"""High-water marks with hysteresis: while one is passed, no session and no subscriber is added."""

from __future__ import annotations

from dataclasses import dataclass

from rtpfanout.errors import UnavailableError

RETRY_AFTER = 2.0
"""Seconds that a refused caller is asked to wait."""
CALM_SAMPLES = 2
"""Samples in a row below the low mark that open the door again."""
LASTING_SAMPLES = 3
"""Samples in a row that make a worker too busy, or a queue too full: what a second brings is no
overload."""
LEAST_LOST = 0.001
"""Share of what came that has to be lost in a full queue to make it an overload."""


@dataclass(frozen=True, slots=True)
class OverloadLimits:
    """The high mark of each measure; 0: it isn't watched. The low mark is `low_share` of it.

    What is usual is in the configuration.
    """

    busy: float = 0.0
    """Share of its time that the busiest worker spends in turns, 0 to 1."""
    kernel_drops: float = 0.0
    """Datagrams a second that the receive queues had no room for; none below LEAST_LOST."""
    memory_bytes: float = 0.0
    """Resident memory of the process."""
    low_share: float = 0.8


@dataclass(frozen=True, slots=True)
class Sample:
    """What was measured over the last second or so, in the units of OverloadLimits."""

    busy: float
    kernel_drops: float
    memory_bytes: float
    lost_share: float = 1.0
    """Of the datagrams that came: those that the receive queues had no room for, 0 to 1."""
    work: float = 0.0
    """Seconds a second that all workers together were busy."""
    copies: float = 0.0
    """Copies a second that they attempted."""

    @property
    def telling_drops(self) -> float:
        """kernel_drops, unless they are too small a share of what came."""
        return self.kernel_drops if self.lost_share >= LEAST_LOST else 0.0


class Mark:
    """One measure: passed when `patience` samples in a row are at `high` or above, until
    CALM_SAMPLES in a row are below `low`.
    """

    def __init__(self, name: str, high: float, low: float, patience: int = 1) -> None:
        self.name = name
        self._high = high
        self._low = low
        self._patience = patience
        self._above = 0
        self._calm = 0
        self.is_passed = False

    def observe(self, value: float) -> bool:
        """True if this sample changed `is_passed`."""
        if self._high <= 0:
            return False
        if not self.is_passed:
            self._above = self._above + 1 if value >= self._high else 0
            self.is_passed = self._above >= self._patience
            self._calm = 0
            return self.is_passed
        self._calm = self._calm + 1 if value < self._low else 0
        self.is_passed = self._calm < CALM_SAMPLES
        self._above = 0
        return not self.is_passed


class HighWater:
    """The marks together. `refused_total` counts the calls that `admit` turned away."""

    def __init__(self, limits: OverloadLimits) -> None:
        self.refused_total = 0
        self.marks = tuple(
            Mark(name, high, high * limits.low_share, patience)
            for name, high, patience in (
                ("busy", limits.busy, LASTING_SAMPLES),
                ("kernel_drops", limits.kernel_drops, LASTING_SAMPLES),
                ("memory", limits.memory_bytes, 1),
            )
        )

    @property
    def passed(self) -> tuple[str, ...]:
        """Names of the marks that are passed."""
        return tuple(mark.name for mark in self.marks if mark.is_passed)

    def observe(self, sample: Sample) -> list[Mark]:
        """The marks that this sample passed, or came below again."""
        values = (sample.busy, sample.telling_drops, sample.memory_bytes)
        return [mark for mark, value in zip(self.marks, values, strict=True) if mark.observe(value)]

    def admit(self) -> None:
        """Before a session or a subscriber is added. Raises UnavailableError."""
        passed = self.passed
        if passed:
            self.refused_total += 1
            raise UnavailableError(
                f"the server is overloaded ({', '.join(passed)}) and takes nobody new; "
                f"try again in {RETRY_AFTER:g} s, or another server",
                retry_after=RETRY_AFTER,
            )
