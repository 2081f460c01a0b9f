"""High-water marks and shedding: who is refused, who is shed, and who comes back when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.errors import UnavailableError
from rtpfanout.model import SubscriberClass
from rtpfanout.overload import HighWater, Limits, Sample, SheddingPolicy, Standing, Step

MONITOR, RECORDER, PILOT = (
    SubscriberClass.MONITOR,
    SubscriberClass.RECORDER,
    SubscriberClass.PILOT,
)
CALM = Sample(busy=0.1, kernel_drops=0, memory_bytes=0)


def busy(share):
    return Sample(busy=share, kernel_drops=0, memory_bytes=0)


def test_a_passed_mark_refuses_with_a_time_to_retry():
    water = HighWater(Limits(busy=0.9))
    water.observe(busy(0.9))
    water.observe(busy(0.9))
    water.admit()  # a second or two of work is no overload
    assert [mark.name for mark in water.observe(busy(0.9))] == ["busy"]
    with pytest.raises(UnavailableError, match=r"overloaded \(busy\).*another server") as refused:
        water.admit()
    assert refused.value.retry_after > 0
    assert water.refused_total == 1


def test_the_way_back_is_below_the_low_mark_and_takes_two_samples():
    water = HighWater(Limits(busy=0.9, low_share=0.8))
    for _second in range(3):
        water.observe(busy(1.0))
    assert water.observe(busy(0.73)) == []  # between the marks: still passed
    assert water.observe(busy(0.7)) == []
    assert water.observe(busy(0.73)) == []  # begins anew
    assert water.observe(busy(0.7)) == []
    assert [mark.is_passed for mark in water.observe(busy(0.7))] == [False]
    water.admit()


def test_every_measure_has_its_mark_and_0_is_none():
    limits = Limits(busy=0, kernel_drops=10, memory_bytes=100)
    water = HighWater(limits)
    for _second in range(3):
        water.observe(Sample(busy=1, kernel_drops=10, memory_bytes=100))
    assert water.passed == ("kernel_drops", "memory")


def test_a_second_of_loss_or_a_trifle_refuses_nobody():
    water = HighWater(Limits(kernel_drops=1))
    loss = Sample(busy=0, kernel_drops=500, memory_bytes=0, lost_share=0.3)
    trifle = Sample(busy=0, kernel_drops=5, memory_bytes=0, lost_share=0.0001)
    for sample in (loss, loss, CALM, loss, loss, trifle, loss, loss):
        assert water.observe(sample) == []
    assert [mark.name for mark in water.observe(loss)] == ["kernel_drops"]
    assert [mark.is_passed for _second in range(2) for mark in water.observe(trifle)] == [False]


def standing(dropped, sending=(0, 0, 0), shed=(0, 0)):
    kinds = (MONITOR, RECORDER, PILOT)
    return Standing(
        dropped,
        dict(zip(kinds, sending, strict=True)),
        dict(zip(kinds[:2], shed, strict=True)),
    )


def test_monitors_go_first_then_recorders_never_pilots():
    policy = SheddingPolicy()
    assert policy.step(1, standing(5, (3, 2, 1))) == Step(True, MONITOR, 2)
    assert policy.step(1, standing(5, (1, 2, 1), (2, 0))) == Step(True, MONITOR, 1)
    assert policy.step(1, standing(5, (0, 2, 1), (3, 0))) == Step(True, RECORDER, 1)
    assert policy.step(1, standing(5, (0, 1, 1), (3, 1))) == Step(True, RECORDER, 1)
    assert policy.step(1, standing(5, (0, 0, 1), (3, 2))) is None


def test_they_come_back_in_reverse_after_a_calm():
    policy = SheddingPolicy()
    policy.step(1, standing(1, (1, 0, 1)))
    policy.step(1, standing(1, (0, 1, 1), (1, 0)))
    assert policy.step(1, standing(0, (0, 0, 1), (1, 1))) is None
    assert policy.step(1, standing(0, (0, 0, 1), (1, 1))) == Step(False, RECORDER, 1)
    assert policy.step(1, standing(0, (0, 1, 1), (1, 0))) == Step(False, MONITOR, 1)
    for _second in range(8):
        assert policy.step(1, standing(0, (1, 1, 1))) is None
    assert policy.watched == ()


def test_the_calm_doubles_when_it_was_too_short():
    policy = SheddingPolicy()

    def calm_seconds():
        seconds = 1
        while policy.step(1, standing(0, (0, 0, 0), (1, 0))) is None:
            seconds += 1
        return seconds

    waits = []
    for _time in range(8):
        policy.step(1, standing(1, (1, 0, 0)))
        waits.append(calm_seconds())
    assert waits == [2, 4, 8, 16, 32, 64, 64, 64]


def test_a_session_without_drops_costs_no_memory():
    policy = SheddingPolicy()
    for handle in range(1000):
        assert policy.step(handle, standing(0, (5, 5, 5))) is None
        assert policy.step(handle, standing(9, (0, 0, 5))) is None  # nobody to shed
    assert policy.watched == ()


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=200),
    st.integers(0, 50),
    st.integers(0, 50),
)
def test_nobody_is_shed_twice_or_restored_twice(drops, monitors, recorders):
    policy = SheddingPolicy()
    sending = {MONITOR: monitors, RECORDER: recorders, PILOT: 1}
    shed = {MONITOR: 0, RECORDER: 0}
    for dropped in [*drops, *([0] * 300)]:
        step = policy.step(7, Standing(dropped, dict(sending), dict(shed)))
        if step is None:
            continue
        assert step.shed == (dropped > 0)
        source, target = (sending, shed) if step.shed else (shed, sending)
        assert 1 <= step.count <= source[step.subscriber_class]
        source[step.subscriber_class] -= step.count
        target[step.subscriber_class] += step.count
        if sending[RECORDER] < recorders:
            assert sending[MONITOR] == 0 or not step.shed or step.subscriber_class is MONITOR
    assert sending == {MONITOR: monitors, RECORDER: recorders, PILOT: 1}
    assert policy.watched == ()
