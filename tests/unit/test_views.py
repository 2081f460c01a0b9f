"""Latencies in short, and cursors of two kinds."""

from __future__ import annotations

import pytest

from rtpfanout._fastpath import LATENCY_BOUNDS_NS
from rtpfanout.errors import InvalidArgumentError
from rtpfanout.sessions.cursor import CursorKind
from rtpfanout.sessions.views import LatencySummary

BUCKETS = len(LATENCY_BOUNDS_NS) + 1


def counts(**by_bucket: int) -> list[int]:
    found = [0] * BUCKETS
    for bucket, count in by_bucket.items():
        found[int(bucket[1:])] = count
    return found


def seconds(bucket: int) -> float:
    return LATENCY_BOUNDS_NS[bucket] / 1e9


def test_quantiles_are_upper_bounds_of_buckets() -> None:
    summary = LatencySummary.of(counts(_8=500, _16=490, _24=9, _40=1))
    assert summary == LatencySummary(seconds(8), seconds(16), seconds(24), seconds(40), 1000)


def test_one_packet_is_every_quantile() -> None:
    summary = LatencySummary.of(counts(_3=1))
    assert summary == LatencySummary(seconds(3), seconds(3), seconds(3), seconds(3), 1)


def test_ranks_round_up() -> None:
    summary = LatencySummary.of(counts(_1=1, _2=2))  # of 3, the second is the median
    assert summary is not None
    assert summary.p50_seconds == seconds(2)


def test_what_is_beyond_the_last_bound_is_told_as_that() -> None:
    summary = LatencySummary.of([0] * (BUCKETS - 1) + [7])
    assert summary is not None
    assert (summary.max_seconds, summary.count) == (seconds(BUCKETS - 2), 7)


def test_nothing_measured_is_no_summary() -> None:
    assert LatencySummary.of([0] * BUCKETS) is None


@pytest.mark.parametrize("number", [1, 2**64 - 1])
def test_a_cursor_is_for_the_call_that_made_it(number: int) -> None:
    for kind in CursorKind:
        assert kind.read(kind.write(number)) == number
        (other,) = set(CursorKind) - {kind}
        with pytest.raises(InvalidArgumentError) as error:
            other.read(kind.write(number))
        assert error.value.field == "cursor"
        assert other.value[1] in error.value.message
