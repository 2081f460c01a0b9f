"""Ten minutes of figures: which moments are kept, what they tell, and how much room they take."""

from __future__ import annotations

import itertools
import struct

import pytest

from rtpfanout._fastpath import RECEPTION_FIGURES
from rtpfanout.sessions import APART_SECONDS, Figures, Moment
from rtpfanout.sessions.history import KEPT_UNSEEN, SECONDS, History

SECOND = 10**9


class FakeEngine:
    """Sessions by their handles; each has the same figures."""

    def __init__(self, *handles: int) -> None:
        self.handles = list(handles)
        self.lost = 0
        self.jitter = 0.25

    def reception_figures(self, now_ns: int) -> tuple[bytes, bytes]:
        expected = now_ns // SECOND
        record = RECEPTION_FIGURES.pack(1e6, -1.0, self.jitter, expected % 2**32, self.lost)
        count = len(self.handles)
        return struct.pack(f"={count}Q", *self.handles), record * count


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> int:
        return round(self.seconds * SECOND)


def history_of(engine: FakeEngine) -> tuple[History, Clock]:
    clock = Clock()
    return History(engine, clock), clock  # type: ignore[arg-type]


def look_for(history: History, clock: Clock, seconds: float) -> None:
    until = clock.seconds + seconds
    while clock.seconds < until:
        clock.seconds += APART_SECONDS
        history.look()


def test_ten_minutes_are_kept_and_no_more() -> None:
    history, clock = history_of(FakeEngine(5))
    look_for(history, clock, 3 * SECONDS)
    moments = history.seen()
    assert len(moments) == SECONDS // APART_SECONDS
    ages = [(clock() - moment.at_ns) // SECOND for moment in moments]
    assert ages == list(range(SECONDS - APART_SECONDS, -1, -APART_SECONDS))


def test_a_session_is_found_among_others() -> None:
    # The bytes of 2**32 are within those of the pair before it, too, at no place of a handle.
    handles = [1 << 32 | 2**31, 2**32, 7, 2**64 - 1]
    history, clock = history_of(FakeEngine(*handles))
    look_for(history, clock, APART_SECONDS)
    (moment,) = history.seen()
    for handle in handles:
        assert moment.find(handle) == Figures(1e6, None, 0.25, 1010, 0)
    assert moment.find(8) is None
    assert moment.find(0) is None
    assert [handle for handle, _ in moment.each()] == handles


def test_there_may_be_no_session_and_no_moment() -> None:
    history, clock = history_of(FakeEngine())
    assert history.seen() == ()
    look_for(history, clock, APART_SECONDS)
    (moment,) = history.seen()
    assert (list(moment.each()), moment.find(1)) == ([], None)


def test_the_same_sessions_are_told_by_the_same_bytes() -> None:
    engine = FakeEngine(1, 2)
    history, clock = history_of(engine)
    look_for(history, clock, 2 * APART_SECONDS)
    engine.handles = [1, 2, 3]
    look_for(history, clock, APART_SECONDS)
    first, second, third = history.seen()
    assert first.handles is second.handles
    assert len(third.handles) == 24


@pytest.mark.parametrize("sessions", [100, 10_000, 100_000])
def test_while_nobody_looks_it_has_its_bounds(sessions: int) -> None:
    history, clock = history_of(FakeEngine(*range(sessions)))
    look_for(history, clock, 2 * SECONDS)
    moments = history._moments
    size = sum(len(moment.figures) for moment in moments)
    one = sessions * RECEPTION_FIGURES.size
    assert size <= KEPT_UNSEEN + 2 * one
    apart = {round((b.at_ns - a.at_ns) / SECOND) for a, b in itertools.pairwise(moments)}
    assert len(apart) <= 1, "evenly"
    if sessions == 100:
        assert apart == {APART_SECONDS}


def test_somebody_who_looks_has_all_moments_from_then_on() -> None:
    history, clock = history_of(FakeEngine(*range(10_000)))
    look_for(history, clock, SECONDS)
    before = len(history.seen())
    look_for(history, clock, 60)
    assert len(history.seen()) in (before + 5, before + 6), "and the oldest may have gone"
    look_for(history, clock, SECONDS - 60)
    assert len(history._moments) == SECONDS // APART_SECONDS
    look_for(history, clock, 2 * SECONDS)
    assert len(history._moments) < before + 2, "he has gone"


def test_a_look_that_comes_late_or_twice_makes_one_moment() -> None:
    history, clock = history_of(FakeEngine(1))
    history.look()
    clock.seconds += 0.5
    history.look()
    clock.seconds += 9
    history.look()
    assert len(history.seen()) == 2


def figures(expected: int, lost: int) -> Figures:
    return Figures(0.0, None, None, expected % 2**32, lost % 2**32)


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        ((0, 0), (100, 5), 0.05),
        ((100, 5), (100, 5), None),
        ((100, 5), (200, 3), 0.0),
        ((2**32 - 50, 2**32 - 1), (50, 9), 0.1),
        ((100, 0), (50, 0), None),
        ((0, 0), (10, 20), 1.0),
    ],
    ids=["lost", "nothing came", "came late", "over 32 bits", "began anew", "of another time"],
)
def test_loss_is_of_what_came_between(
    before: tuple[int, int], after: tuple[int, int], share: float | None
) -> None:
    assert figures(*after).lost_since(figures(*before)) == share
    assert figures(*after).lost_since(None) is None


def test_figures_that_are_not_known_are_none() -> None:
    engine = FakeEngine(1)
    engine.jitter = -1.0
    history, _ = history_of(engine)
    found = history.now().find(1)
    assert found is not None
    assert (found.frame_rate, found.jitter_seconds) == (None, None)
    assert isinstance(history.now(), Moment)
