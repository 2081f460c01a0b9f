"""All sessions at a glance, and how they were received lately: what a page shows of thousands.

Nothing here is asked for unless somebody looks; what is kept for him is `history`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout._fastpath import LATENCY_BOUNDS_NS
from rtpfanout.model import Condition, SessionStatus
from rtpfanout.sessions.state import Part

if TYPE_CHECKING:
    from rtpfanout.sessions.history import Figures, History, Moment
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.refused import RefusedSession

LATELY_NS = 10 * 10**9
"""A loss of now is that of this time, at least, and of two moments of the history at the most."""
_AT_A_TIME = 64  # so that the lock is held for moments


class Glance(NamedTuple):
    """One session: what the page's table has of it."""

    session_id: str
    handle: int
    """0: it is refused, and nothing else is known of it."""
    name: str
    labels: Mapping[str, str]
    media_type: str
    source: str
    status: SessionStatus
    condition: Condition | None
    condition_since_ms: int
    """Milliseconds since the epoch; 0 without a condition."""
    subscribers: int
    figures: Figures | None
    lost_lately: float | None
    """The share of its packets that were lost, 0 to 1; None: nothing came."""


class Latency(NamedTuple):
    """How many packets took as long, to the first and to the last subscriber."""

    bounds_seconds: Sequence[float]
    """Inclusive, of all counts but the last one, which is of everything above."""
    first: Sequence[int]
    last: Sequence[int]


@dataclass(eq=False)
class Overview(Part):
    """Thread-safe; waits for nobody."""

    history: History

    def glances(self) -> Iterator[Glance]:
        """Every session; between two of them others may work, and sessions come and go."""
        moments = self.history.seen()
        now = self.history.now(moments[-1] if moments else None)
        pairs = _pairs(now, _before(moments, now))
        while some := list(itertools.islice(pairs, _AT_A_TIME)):
            with self.state.lock:
                glances = [
                    self._glance(session, figures, figures.lost_since(earlier))
                    for handle, figures, earlier in some
                    if (session := self.state.by_handle.get(handle)) is not None
                ]
            yield from glances
        with self.state.lock:
            refused = list(self.state.refused.values())
        yield from map(_refused_glance, refused)

    def latency(self, session_id: str) -> Latency:
        """Raises InvalidArgumentError, NotFoundError."""
        with self.state.found(session_id) as session:
            (first, _), (last, _) = self.engine.session_latency(session.handle)
        return Latency([bound / 1e9 for bound in LATENCY_BOUNDS_NS], first, last)

    @property
    def knocking(self) -> int:
        """How many strangers are listed."""
        return len(self.engine.knocks())

    def handle_of(self, session_id: str) -> int:
        """For `Moment.find`. Raises InvalidArgumentError, NotFoundError."""
        with self.state.found(session_id) as session:
            return session.handle

    def lost_lately(self, handle: int) -> float | None:
        """As a Glance has it."""
        moments = self.history.seen()
        now = self.history.now(moments[-1] if moments else None)
        figures, before = now.find(handle), _before(moments, now)
        return figures.lost_since(before.find(handle) if before else None) if figures else None

    def _glance(self, session: Session, figures: Figures, lost: float | None) -> Glance:
        clock = self.clock
        since = clock.moment(clock.wall_ns(session.condition_since_ns))
        status = SessionStatus.ACTIVE if session.is_active else SessionStatus.IDLE
        terms = session.terms
        return Glance(
            session_id=session.session_id,
            handle=session.handle,
            name=terms.name,
            labels=terms.labels,
            media_type=session.media_type,
            source=str(terms.feeder or terms.source.text),
            status=SessionStatus.PAUSED if terms.paused else status,
            condition=session.condition,
            condition_since_ms=round(since.timestamp() * 1000),
            subscribers=session.subscribers,
            figures=figures,
            lost_lately=lost,
        )


def _before(moments: Sequence[Moment], now: Moment) -> Moment | None:
    """The latest that is LATELY_NS ago, or else the first."""
    earlier = [each for each in moments if now.at_ns - each.at_ns >= LATELY_NS]
    return next(iter(earlier[-1:] or moments), None)


def _pairs(now: Moment, before: Moment | None) -> Iterator[tuple[int, Figures, Figures | None]]:
    """(handle, figures, what they were) of every session that there is."""
    if before is None:
        return ((handle, figures, None) for handle, figures in now.each())
    if before.handles == now.handles:
        return (
            (handle, figures, earlier)
            for (handle, figures), (_, earlier) in zip(now.each(), before.each(), strict=True)
        )
    known = dict(before.each())
    return ((handle, figures, known.get(handle)) for handle, figures in now.each())


def _refused_glance(session: RefusedSession) -> Glance:
    return Glance(
        session_id=session.session_id,
        handle=0,
        name=session.name,
        labels=session.labels,
        media_type=session.row.media_type,
        source=session.row.source_text,
        status=SessionStatus.REFUSED,
        condition=None,
        condition_since_ms=0,
        subscribers=session.subscribers,
        figures=None,
        lost_lately=None,
    )
