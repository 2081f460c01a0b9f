"""Loss, order, jitter and latency as a receiver counts them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.cli.reception import Jitter, Latencies, SequenceTracker


def tracked(sequences):
    tracker = SequenceTracker()
    for sequence in sequences:
        tracker.add(sequence & 0xFFFF)
    return tracker


def counts(tracker):
    return tracker.lost, tracker.reordered, tracker.duplicates


@pytest.mark.parametrize(
    ("sequences", "expected"),
    [
        ([], (0, 0, 0)),
        ([7], (0, 0, 0)),
        (range(65_530, 65_546), (0, 0, 0)),  # over the wrap
        ([1, 2, 4, 5], (1, 0, 0)),
        ([1, 2, 4, 3, 5], (0, 1, 0)),
        ([1, 2, 2, 3], (0, 0, 1)),
        ([1, 2, 2, 4], (1, 0, 1)),  # RFC 3550 A.3 alone would say 0 lost
        ([2, 1, 3], (0, 1, 0)),  # the first to come was not the first sent
        ([65_535, 1, 0, 1], (0, 1, 1)),
        ([65_535, 2], (2, 0, 0)),
        ([5, 6, 3, 4, 3], (0, 2, 1)),
    ],
)
def test_counts(sequences, expected):
    assert counts(tracked(sequences)) == expected


def test_a_restarted_source_is_not_loss():
    tracker = tracked([*range(100, 110), 112, *range(40_000, 40_010)])
    assert tracker.restarts == 1
    # 110 and 111; and the first packet after the jump, on probation (A.1).
    assert counts(tracker) == (2, 0, 0)


def test_one_stray_sequence_number_restarts_nothing():
    tracker = tracked([1, 2, 30_000, 3, 4])
    assert tracker.restarts == 0
    assert counts(tracker) == (0, 0, 0)


@given(
    first=st.integers(0, 65_535),
    length=st.integers(1, 3_000),
    loss=st.floats(0, 0.3),
    duplication=st.floats(0, 0.2),
    seed=st.integers(0, 2**32),
)
def test_counts_match_what_was_done_to_the_packets(first, length, loss, duplication, seed):
    chance = random.Random(seed)
    kept = [n for n in range(length) if n in (0, length - 1) or chance.random() >= loss]
    twice = [n for n in kept if chance.random() < duplication]
    # Every packet is delayed by less than 50 places.
    arrivals = sorted(kept + twice, key=lambda n: n + chance.random() * 50)
    tracker = tracked(first + n for n in arrivals)
    highest, late, seen = -1, 0, set()
    for n in arrivals:
        late += n not in seen and n < highest
        highest = max(highest, n)
        seen.add(n)
    assert counts(tracker) == (length - len(kept), late, len(twice))


def test_jitter_of_an_even_flow_is_nothing_even_over_the_wrap():
    jitter = Jitter(90_000)
    for frame in range(300):
        jitter.add((2**32 - 9_000 + frame * 3_000) % 2**32, frame * 1_000_000_000 // 30)
    assert jitter.milliseconds < 0.02


def test_jitter_follows_rfc_3550_a_8():
    jitter = Jitter(90_000)
    expected = 0.0
    for frame in range(50):
        late_ms = 5 if frame % 2 else 0
        jitter.add(frame * 900, frame * 10_000_000 + late_ms * 1_000_000)
        if frame:
            expected += (5.0 - expected) / 16
    assert jitter.milliseconds == pytest.approx(expected)


def test_percentiles_are_within_two_percent():
    latencies = Latencies()
    values = [int(1000 * 1.01**n) for n in range(1000)]
    for value in random.Random(2).sample(values, len(values)):
        latencies.add(value)
    for percent in (1, 50, 99, 100):
        exact = values[max(0, -(-percent * len(values) // 100) - 1)]
        assert latencies.percentile_ms(percent) == pytest.approx(exact / 1e6, rel=0.02)
    assert latencies.max_ms == values[-1] / 1e6


def test_no_latency_has_no_percentile():
    assert Latencies().percentile_ms(50) is None
    assert Latencies().max_ms is None


def test_clocks_that_differ_give_negative_latencies():
    latencies = Latencies()
    for _ in range(3):
        latencies.add(-5_000_000)
    assert latencies.percentile_ms(50) == pytest.approx(-5, rel=0.02)
    assert latencies.max_ms == -5
