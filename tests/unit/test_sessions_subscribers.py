"""Subscribers' leases, classes, caps and consent, and calls that are made once."""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING

import pytest
from managers import SECOND, SOURCE, SUBSCRIBER, Clock, deny, manager_of, send
from support import eventually, queued, udp_socket

from rtpfanout.errors import (
    AddressDeniedError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
)
from rtpfanout.model import Address, SubscriberClass
from rtpfanout.overload import Sample
from rtpfanout.sessions.admission import Admission
from rtpfanout.sessions.requests import KEPT_SECS, Requests
from rtpfanout.sessions.views import SubscriberState

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager


def addresses(manager: SessionManager, session_id: str) -> list[str]:
    return [str(view.address) for view in manager.list_subscribers(session_id)[0]]


def test_a_lease_ends_unless_it_is_renewed(manager: SessionManager, clock: Clock) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscribers(session_id, ["127.0.0.1:1", "127.0.0.1:2"], ttl_secs=10)
    manager.add_subscriber(session_id, "127.0.0.1:3")
    first, _, last = manager.list_subscribers(session_id)[0]
    assert first.expires_at is not None
    assert 10 <= (first.expires_at - first.since).total_seconds() <= 11
    assert last.expires_at is None
    clock.now += 8 * SECOND
    assert not manager.add_subscriber(session_id, "127.0.0.1:1", ttl_secs=10)
    assert manager.housekeeping.expire_subscribers() == 0
    clock.now += 4 * SECOND
    assert manager.housekeeping.expire_subscribers() == 1
    assert addresses(manager, session_id) == ["127.0.0.1:1", "127.0.0.1:3"]
    manager.add_subscriber(session_id, "127.0.0.1:1")  # without a lease again
    clock.now += 100 * SECOND
    assert manager.housekeeping.expire_subscribers() == 0
    assert (manager.total_subscribers, manager.counts["leases_expired"]) == (2, 1)


@pytest.mark.parametrize("ttl", [-1, float("nan"), float("inf"), 30 * 86_400 + 1])
def test_leases_have_bounds(manager: SessionManager, ttl: float) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    with pytest.raises(InvalidArgumentError) as error:
        manager.add_subscriber(session_id, SUBSCRIBER, ttl_secs=ttl)
    assert error.value.field == "ttl_secs"
    manager.add_subscriber(session_id, SUBSCRIBER, ttl_secs=30 * 86_400)
    manager.add_subscriber(session_id, SUBSCRIBER, ttl_secs=0.001)


def test_classes(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscriber(session_id, "127.0.0.1:1")
    manager.add_subscribers(session_id, ["127.0.0.1:2"], subscriber_class="pilot")
    manager.add_subscriber(session_id, "127.0.0.1:3", subscriber_class="recorder")
    kinds = [view.subscriber_class for view in manager.list_subscribers(session_id)[0]]
    assert kinds == [SubscriberClass.MONITOR, SubscriberClass.PILOT, SubscriberClass.RECORDER]
    assert not manager.add_subscriber(session_id, "127.0.0.1:1", subscriber_class="pilot")
    assert manager.list_subscribers(session_id)[0][0].subscriber_class == SubscriberClass.PILOT
    with pytest.raises(InvalidArgumentError) as error:
        manager.add_subscriber(session_id, SUBSCRIBER, subscriber_class="boss")
    assert error.value.field == "subscriber_class"


def test_a_cap_in_total(engine: Engine, clock: Clock) -> None:
    manager = manager_of(engine, clock, subscribers=2)
    one, two = (manager.create(SOURCE, n, "video").session_id for n in range(2))
    manager.add_subscriber(one, SUBSCRIBER)
    with pytest.raises(LimitError) as error:
        manager.add_subscribers(two, [SUBSCRIBER, "127.0.0.1:2"])
    assert (error.value.field, error.value.limit) == ("limits.max_subscribers", 2)
    manager.add_subscriber(two, SUBSCRIBER)
    assert not manager.add_subscriber(two, SUBSCRIBER)
    manager.delete(one)
    manager.add_subscriber(two, "127.0.0.1:2")


def test_a_cap_for_each_ip(engine: Engine, clock: Clock) -> None:
    manager = manager_of(engine, clock, subscribers_per_ip=2)
    one, two = (manager.create(SOURCE, n, "video").session_id for n in range(2))
    manager.add_subscriber(one, "127.0.0.1:1")
    manager.add_subscriber(two, "127.0.0.1:1", ttl_secs=5)
    for call in (
        lambda: manager.add_subscriber(two, "[::ffff:127.0.0.1]:2"),
        lambda: manager.add_subscribers(two, ["127.0.0.2:2", "127.0.0.1:2"]),
    ):
        with pytest.raises(LimitError) as error:
            call()
        assert error.value.field == "limits.max_subscribers_per_ip"
        assert "127.0.0.1" in error.value.message
    manager.add_subscribers(two, ["127.0.0.1:1", "127.0.0.2:1"])
    manager.remove_subscriber(two, "127.0.0.1:1")
    manager.add_subscriber(two, "127.0.0.1:2", ttl_secs=5)
    clock.now += 7 * SECOND
    assert manager.housekeeping.expire_subscribers() == 1
    manager.add_subscriber(two, "127.0.0.1:3")
    manager.delete(one)
    manager.delete(two)
    assert not manager._state.per_ip


def test_a_cap_for_each_ip_that_a_reload_brings(engine: Engine, clock: Clock) -> None:
    manager = manager_of(engine, clock)
    rules = manager._rules
    uncapped, capped = rules.limits, dataclasses.replace(rules.limits, subscribers_per_ip=2)
    one, two = (manager.create(SOURCE, n, "video").session_id for n in range(2))
    manager.add_subscriber(one, "127.0.0.1:1")
    manager.add_subscriber(two, "127.0.0.1:1")
    for _ in range(2):
        manager.reconfigure(rules.policy, capped)
        with pytest.raises(LimitError):
            manager.add_subscriber(two, "127.0.0.1:2")
        manager.reconfigure(rules.policy, uncapped)
        manager.remove_subscriber(one, "127.0.0.1:1")  # and nobody counts
        manager.reconfigure(rules.policy, capped)
        manager.add_subscriber(one, "127.0.0.1:1")


def test_who_was_shed_is_served_again_when_shedding_is_switched_off(
    manager: SessionManager,
) -> None:
    rules = manager._rules
    session_id = manager.create(SOURCE, 1, "video").session_id
    texts = [f"127.0.0.1:{port}" for port in (1, 2, 3)]
    manager.add_subscribers(session_id, texts, subscriber_class="monitor")
    (handle,) = manager._state.by_handle
    for _ in range(4):
        manager.housekeeping.shedding._step_of(handle, 100, 0.5, 100.0)

    def states() -> set[SubscriberState]:
        return {view.state for view in manager.list_subscribers(session_id)[0]}

    assert SubscriberState.SHED in states()
    manager.reconfigure(rules.policy, dataclasses.replace(rules.limits, shed=False))
    for _ in range(2):
        manager.housekeeping.on_sample(Sample(busy=0.0, kernel_drops=0.0, memory_bytes=0))
        assert states() == {SubscriberState.SENDING}
    assert manager.counts["shed"] == manager.counts["unshed"] > 0


def test_consent_comes_before_packets_and_lapses(
    manager: SessionManager, engine: Engine, clock: Clock
) -> None:
    with udp_socket() as source, udp_socket() as subscriber:
        address = Address.parse("{}:{}".format(*subscriber.getsockname()))
        session_id = manager.create(
            "{}:{}".format(*source.getsockname()), 1, "video", consent="echo"
        ).session_id
        manager.add_subscriber(session_id, str(address))
        assert manager.list_subscribers(session_id)[0][0].state is SubscriberState.AWAITING_CONSENT
        assert manager.signals.consent_targets(address) == [session_id]
        assert manager.signals.consent_targets(Address.parse(SUBSCRIBER)) == []

        def forwarded(count: int) -> None:
            send(source, engine, 1)
            eventually(
                lambda: manager.stats(session_id).packets_received, lambda n: n == count, "arrival"
            )

        forwarded(1)
        eventually(lambda: manager.stats(session_id).copies_withheld, lambda n: n == 1, "no copy")
        manager.signals.consent_given(session_id, address, clock.now / 1e9 + 30)
        assert manager.list_subscribers(session_id)[0][0].state is SubscriberState.SENDING
        forwarded(2)
        subscriber.recv(100)
        clock.now += 20 * SECOND
        manager.signals.consent_given(session_id, address, clock.now / 1e9 + 30)
        clock.now += 20 * SECOND
        manager.housekeeping.expire_subscribers()
        forwarded(3)
        subscriber.recv(100)
        clock.now += 11 * SECOND
        manager.housekeeping.expire_subscribers()
        forwarded(4)
        eventually(lambda: manager.stats(session_id).copies_withheld, lambda n: n == 2, "lapsed")
        assert queued(subscriber) == []
        assert manager.counts["consents_lapsed"] == 1
        manager.signals.consent_given(session_id, address, clock.now / 1e9 + 30)
        forwarded(5)
        subscriber.recv(100)
        manager.remove_subscriber(session_id, str(address))
        assert manager.signals.consent_targets(address) == []
        manager.signals.consent_given(session_id, address, clock.now / 1e9 + 30)


def test_consent_can_be_asked_for_later(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    address = Address.parse(SUBSCRIBER)
    manager.add_subscriber(session_id, SUBSCRIBER)
    assert manager.signals.consent_targets(address) == []
    manager.update(session_id, consent="echo")
    assert manager.list_subscribers(session_id)[0][0].state is SubscriberState.AWAITING_CONSENT
    assert manager.signals.consent_targets(address) == [session_id]
    manager.update(session_id, consent="none")
    assert manager.list_subscribers(session_id)[0][0].state is SubscriberState.SENDING
    manager.update(session_id, consent="echo")
    manager.delete(session_id)
    assert manager.signals.consent_targets(address) == []


def test_joining_consents_and_follows_a_port_change(manager: SessionManager, clock: Clock) -> None:
    session_id = manager.create(SOURCE, 1, "video", consent="echo", max_subscribers=1).session_id
    one, two = Address.parse("127.0.0.1:1"), Address.parse("127.0.0.1:2")
    manager.signals.join(session_id, one, lease_secs=10, subscriber_class="pilot")
    (view,) = manager.list_subscribers(session_id)[0]
    assert (view.state, view.subscriber_class) == (SubscriberState.SENDING, SubscriberClass.PILOT)
    manager.signals.join(session_id, two, lease_secs=10, subscriber_class="pilot", previous=one)
    assert addresses(manager, session_id) == ["127.0.0.1:2"]
    with pytest.raises(LimitError):
        manager.signals.join(session_id, one, lease_secs=10, subscriber_class="")
    clock.now += 8 * SECOND
    manager.signals.join(session_id, two, lease_secs=10, subscriber_class="pilot", previous=one)
    clock.now += 8 * SECOND
    assert manager.housekeeping.expire_subscribers() == 0
    (view,) = manager.list_subscribers(session_id)[0]
    assert view.state is SubscriberState.SENDING
    clock.now += 3 * SECOND
    assert manager.housekeeping.expire_subscribers() == 1
    with pytest.raises(AddressDeniedError):
        manager.signals.join(
            session_id, manager._rules.policy.ingress, lease_secs=10, subscriber_class=""
        )


def test_subscribers_that_become_our_own_ingress_get_nothing_meanwhile(
    engine: Engine, clock: Clock
) -> None:
    manager = manager_of(engine, clock)
    port = engine.bound.port
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscribers(
        session_id, [f"192.0.2.77:{port}", f"192.0.2.77:{port + 1}", SUBSCRIBER]
    )
    policy = manager._rules.policy
    wildcard = Address.parse(f"0.0.0.0:{port}")
    there = {Address.parse("127.0.0.1:1").ip: 1}
    object.__setattr__(policy, "ingress", wildcard)
    object.__setattr__(policy, "is_local", lambda ip: ip in there)
    assert manager.housekeeping.on_local_addresses(there) == 0
    there[Address.parse("192.0.2.77:1").ip] = 2
    assert manager.housekeeping.on_local_addresses(there) == 1
    states = [view.state for view in manager.list_subscribers(session_id)[0]]
    assert states == [SubscriberState.REFUSED, SubscriberState.SENDING, SubscriberState.SENDING]
    assert manager.counts["loops_withheld"] == 1
    assert manager.housekeeping.on_local_addresses(there) == 0
    with pytest.raises(AddressDeniedError):
        manager.add_subscriber(session_id, f"192.0.2.77:{port}")
    del there[Address.parse("192.0.2.77:1").ip]
    assert manager.housekeeping.on_local_addresses(there) == 0
    assert {view.state for view in manager.list_subscribers(session_id)[0]} == {
        SubscriberState.SENDING
    }


def test_a_policy_that_changes_while_somebody_is_added_is_the_one_that_counts(
    manager: SessionManager,
) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id

    class Overtaken(Admission):
        def record(self, text: str) -> bytes:
            record = super().record(text)
            deny(manager, "127.0.1.0/24")
            manager.housekeeping.judge_policy()
            return record

    manager._rules.admission = Overtaken(manager._rules.policy)
    with pytest.raises(AddressDeniedError):
        manager.add_subscriber(session_id, "127.0.1.9:7000")
    assert addresses(manager, session_id) == []
    manager._rules.admission = Overtaken(manager._rules.policy)
    manager.add_subscriber(session_id, "127.0.0.9:7000")


def test_a_call_with_an_id_is_carried_out_once(manager: SessionManager, clock: Clock) -> None:
    view = manager.create(SOURCE, 1, "video", labels={"a": "b"}, request_id="c1")
    assert manager.create(SOURCE, 1, "video", labels={"a": "b"}, request_id="c1") == view
    assert manager.counts["created"] == 1
    session_id = view.session_id
    for _ in range(2):
        assert manager.add_subscriber(session_id, SUBSCRIBER, request_id="a1")
        assert manager.add_subscribers(session_id, ["127.0.0.1:1"], request_id="b1") == 1
        updated = manager.update(
            session_id, labels={"c": "d"}, if_revision=view.revision, request_id="u1"
        )
        assert updated.labels == {"a": "b", "c": "d"}
        gone = manager.remove_subscribers(
            session_id, ["127.0.0.1:1", "127.0.0.1:2"], request_id="r1"
        )
        assert gone == ["127.0.0.1:2"]
        manager.remove_subscriber(session_id, SUBSCRIBER, request_id="r2")
    for _ in range(2):
        manager.delete(session_id, request_id="d1")
    assert manager.counts["deleted"] == 1
    for call in (
        lambda: manager.create(SOURCE, 2, "video", labels={"a": "b"}, request_id="c1"),
        lambda: manager.add_subscriber(session_id, SUBSCRIBER, ttl_secs=1, request_id="a1"),
        lambda: manager.remove_subscriber(session_id, SUBSCRIBER, request_id="a1"),
        lambda: manager.delete(session_id, request_id="c1"),
    ):
        with pytest.raises(InvalidArgumentError) as error:
            call()
        assert error.value.field == "request_id"
    clock.now += round(KEPT_SECS * SECOND) + 1
    with pytest.raises(NotFoundError):
        manager.delete(session_id, request_id="d1")


def test_a_call_that_failed_is_carried_out_again(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    with pytest.raises(NotFoundError):
        manager.remove_subscriber(session_id, SUBSCRIBER, request_id="x")
    manager.add_subscriber(session_id, SUBSCRIBER)
    manager.remove_subscriber(session_id, SUBSCRIBER, request_id="x")
    assert manager.remove_subscribers(session_id, [SUBSCRIBER], request_id="y") == [SUBSCRIBER]
    manager.add_subscriber(session_id, SUBSCRIBER)
    assert manager.remove_subscribers(session_id, [SUBSCRIBER], request_id="y") == [SUBSCRIBER]
    assert manager.total_subscribers == 1


def test_the_second_of_two_calls_at_once_waits_for_the_first() -> None:
    requests = Requests(lambda: 0.0)
    inside, go_on = threading.Event(), threading.Event()
    answers: list[str | None] = []

    def first() -> None:
        with requests.once("M", "id", a=1) as once:
            inside.set()
            assert go_on.wait(30)
            once.answer("done")

    def second() -> None:
        with requests.once("M", "id", a=1) as once:
            answers.append(once.earlier)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(30)
    with pytest.raises(InvalidArgumentError), requests.once("M", "id", a=2):
        pass
    threads[1].start()
    threads[1].join(0.1)
    assert answers == []
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert answers == ["done"]


def test_answers_are_bounded() -> None:
    requests = Requests(lambda: 0.0, kept=3)
    for n in range(5):
        with requests.once("M", f"id{n}", a=n) as once:
            once.answer(str(n))
    for n, earlier in enumerate([None, None, "2", "3", "4"]):
        if earlier is not None:
            with requests.once("M", f"id{n}", a=n) as once:
                assert once.earlier == earlier
    assert len(requests._answers) == 3
