"""High-water marks and shedding: who is refused, who is shed, and who comes back when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.errors import UnavailableError
from rtpfanout.model import SubscriberClass
from rtpfanout.overload import (
    HighWater,
    Load,
    OverloadLimits,
    Sample,
    SheddingPolicy,
    Standing,
    Step,
)

MONITOR, RECORDER, PILOT = (
    SubscriberClass.MONITOR,
    SubscriberClass.RECORDER,
    SubscriberClass.PILOT,
)
CALM = Sample(busy=0.1, kernel_drops=0, memory_bytes=0)


def busy(share):
    return Sample(busy=share, kernel_drops=0, memory_bytes=0)


def test_a_passed_mark_refuses_with_a_time_to_retry():
    water = HighWater(OverloadLimits(busy=0.9))
    water.observe(busy(0.9))
    water.observe(busy(0.9))
    water.admit()  # a second or two of work is no overload
    assert [mark.name for mark in water.observe(busy(0.9))] == ["busy"]
    with pytest.raises(UnavailableError, match=r"overloaded \(busy\).*another server") as refused:
        water.admit()
    assert refused.value.retry_after > 0
    assert water.refused_total == 1


def test_the_way_back_is_below_the_low_mark_and_takes_two_samples():
    water = HighWater(OverloadLimits(busy=0.9, low_share=0.8))
    for _second in range(3):
        water.observe(busy(1.0))
    assert water.observe(busy(0.73)) == []  # between the marks: still passed
    assert water.observe(busy(0.7)) == []
    assert water.observe(busy(0.73)) == []  # begins anew
    assert water.observe(busy(0.7)) == []
    assert [mark.is_passed for mark in water.observe(busy(0.7))] == [False]
    water.admit()


def test_every_measure_has_its_mark_and_0_is_none():
    limits = OverloadLimits(busy=0, kernel_drops=10, memory_bytes=100)
    water = HighWater(limits)
    for _second in range(3):
        water.observe(Sample(busy=1, kernel_drops=10, memory_bytes=100))
    assert water.passed == ("kernel_drops", "memory")


def test_a_second_of_loss_or_a_trifle_refuses_nobody():
    water = HighWater(OverloadLimits(kernel_drops=1))
    loss = Sample(busy=0, kernel_drops=500, memory_bytes=0, lost_share=0.3)
    trifle = Sample(busy=0, kernel_drops=5, memory_bytes=0, lost_share=0.0001)
    for sample in (loss, loss, CALM, loss, loss, trifle, loss, loss):
        assert water.observe(sample) == []
    assert [mark.name for mark in water.observe(loss)] == ["kernel_drops"]
    assert [mark.is_passed for _second in range(2) for mark in water.observe(trifle)] == [False]


IDLE = Load(busy=0.0, copy_seconds=1e-9)


def standing(share, sending=(0, 0, 0), shed=(0, 0), rate=100.0):
    kinds = (MONITOR, RECORDER, PILOT)
    return Standing(
        dropped=round(1000 * share),
        dropped_share=share,
        packets_per_second=rate,
        sending=dict(zip(kinds, sending, strict=True)),
        shed=dict(zip(kinds[:2], shed, strict=True)),
    )


def until_a_step(policy, now, load=IDLE):
    """The first steps, and how many samples they took."""
    for samples in range(1, 200):
        policy.begin(load)
        if steps := policy.steps(1, now):
            return steps, samples
    pytest.fail("no step")


def test_monitors_go_first_then_recorders_never_pilots():
    policy = SheddingPolicy()
    for now, step in (
        (standing(0.5, (3, 2, 1)), Step(True, MONITOR, 2)),
        (standing(0.5, (1, 2, 1), (2, 0)), Step(True, MONITOR, 1)),
        (standing(0.5, (0, 2, 1), (3, 0)), Step(True, RECORDER, 1)),
        (standing(0.5, (0, 1, 1), (3, 1)), Step(True, RECORDER, 1)),
    ):
        assert until_a_step(policy, now)[0] == [step]
    assert all(not policy.steps(1, standing(0.5, (0, 0, 1), (3, 2))) for _second in range(20))


def test_what_does_not_last_sheds_nobody():
    """Up to three samples in five, and a trifle for ever."""
    policy = SheddingPolicy()
    for pattern in ([0.9, 0.9, 0.9, 0, 0], [0.9, 0, 0.9, 0, 0.9, 0], [0.019] * 5, [0.9, 0.019]):
        for _time in range(20):
            for share in pattern:
                policy.begin(IDLE)
                assert policy.steps(1, standing(share, (9, 9, 9))) == []
    assert until_a_step(policy, standing(0.02, (9, 9, 9)))[1] <= 4


def test_a_step_is_given_time_to_tell():
    policy = SheddingPolicy()
    assert until_a_step(policy, standing(0.5, (8, 0, 0)))[1] == 4
    assert until_a_step(policy, standing(0.5, (4, 0, 0), (4, 0)))[1] == 2


def test_all_come_back_at_once_when_there_is_room():
    policy = SheddingPolicy()
    until_a_step(policy, standing(0.5, (8, 4, 1)))
    policy.begin(Load(busy=0.1, copy_seconds=1e-6))
    assert policy.steps(1, standing(0, (0, 0, 1), (8, 4), rate=1000)) == [
        Step(False, RECORDER, 4),
        Step(False, MONITOR, 8),
    ]


def test_no_more_come_back_than_there_is_room_for():
    """0.3 s a second are left, and each of them takes 0.1; two sessions share it."""
    policy = SheddingPolicy()
    for handle in (1, 2):
        for _second in range(4):
            policy.steps(handle, standing(0.5, (8, 4, 1)))
    policy.begin(Load(busy=0.48, copy_seconds=1e-4))
    now = standing(0, (0, 0, 1), (8, 4), rate=1000)
    assert policy.steps(1, now) == [Step(False, RECORDER, 3)]
    assert policy.steps(2, now) == []
    policy.begin(Load(busy=0.9, copy_seconds=1e-4))
    assert policy.steps(1, now) == []


def test_without_packets_all_come_back_and_without_copies_half_try():
    policy = SheddingPolicy()
    until_a_step(policy, standing(0.5, (8, 0, 0)))
    policy.begin(Load(busy=0.1, copy_seconds=0))
    assert policy.steps(1, standing(0, (0, 0, 0), (8, 0))) == [Step(False, MONITOR, 4)]
    policy.begin(Load(busy=1.0, copy_seconds=1e-3))
    assert policy.steps(1, standing(0, (4, 0, 0), (4, 0), rate=0)) == [Step(False, MONITOR, 4)]


def test_the_calm_doubles_when_it_was_too_short():
    policy = SheddingPolicy()
    waits = []
    for _time in range(9):
        until_a_step(policy, standing(0.5, (2, 0, 0)))
        waits.append(until_a_step(policy, standing(0, (0, 0, 0), (1, 0)))[1])
    assert waits == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_a_session_without_drops_costs_no_memory():
    policy = SheddingPolicy()
    for handle in range(1000):
        assert policy.steps(handle, standing(0, (5, 5, 5))) == []
        assert policy.steps(handle, standing(0.9, (0, 0, 5))) == []  # nobody to shed
    for _second in range(5):
        for handle in range(1000):
            policy.steps(handle, standing(0, (0, 0, 5)))
    assert policy.watched == ()


@given(
    st.lists(st.sampled_from([0, 0, 0.01, 0.3, 0.9]), min_size=1, max_size=200),
    st.lists(st.floats(0, 1), min_size=1, max_size=5),
    st.integers(0, 50),
    st.integers(0, 50),
)
def test_nobody_is_shed_twice_or_restored_twice(shares, loads, monitors, recorders):
    policy = SheddingPolicy()
    sending = {MONITOR: monitors, RECORDER: recorders, PILOT: 1}
    shed = {MONITOR: 0, RECORDER: 0}
    for second, share in enumerate([*shares, *([0] * 300)]):
        busy = loads[second % len(loads)] if second < len(shares) else 0.0
        policy.begin(Load(busy, 1e-5))
        now = Standing(round(1000 * share), share, 100.0, dict(sending), dict(shed))
        for step in policy.steps(7, now):
            assert step.shed == (share > 0)
            source, target = (sending, shed) if step.shed else (shed, sending)
            assert 1 <= step.count <= source[step.subscriber_class]
            source[step.subscriber_class] -= step.count
            target[step.subscriber_class] += step.count
            if step.shed and step.subscriber_class is RECORDER:
                assert sending[MONITOR] == 0
    assert sending == {MONITOR: monitors, RECORDER: recorders, PILOT: 1}
    assert policy.watched == ()


class Model:
    """A server in virtual time: one session, a queue, and the packet path's rule of fair.c.

    It sends `capacity` copies a second; once packets have waited for a second, it drops what
    would stay longer than TARGET in the queue, until two seconds went by without. Housekeeping
    asks the policy each second.
    """

    STEP, TARGET = 0.1, 0.05

    def __init__(self, capacity, monitors, pilots):
        self.capacity, self.monitors, self.pilots = capacity, monitors, pilots
        self.policy = SheddingPolicy()
        self.shed, self.steps, self.lost, self.withheld = 0, [], 0.0, 0.0
        self.backlog, self.standing, self.calm, self.limits = 0.0, 0, 0, False

    def second(self, rate):
        """`rate` packets come in; how many were dropped."""
        dropped = forwarded = worked = copies = 0.0
        for _part in range(10):
            came, subscribers = rate * self.STEP, self.monitors - self.shed + self.pilots
            room = (self.capacity * (self.STEP + self.TARGET) - self.backlog) / subscribers
            drops = max(0.0, came - max(0.0, room)) if self.limits else 0.0
            self.backlog += (came - drops) * subscribers
            done = min(self.backlog, self.capacity * self.STEP)
            self.backlog -= done
            self.standing = self.standing + 1 if self.backlog > self.capacity * self.TARGET else 0
            self.calm = self.calm + 1 if drops == 0 and not self.standing else 0
            self.limits = (self.limits or self.standing >= 10) and self.calm < 20
            dropped, forwarded = dropped + drops, forwarded + came - drops
            copies, worked = copies + done, worked + done / self.capacity
            self.withheld += (came - drops) * self.shed
            self.lost += drops * subscribers
        self._housekeep(dropped, forwarded, worked, copies)
        return dropped

    def _housekeep(self, dropped, forwarded, worked, copies):
        self.policy.begin(Load(min(1.0, worked), worked / copies if copies else 0.0))
        now = Standing(
            dropped=round(dropped),
            dropped_share=dropped / max(1.0, dropped + forwarded),
            packets_per_second=forwarded,
            sending={MONITOR: self.monitors - self.shed, PILOT: self.pilots},
            shed={MONITOR: self.shed},
        )
        for step in self.policy.steps(1, now):
            self.shed += step.count if step.shed else -step.count
            self.steps.append(step)


monitors_and_pilots = st.tuples(st.integers(2, 1000), st.integers(1, 20))
calm_shares = st.floats(0.01, 0.7)


@given(monitors_and_pilots, calm_shares, st.floats(1, 4), st.integers(1, 2), st.integers(4, 30))
def test_a_hiccup_sheds_nobody(subscribers, calm, peak, burst, pause):
    """One or two seconds of up to four times what can be sent, again and again: it is over when
    somebody could be shed."""
    monitors, pilots = subscribers
    rate = 1000.0
    model = Model(rate * (monitors + pilots), monitors, pilots)
    for _time in range(5):
        for _second in range(burst):
            model.second(rate * peak)
        for _second in range(pause + int(burst * peak / (1 - calm))):
            model.second(rate * calm)
    assert model.steps == []
    assert model.withheld == 0


@given(monitors_and_pilots, calm_shares, st.floats(1.1, 10), st.integers(30, 200))
def test_a_lasting_overload_sheds_until_it_fits_and_no_longer(subscribers, calm, peak, seconds):
    monitors, pilots = subscribers
    rate = 1000.0
    model = Model(rate * (monitors + pilots), monitors, pilots)
    dropped = [model.second(rate * peak) for _second in range(seconds)]
    fits = pilots * peak < monitors + pilots
    if fits and seconds > 100:
        assert sum(dropped[100:]) <= 0.1 * sum(dropped[:100]) + 0.02 * rate * peak * seconds
    assert sum(step.shed for step in model.steps) <= 30  # it doesn't swing
    shed = model.shed
    after = 0
    while model.shed:  # what is over is over
        after += 1
        assert after <= 8, (shed, model.steps[-5:])
        model.second(rate * calm)
    assert all(model.second(rate * calm) == 0 for _second in range(10))
