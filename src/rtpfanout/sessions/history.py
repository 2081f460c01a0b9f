"""Ten minutes of how sessions were received: bounded, and hardly there while nobody looks.

A moment is one pass of the packet path's figures over all sessions: 28 bytes for each, and 20 where
the sessions are those of the moment before. While somebody looks there is one every ten seconds:
12 MB of 10,000 sessions. Else there are as many as fit into KEPT_UNSEEN, evenly apart.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout._fastpath import RECEPTION_FIGURES

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine

SECONDS = 600
APART_SECONDS = 10
KEPT_UNSEEN = 3 * 2**19
"""Bytes. A server without sessions has some fifty times as many."""
SEEN_SECONDS = 600
"""So long after somebody looked he may look again."""
_SLACK_NS = 10**9
_HANDLE_BYTES = 8
_COUNTER = 2**32


class Figures(NamedTuple):
    """Of one session at a moment; None where it is not known."""

    bitrate_bps: float
    frame_rate: float | None
    jitter_seconds: float | None
    expected: int
    """The lower 32 bits of how many packets there should have been, as of those `lost`."""
    lost: int

    def lost_since(self, before: Figures | None) -> float | None:
        """The share of packets that were lost since then, 0 to 1; None: there were none.

        Packets that come late take a loss back, and may have been lost before.
        """
        if before is None:
            return None
        expected = (self.expected - before.expected) % _COUNTER
        lost = (self.lost - before.lost) % _COUNTER
        if expected == 0 or expected >= _COUNTER // 2:
            return None
        return min(1.0, lost / expected) if lost < _COUNTER // 2 else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """All sessions' figures at a time of CLOCK_MONOTONIC."""

    at_ns: int
    handles: bytes
    figures: bytes

    def find(self, handle: int) -> Figures | None:
        """Of one session; None: there was no such."""
        record = handle.to_bytes(_HANDLE_BYTES, sys.byteorder)
        at = self.handles.find(record)
        while at % _HANDLE_BYTES:  # also of -1: that is none
            if at < 0:
                return None
            at = self.handles.find(record, at + 1)
        place = at // _HANDLE_BYTES * RECEPTION_FIGURES.size
        return _figures(*RECEPTION_FIGURES.unpack_from(self.figures, place))

    def each(self) -> Iterator[tuple[int, Figures]]:
        """(handle, figures) of every session."""
        handles = memoryview(self.handles).cast("Q")
        for handle, record in zip(
            handles, RECEPTION_FIGURES.iter_unpack(self.figures), strict=True
        ):
            yield handle, _figures(*record)


def _figures(bitrate: float, frame_rate: float, jitter: float, expected: int, lost: int) -> Figures:
    return Figures(
        bitrate,
        frame_rate if frame_rate >= 0 else None,
        jitter if jitter >= 0 else None,
        expected,
        lost,
    )


@dataclass(eq=False)
class History:
    """The last SECONDS of `engine`. Thread-safe."""

    engine: Engine
    now_ns: Callable[[], int]
    """CLOCK_MONOTONIC."""
    _moments: list[Moment] = field(default_factory=list)
    _seen_ns: int | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def look(self) -> None:
        """Housekeeping, every APART_SECONDS: one more moment, if it is time."""
        now = self.now_ns()
        with self._lock:
            moments = [each for each in self._moments if now - each.at_ns < SECONDS * 10**9]
            last = moments[-1] if moments else None
            apart = self._apart_ns(now, len(last.figures) if last else 0)
            if last is None or now - last.at_ns >= apart - _SLACK_NS:
                moments.append(self.now(last))
            self._moments = _thinned(moments, apart)

    def now(self, before: Moment | None = None) -> Moment:
        """What is at this moment; it is not kept. What is as `before` is told by the same bytes."""
        now = self.now_ns()
        handles, figures = self.engine.reception_figures(now)
        if before is not None and before.handles == handles:
            handles = before.handles
        return Moment(now, handles, figures)

    def seen(self) -> Sequence[Moment]:
        """The moments, the oldest first, for somebody who looks at them."""
        with self._lock:
            self._seen_ns = self.now_ns()
            return tuple(self._moments)

    def _apart_ns(self, now_ns: int, size: int) -> int:
        """For moments of `size` bytes."""
        apart = APART_SECONDS
        is_seen = self._seen_ns is not None and now_ns - self._seen_ns < SEEN_SECONDS * 10**9
        while not is_seen and size * SECONDS > KEPT_UNSEEN * apart and apart < SECONDS:
            apart *= 2
        return apart * 10**9


def _thinned(moments: Sequence[Moment], apart_ns: int) -> list[Moment]:
    """Those that are so far apart, and the last one."""
    kept: list[Moment] = []
    for each in reversed(moments):
        if not kept or kept[-1].at_ns - each.at_ns >= apart_ns - _SLACK_NS:
            kept.append(each)
    return kept[::-1]
