"""The figures of a reception beside a slow model of them, for any order of packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay import rtp

if TYPE_CHECKING:
    from replay import Replay

WINDOW, DROPOUT, MISORDER, RESTART = 64, 3000, 1500, 5


class Numbering:
    """Sequence numbers without end, and which of them came."""

    def __init__(self, *came: int) -> None:
        self.came = set(came)
        self.base, self.highest = min(came), max(came)

    @property
    def expected(self) -> int:
        return self.highest - self.base + 1


class Model:
    """RFC 3550 A.1 and A.3 as reception.h has it, by sets."""

    def __init__(self) -> None:
        self.numberings: list[Numbering] = []
        self.repaired = 0  # by late ones, of which nobody knows which
        self.run: list[int] = []  # in sequence, of what may be another numbering
        self.counts = dict.fromkeys(
            ("duplicates", "reordered", "late", "restarts", "out_of_sequence"), 0
        )

    def expected(self) -> int:
        return sum(n.expected for n in self.numberings)

    def lost(self) -> int:
        return self.expected() - sum(len(n.came) for n in self.numberings) - self.repaired

    def take(self, sequence: int) -> None:
        if not self.numberings:
            self.numberings.append(Numbering(sequence))
            return
        now = self.numberings[-1]
        ahead, behind = (sequence - now.highest) % 65536, (now.highest - sequence) % 65536
        if 0 < ahead < DROPOUT:
            now.highest += ahead
            now.came.add(now.highest)
            self.run = []
        elif behind < WINDOW:
            self._within(now, now.highest - behind)
        else:
            self._beyond(sequence, is_late=behind < MISORDER)

    def _within(self, now: Numbering, number: int) -> None:
        if number in now.came:
            self.counts["duplicates"] += 1
            return
        self.counts["reordered"] += 1
        if number < now.base:
            now.base = number
        elif self.lost() == 0:  # a late one has made up for it
            self.counts["duplicates"] += 1
            self.repaired -= 1
        now.came.add(number)

    def _beyond(self, sequence: int, *, is_late: bool) -> None:
        goes_on = self.run and self.run[-1] == (sequence - 1) % 65536
        self.run = [*self.run, sequence] if goes_on else [sequence]
        if len(self.run) >= (RESTART if is_late else 2):
            came = [sequence] if is_late else range(sequence - len(self.run) + 1, sequence + 1)
            self.numberings.append(Numbering(*came))
            self.counts["restarts"] += 1
            if not is_late:
                self.counts["out_of_sequence"] -= len(self.run) - 1
            self.run = []
        elif is_late:
            self.counts["late"] += 1
            if self.lost() == 0:
                self.counts["duplicates"] += 1
            else:
                self.repaired += 1
        else:
            self.counts["out_of_sequence"] += 1

    def figures(self) -> dict[str, int]:
        lost = self.lost()
        cumulative = lost - self.counts["duplicates"]
        now = self.numberings[-1]
        recent = range(max(now.base, now.highest - WINDOW + 1), now.highest + 1)
        return {
            **self.counts,
            "expected": self.expected(),
            "received": self.expected() - cumulative,
            "lost": lost,
            "cumulative_lost": cumulative,
            "missing_now": sum(number not in now.came for number in recent),
        }


STEPS = st.one_of(
    st.integers(1, 3).map(lambda n: ("on", n)),
    st.integers(-70, 0).map(lambda n: ("back", n)),
    st.sampled_from([-1499, -1500, -1501, -300, 2999, 3000, 3001, 30000]).map(lambda n: ("far", n)),
    st.integers(1, 80).map(lambda n: ("row", n)),
)


def numbers(first: int, steps: list[tuple[str, int]]) -> list[int]:
    """Sequence numbers: mostly on, back and on again, or a row from somewhere else."""
    made, at = [first], first
    for kind, n in steps:
        if kind == "on":
            at += n
            made.append(at)
        elif kind == "back":
            made.append(at + n)
        elif kind == "far":
            made.append(made[-1] + n)
        else:
            made += range(made[-1] + 1, made[-1] + 1 + n)
            at = made[-1]
    return [number % 65536 for number in made]


@settings(max_examples=400, deadline=None)
@given(first=st.integers(0, 65535), steps=st.lists(STEPS, max_size=60))
def test_counts_as_the_model(replay: Replay, first: int, steps: list[tuple[str, int]]) -> None:
    model = Model()
    replay.new()
    for i, number in enumerate(numbers(first, steps)):
        model.take(number)
        replay.take((i + 1) * 1_000_000, rtp(number, i))
    found = replay.figures()
    assert {name: found[name] for name in model.figures()} == model.figures()


@settings(max_examples=100, deadline=None)
@given(
    clock=st.sampled_from([8000, 48000, 90000]),
    packets=st.lists(
        st.tuples(st.integers(0, 40_000_000), st.integers(-300, 3000)), min_size=2, max_size=100
    ),
)
def test_jitter_as_rfc_3550_has_it(
    replay: Replay, clock: int, packets: list[tuple[int, int]]
) -> None:
    """A.8 in floating point, D in seconds."""
    replay.new()
    replay.media(0, clock)
    at, stamp, jitter = 1_000_000_000, 100_000, 0.0
    replay.take(at, rtp(0, stamp))
    for number, (wait_ns, step) in enumerate(packets, 1):
        at += wait_ns
        stamp += step
        jitter += (abs(wait_ns / 1e9 - step / clock) - jitter) / 16
        replay.take(at, rtp(number, stamp))
    assert replay.figures()["jitter_ns"] == pytest.approx(jitter * 1e9, abs=20)
