"""The time of what is stored: as steady as the host's monotonic clock, over crashes and boots too.

Deadlines in the store are of a clock of its own, the *store's time*. It began as the wall clock's,
and within one boot it goes as CLOCK_MONOTONIC does, whatever is done to the wall clock and however
often the server is replaced; the store keeps by how much they differ. Over a boot the wall clock
has to tell how much time has passed, but never less than none: so no lease lasts longer than it
was granted for. How far the wall clock is ahead of the store's time is kept as well, so that times
are told to people as their clocks have them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from rtpfanout.boot import boot_id
from rtpfanout.store import KeptClock

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STEP_NS = 1_000_000_000
"""A difference from which on the wall clock was set; below it two looks tell one time."""


class Clock:
    """Monotonic time, the store's time, and the wall clock's. Thread-safe."""

    def __init__(
        self,
        monotonic_ns: Callable[[], int],
        utc_now: Callable[[], datetime],
        kept: KeptClock | None = None,
    ) -> None:
        """`kept` is what the store has of the clock that its times are of; None: nothing."""
        self.monotonic_ns = monotonic_ns
        self._utc_now = utc_now
        now = monotonic_ns()
        ahead = self._wall_ns() - now
        if kept is None:
            self._offset_ns = self._shown_ns = ahead
        elif kept.boot == boot_id() and now + kept.offset_ns >= kept.written_ns:
            self._offset_ns, self._shown_ns = kept.offset_ns, kept.shown_ns
        else:
            passed_by_wall = ahead + now - (kept.shown_ns - kept.offset_ns)
            self._offset_ns = max(passed_by_wall, kept.written_ns) - now
            self._shown_ns = ahead

    def kept(self) -> KeptClock:
        """As the store is to have it."""
        return KeptClock(boot_id(), self._offset_ns, self._shown(), self.wall_ns())

    def is_kept(self, kept: KeptClock | None) -> bool:
        """Whether that is this clock, whenever it was written."""
        return kept is not None and kept[:3] == self.kept()[:3]

    def wall_ns(self, monotonic_ns: int | None = None) -> int:
        """The store's time, now or at a monotonic time."""
        return self._offset_ns + (self.monotonic_ns() if monotonic_ns is None else monotonic_ns)

    def wall_secs(self) -> float:
        """The store's time in seconds."""
        return self.wall_ns() / 1e9

    def monotonic_of(self, wall_ns: int) -> int:
        """The monotonic time of a store's; may be negative, before the host's start."""
        return wall_ns - self._offset_ns

    def moment(self, wall_ns: int) -> datetime:
        """A store's time as the wall clock has it, in UTC."""
        shown = wall_ns - self._offset_ns + self._shown()
        return _EPOCH + timedelta(microseconds=shown // 1000)

    def now(self) -> datetime:
        """The wall clock's, in UTC."""
        return self._utc_now()

    def _shown(self) -> int:
        """What the wall clock is ahead of the monotonic one."""
        ahead = self._wall_ns() - self.monotonic_ns()
        if abs(ahead - self._shown_ns) >= _STEP_NS:
            self._shown_ns = ahead
        return self._shown_ns

    def _wall_ns(self) -> int:
        return (self._utc_now() - _EPOCH) // timedelta(microseconds=1) * 1000
