"""What is told as an event of which change, and who sees it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from consents_scene import asking, give
from managers import SECOND, SOURCE, SUBSCRIBER, Clock, deny, manager_of, send
from support import address_of, eventually, rtp_packet, target, udp_socket

from rtpfanout.convert import session_response
from rtpfanout.errors import InvalidArgumentError, RtpFanoutError
from rtpfanout.model import Address, SubscriberClass
from rtpfanout.overload import OverloadLimits, Sample, Step
from rtpfanout.sessions import EventKind, Wanted

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager


def told(manager: SessionManager, after: int) -> list[tuple[str, str, str]]:
    """Kind, subscriber or how many, and detail."""
    return [
        (str(e.kind), e.subscriber_address or (str(e.count) if e.count > 1 else ""), e.detail)
        for e in manager.events.after(after).events
    ]


def test_a_life_in_lines(manager: SessionManager) -> None:
    at = manager.events.position
    session = manager.create(SOURCE, 7, "video", name="a/b", labels={"x": "y"})
    manager.add_subscriber("a/b", SUBSCRIBER, subscriber_class="pilot")
    manager.add_subscriber("a/b", SUBSCRIBER)  # no news
    manager.add_subscribers("a/b", [SUBSCRIBER, "127.0.0.1:6001", "127.0.0.1:6002"])
    manager.update("a/b", paused=True)
    manager.update("a/b", paused=False, max_subscribers=3, name="c")
    manager.update("c", source_address="192.0.2.9:5000")
    manager.update("c", source_address="192.0.2.9:5000")  # nor this
    manager.remove_subscriber("c", SUBSCRIBER)
    manager.remove_subscribers("c", [SUBSCRIBER, "127.0.0.1:6001"])
    manager.delete("c")
    assert told(manager, at) == [
        ("created", "", SOURCE),
        ("subscriber_joined", SUBSCRIBER, "pilot"),
        ("subscriber_joined", "2", "monitor"),
        ("paused", "", ""),
        ("updated", "", "max_subscribers, name"),
        ("resumed", "", ""),
        ("moved", "", f"{SOURCE} -> 192.0.2.9:5000"),
        ("subscriber_left", SUBSCRIBER, ""),
        ("subscriber_left", "127.0.0.1:6001", ""),
        ("deleted", "", "1 subscriber"),
    ]
    events = manager.events.after(at).events
    assert [e.sequence for e in events] == list(range(at + 1, at + 11))
    assert {e.session_id for e in events} == {session.session_id}
    assert [e.name for e in events] == ["a/b"] * 4 + ["c"] * 6
    assert events[0].as_dict() == {
        "sequence": at + 1,
        "kind": "created",
        "time": "2026-01-02T03:04:05.678901Z",
        "session_id": session.session_id,
        "session_name": "a/b",
        "labels": {"x": "y"},
        "subscriber_address": "",
        "count": 1,
        "detail": SOURCE,
    }


def test_where_it_was_is_not_told_to_whom_it_is_new(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 7, "video", labels={"x": "y"}).session_id
    at = manager.events.position
    manager.update(session_id, labels={"x": "z"}, source_address="192.0.2.9:5000")
    theirs = Wanted.of("x=z", "", ())
    seen = [e for each in manager.events.after(at).events if (e := each.to(theirs))]
    assert [(str(e.kind), e.detail) for e in seen] == [("created", ""), ("moved", "192.0.2.9:5000")]


def test_what_fails_is_no_event(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 7, "video").session_id
    at = manager.events.position
    for call in (
        lambda: manager.create(SOURCE, 7, "video"),
        lambda: manager.add_subscriber(session_id, SOURCE),
        lambda: manager.remove_subscriber(session_id, SUBSCRIBER),
        lambda: manager.update(session_id, name="not a name"),
    ):
        with pytest.raises(RtpFanoutError):
            call()
    assert told(manager, at) == []


def test_how_a_source_fares(manager: SessionManager, clock: Clock) -> None:
    look = manager.housekeeping.tell_conditions
    with udp_socket() as source:
        clock.now = time.monotonic_ns()
        session_id = manager.create(address_of(source), 7, "video").session_id
        at = manager.events.position

        def feed() -> None:
            received = manager.stats(session_id).packets_received
            send(source, manager._engine, 7)
            eventually(
                lambda: manager.stats(session_id).packets_received,
                lambda n: n > received,
                "a packet",
            )
            clock.now = time.monotonic_ns()

        feed()
        look()
        clock.now += 2 * SECOND
        look()
        silent = clock.now
        clock.now += 4 * SECOND
        look()  # idle: it is silent all the same
        feed()
        clock.now = max(clock.now, silent + 5 * SECOND)
        look()
    kinds = told(manager, at)
    assert kinds[:2] == [("flowing", "", "the first packet"), ("silent", "", "")]
    if len(kinds) > 2:  # the packet is older than this clock says
        assert kinds[2][0] == "back"


def test_a_source_that_starts_anew(manager: SessionManager, clock: Clock) -> None:
    """It chose other numbers, while nobody looked."""
    with udp_socket() as source:
        session_id = manager.create(address_of(source), 7, "video").session_id
        at = manager.events.position
        for first in (100, 30_000, 9_000):
            for number in range(first, first + 5):
                packet = rtp_packet(7, number)
                source.sendto(packet, target(manager._engine.bound))
        eventually(
            lambda: manager.stats(session_id).packets_received, lambda n: n == 15, "all came"
        )
        clock.now = time.monotonic_ns()
        for _ in range(2):
            manager.housekeeping.tell_conditions()
    assert told(manager, at) == [("restarted", "2", ""), ("flowing", "", "the first packet")]


def test_leases_consents_and_refusals(manager: SessionManager, clock: Clock) -> None:
    session_id = manager.create(SOURCE, 7, "video").session_id
    at = manager.events.position
    manager.add_subscribers(session_id, [SUBSCRIBER, "127.0.0.1:6001"], ttl_secs=1)
    clock.now += 3 * SECOND
    manager.housekeeping.expire_subscribers()
    manager.add_subscriber(session_id, "192.0.2.8:7000")
    deny(manager, "192.0.2.0/24")
    manager.housekeeping.judge_policy()
    deny(manager, "198.51.100.0/24")
    manager.housekeeping.judge_policy()
    found = told(manager, at)
    assert [each[:2] for each in found] == [
        ("subscriber_joined", "2"),
        ("subscriber_expired", "2"),
        ("subscriber_joined", "192.0.2.8:7000"),
        ("subscriber_refused", "192.0.2.8:7000"),
        ("subscriber_back", "192.0.2.8:7000"),
    ]
    assert "address_policy.deny" in found[3][2]


def test_consent_that_ends_and_comes_back(manager: SessionManager, clock: Clock) -> None:
    session_id = asking(manager, SUBSCRIBER)
    at = manager.events.position
    give(manager, session_id, SUBSCRIBER, clock, 5)  # the first is what joining means
    clock.now += 7 * SECOND
    manager.housekeeping.expire_subscribers()
    give(manager, session_id, SUBSCRIBER, clock, 5)
    assert told(manager, at) == [
        ("subscriber_lapsed", SUBSCRIBER, ""),
        ("subscriber_back", SUBSCRIBER, ""),
    ]


def test_idle_sessions_expire(manager: SessionManager, clock: Clock) -> None:
    manager.create(SOURCE, 7, "video")
    at = manager.events.position
    clock.now += 31 * SECOND
    manager.housekeeping.expire_idle()
    assert told(manager, at) == [("expired", "", "")]


def test_a_latch_is_pinned_and_moves(manager: SessionManager, clock: Clock) -> None:
    session = manager.create("", 7, "video", source_policy="latch", relatch_after_secs=1)
    handle = manager._state.by_id[session.session_id].handle
    at = manager.events.position
    assert manager.signals.on_source_notice(handle, Address.parse("192.0.2.1:1"))
    clock.now += 2 * SECOND
    assert manager.signals.on_source_notice(handle, Address.parse("192.0.2.2:2"))
    assert told(manager, at) == [
        ("pinned", "", "192.0.2.1:1"),
        ("moved", "", "192.0.2.1:1 -> 192.0.2.2:2"),
    ]


def test_a_latch_that_nobody_meets(manager: SessionManager, clock: Clock) -> None:
    """The end of its wait is told once: an event, a change for watchers, a count."""
    view = manager.create("", 7, "video", name="late", source_policy="latch", latch_window_secs=5)
    met = manager.create("192.0.2.1", 8, "video", source_policy="latch", latch_window_secs=5)
    deleted = manager.create("192.0.2.2", 9, "video", source_policy="latch", latch_window_secs=5)
    manager.delete(deleted.session_id)
    handle = manager._state.by_id[met.session_id].handle
    assert manager.signals.on_source_notice(handle, Address.parse("192.0.2.1:1"))
    look, at = manager.housekeeping.tell_latches, manager.events.position
    revision = manager.changes.revision
    clock.now += 4 * SECOND
    assert look() == 0
    clock.now += 2 * SECOND
    assert (look(), look()) == (1, 0)
    again = "rtpfanout session update late --latch-window 60"
    assert told(manager, at) == [("latch_over", "", again)]
    (change,) = manager.changes.after(revision)[0]
    assert (change.cause, change.view.session_id) == ("latch", view.session_id)
    assert manager.counts["latch_over"] == 1
    until = session_response(manager.get("late")).latch_until
    assert datetime.fromisoformat(until) == datetime.fromtimestamp(
        view.created_at.timestamp() + 5, UTC
    )
    assert session_response(manager.get(met.session_id)).latch_until == ""
    manager.update("late", latch_window_secs=7)
    clock.now += 8 * SECOND
    assert look() == 1


def test_overload_and_shedding(engine: Engine, clock: Clock) -> None:
    manager = manager_of(engine, clock, overload=OverloadLimits(busy=0.9))
    session_id = manager.create(SOURCE, 7, "video").session_id
    manager.add_subscribers(session_id, [SUBSCRIBER, "127.0.0.1:6001"])
    at = manager.events.position
    busy, calm = Sample(1.0, 0.0, 0.0), Sample(0.0, 0.0, 0.0)
    for sample in (*[busy] * 5, *[calm] * 5):
        manager.housekeeping.on_sample(sample)
    shedding = manager.housekeeping.shedding
    handle = manager._state.by_id[session_id].handle
    monitor = SubscriberClass.MONITOR
    for shed, count in ((True, 2), (False, 1)):
        step = Step(shed=shed, subscriber_class=monitor, count=count)
        shedding._carry_out(handle, step, *shedding._members(handle))
    assert told(manager, at) == [
        ("overload", "", "busy"),
        ("overload_over", "", "busy"),
        ("subscriber_shed", "2", "monitor"),
        ("subscriber_back", SUBSCRIBER, "monitor"),
    ]


def test_who_sees_what(manager: SessionManager) -> None:
    """A session that gets another label is gone for those of the one, and new to the other."""
    at = manager.events.position
    manager.create(SOURCE, 7, "video", name="one", labels={"v": "a"})
    manager.update("one", labels={"v": "b"}, name="two", paused=True)
    manager.add_subscriber("two", SUBSCRIBER)
    manager.events.tell(EventKind.OVERLOAD, detail="busy")

    def seen(wanted: Wanted) -> list[tuple[str, str, dict[str, str]]]:
        shown = (event.to(wanted) for event in manager.events.after(at).events)
        return [(str(e.kind), e.name, dict(e.labels)) for e in shown if e]

    assert seen(Wanted.of("v=a", "", ())) == [
        ("created", "one", {"v": "a"}), ("deleted", "one", {"v": "a"}),
    ]  # fmt: skip
    assert [each[:2] for each in seen(Wanted.of("v=b", "", ()))] == [
        ("created", "two"), ("paused", "two"), ("subscriber_joined", "two"),
    ]  # fmt: skip
    assert seen(Wanted.of("v=c", "", ())) == []
    assert [each[0] for each in seen(Wanted())] == [
        "created", "updated", "paused", "subscriber_joined", "overload",
    ]  # fmt: skip
    assert [each[0] for each in seen(Wanted.of("", "", ("paused", "overload")))] == [
        "paused", "overload",
    ]  # fmt: skip
    assert [each[0] for each in seen(Wanted.of("", "one", ()))] == ["created"]
    session_id = manager.get("two").session_id
    assert len(seen(Wanted.of("", session_id.upper(), ()))) == 4


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(("x", "", ()), "label_selector"), (("", "no name", ()), "session"),
     (("", "", ("silent", "slient")), "kinds")],
)  # fmt: skip
def test_what_can_be_asked_for(arguments: tuple[str, str, tuple[str, ...]], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        Wanted.of(*arguments)
    assert error.value.field == field
