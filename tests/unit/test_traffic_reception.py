"""Loss, order, jitter and latency as a receiver counts them."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.traffic.reception import Jitter, Latencies, Seen, SequenceTracker


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


def fed(*runs, interval_ns=1_000_000):
    """A tracker after runs of (first number, how many, time stamp of a number, content of one)."""
    tracker = SequenceTracker()
    now = 0
    for first, count, stamp, content in runs:
        for number in range(first, first + count):
            now += interval_ns
            tracker.add(number & 0xFFFF, Seen(now, stamp(number), content(number)))
    return tracker


def same(number):
    return number * 3000


def other(number):
    return number * 3000 + 12_345


@given(
    first=st.integers(0, 65_535),
    length=st.integers(20, 3000),
    back=st.integers(20, 1000),
    stamp=st.sampled_from([same, other]),
    content=st.sampled_from([same, other]),
)
def test_a_source_that_begins_anew_nearby_sends_no_duplicates(first, length, back, stamp, content):
    """Neither lost nor doubled: it sends other packets by the numbers of some before."""
    again = first + length - min(back, length)
    tracker = fed(
        (first, length, same, same), (again, 1500, stamp, content), interval_ns=20_000_000
    )
    assert counts(tracker) == (0, 0, 0)
    assert tracker.restarts == 1


def test_two_packets_that_another_clock_stamped_are_enough():
    tracker = fed((100, 50, same, same), (140, 2, other, same))
    assert (tracker.restarts, counts(tracker)) == (1, (0, 0, 0))
    tracker = fed((100, 50, same, same), (140, 1, other, same))
    assert (tracker.restarts, counts(tracker)) == (0, (0, 0, 1))


def test_what_was_lost_before_it_began_anew_stays_lost():
    tracker = SequenceTracker()
    for number in [*range(100, 120), *range(125, 200)]:
        tracker.add(number, Seen(number, number, number))
    for number in [*range(110, 130), *range(132, 400)]:
        tracker.add(number, Seen(number, number + 1_000_000, number))
    assert tracker.restarts == 1
    assert counts(tracker) == (5 + 2, 0, 0)


@given(
    first=st.integers(0, 65_535),
    burst=st.integers(1, 200),
    rounds=st.integers(1, 10),
)
def test_packets_that_come_twice_are_duplicates_however_many_in_a_row(first, burst, rounds):
    """Over two ways, burst by burst; or again by a server that takes a dead one's place."""
    runs = []
    for number in range(rounds):
        begin = first + number * burst
        runs += [(begin, burst, same, same), (begin, burst, same, same)]
    tracker = fed(*runs)
    assert counts(tracker) == (0, 0, rounds * burst)
    assert tracker.restarts == 0


def test_a_packet_sent_again_with_another_header_extension_is_a_duplicate():
    """Encrypted it looks different (RFC 3711 section 3.1: the tag covers the header)."""
    tracker = fed((0, 100, same, same), (90, 10, same, other), (100, 5, same, same))
    assert (tracker.restarts, counts(tracker)) == (0, (0, 0, 10))


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
