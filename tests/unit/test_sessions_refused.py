"""What the configuration refuses is kept: without a packet, told with its reason, served later."""

from __future__ import annotations

import dataclasses
import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from managers import SECOND, SUBSCRIBER, Clock, deny, engine_of, manager_of

from rtpfanout._fastpath import Engine
from rtpfanout.errors import (
    AddressDeniedError,
    AlreadyExistsError,
    LimitError,
    NotFoundError,
    RefusedError,
)
from rtpfanout.model import Address
from rtpfanout.sessions.views import SubscriberState
from rtpfanout.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rtpfanout.sessions import SessionManager

REFUSED, SENDING = SubscriberState.REFUSED, SubscriberState.SENDING
DENIED = ["10.0.0.1:1", "10.0.0.2:2"]
NOBODY = "198.51.100.0/24"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


@contextmanager
def started(
    path: str, clock: Clock, denied: str = NOBODY, **limits: Any
) -> Iterator[SessionManager]:
    values = {"sessions": 50, "fanout": 5} | limits
    sizes = {name: values[name] for name in ("sessions", "fanout")}
    with Store(path) as store, engine_of(**sizes) as engine:
        manager = manager_of(engine, clock, store, **values)
        deny(manager, denied)
        manager.restore()
        yield manager


def create(manager: SessionManager, ssrc: int = 1, **more: Any) -> str:
    return manager.create(f"192.0.2.{ssrc}:5000", ssrc, "video", **more).session_id


def states(manager: SessionManager, session_id: str) -> dict[str, SubscriberState]:
    views, _ = manager.list_subscribers(session_id, 1000)
    for view in views:
        assert bool(view.refused_reason) == (view.state is REFUSED)
    return {str(view.address): view.state for view in views}


def numbers(path: str) -> tuple[int, int]:
    """Sessions and subscribers in the store."""
    with closing(sqlite3.connect(path)) as database:
        (sessions,) = database.execute("SELECT count(*) FROM session").fetchone()
        (subscribers,) = database.execute("SELECT count(*) FROM subscriber").fetchone()
    return sessions, subscribers


def test_who_is_denied_is_kept_with_lease_class_and_place(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        session_id = create(manager)
        texts = [*DENIED, SUBSCRIBER]
        manager.add_subscribers(session_id, texts, ttl_secs=60, subscriber_class="pilot")
        (first, *_), _ = manager.list_subscribers(session_id)
    with started(path, clock, "10.0.0.0/8") as manager:
        assert states(manager, session_id) == dict.fromkeys(DENIED, REFUSED) | {SUBSCRIBER: SENDING}
        views = {str(view.address): view for view in manager.list_subscribers(session_id)[0]}
        found = views[DENIED[0]]
        assert "address_policy.deny" in found.refused_reason
        assert (found.expires_at, found.subscriber_class) == (first.expires_at, "pilot")
        assert (manager.total_subscribers, manager.refused) == (3, (0, 2))
        with pytest.raises(AddressDeniedError):  # it is not to be renewed
            manager.add_subscriber(session_id, DENIED[0], ttl_secs=600)
        manager.add_subscribers(session_id, ["127.0.0.1:7", "127.0.0.1:8"])
        with pytest.raises(LimitError):  # they hold their places
            manager.add_subscriber(session_id, "127.0.0.1:9")
        deny(manager, NOBODY)
        assert manager.housekeeping.judge_policy() == 0
        assert set(states(manager, session_id).values()) == {SENDING}
        assert manager.refused == (0, 0)
        assert manager.counts["readmitted"] == 2
        deny(manager, "10.0.0.0/8")
        assert manager.housekeeping.judge_policy() == 2
        clock.now += 62 * SECOND  # leases go on running
        assert manager.housekeeping.expire_subscribers() == 3
        assert (manager.total_subscribers, manager.refused) == (2, (0, 0))


def test_who_is_denied_can_be_removed(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        session_id = create(manager)
        manager.add_subscribers(session_id, [*DENIED, SUBSCRIBER])
        deny(manager, "10.0.0.0/8")
        assert manager.housekeeping.judge_policy() == 2
        manager.remove_subscriber(session_id, DENIED[0])
        assert states(manager, session_id) == {DENIED[1]: REFUSED, SUBSCRIBER: SENDING}
        assert manager.get(session_id).refused_subscribers == 1
        manager.delete(session_id)
        assert (manager.total_subscribers, manager.refused) == (0, (0, 0))
    assert numbers(path) == (0, 0)


def test_what_is_of_the_wrong_family_is_kept(path: str, clock: Clock) -> None:
    """An IPv6 subscriber, by a server that was bound to all and is bound to IPv4 now."""
    six = "[2001:db8::1]:6000"
    with Store(path) as store:
        both = Engine(
            Address.parse("[::]:0"), max_sessions=9, max_subscribers=9, receive_queue_packets=64
        )
        manager = manager_of(both, clock, store, sessions=9, fanout=9)
        session_id = create(manager)
        manager.add_subscribers(session_id, [six, SUBSCRIBER])
    with started(path, clock) as manager:
        assert states(manager, session_id) == {six: REFUSED, SUBSCRIBER: SENDING}
        manager.housekeeping.judge_policy()
        assert states(manager, session_id) == {six: REFUSED, SUBSCRIBER: SENDING}
        manager.remove_subscriber(session_id, six)
        assert states(manager, session_id) == {SUBSCRIBER: SENDING}


def test_lowered_limits_withhold_and_room_serves(path: str, clock: Clock) -> None:
    texts = [f"127.0.0.{n}:6000" for n in range(1, 6)]
    with started(path, clock) as manager:
        session_id = create(manager)
        for text in texts:
            manager.add_subscriber(session_id, text)
            clock.now += 2 * SECOND
        other = create(manager, 2)
        manager.add_subscriber(other, texts[0])
    with started(path, clock, "127.0.0.2/32", fanout=3) as manager:
        assert list(states(manager, session_id).values()) == [
            SENDING, REFUSED, SENDING, SENDING, REFUSED,
        ]  # fmt: skip
        reasons = [view.refused_reason for view in manager.list_subscribers(session_id)[0]]
        assert "max_fanout_per_session" in reasons[4]
        with pytest.raises(LimitError):
            manager.add_subscriber(session_id, "127.0.0.9:1")
        manager.housekeeping.serve_again()
        assert list(states(manager, session_id).values()).count(REFUSED) == 2
        manager.remove_subscriber(session_id, texts[0])
        manager.housekeeping.serve_again()
        assert list(states(manager, session_id).values()) == [REFUSED, SENDING, SENDING, SENDING]
        deny(manager, NOBODY)
        manager.housekeeping.judge_policy()
        assert states(manager, session_id)[texts[1]] is REFUSED  # for want of room, now
        manager.remove_subscriber(session_id, texts[2])
        manager.housekeeping.serve_again()
        assert set(states(manager, session_id).values()) == {SENDING}
    assert numbers(path) == (2, 4)
    with started(path, clock, subscribers=3) as manager:
        assert manager.refused == (0, 1)
        rules = manager._rules
        manager.reconfigure(rules.policy, dataclasses.replace(rules.limits, subscribers=4))
        manager.housekeeping.judge_policy()
        assert manager.refused == (0, 0)


def test_sessions_beyond_the_limit_are_kept(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        ids = [create(manager, ssrc, labels={"n": str(ssrc)}) for ssrc in range(1, 5)]
        manager.add_subscriber(ids[3], SUBSCRIBER, ttl_secs=3600)
        manager.add_subscriber(ids[3], DENIED[0])
        manager.add_subscriber(ids[2], SUBSCRIBER)
    with started(path, clock, "10.0.0.0/8", sessions=2) as manager:
        assert (manager.active_sessions, manager.refused) == (2, (2, 0))
        views, cursor = manager.list_page(3)
        assert [view.status for view in views] == ["idle", "idle", "refused"]
        views += manager.list_page(3, cursor)[0]
        assert [view.session_id for view in views] == ids
        assert [view.session_id for view in manager.list_page(9, "", "n=4")[0]] == [ids[3]]
        view = manager.get(ids[3])
        assert (view.subscriber_count, view.source_address) == (2, "192.0.2.4:5000")
        assert "max_sessions" in view.refused_reason
        assert manager.stats(ids[3]).packets_received == 0
        assert manager.stats(ids[3]).first_copy_latency is None
        page, cursor = manager.list_subscribers(ids[3], 1)
        page += manager.list_subscribers(ids[3], 1, cursor)[0]
        assert {str(view.address) for view in page} == {SUBSCRIBER, DENIED[0]}
        assert {view.state for view in page} == {REFUSED}
        with pytest.raises(RefusedError, match="max_sessions"):
            manager.add_subscriber(ids[3], SUBSCRIBER)
        with pytest.raises(RefusedError):
            manager.update(ids[3], paused=True)
        with pytest.raises(NotFoundError):
            manager.remove_subscriber(ids[2], "127.0.0.1:4")
        manager.remove_subscriber(ids[2], SUBSCRIBER)
        assert states(manager, ids[2]) == {}
        manager.housekeeping.serve_again()
        assert manager.refused == (2, 0)
        manager.delete(ids[0])  # makes room for the oldest
        with pytest.raises(LimitError, match="refused"):
            create(manager, 9)
        read = manager.changes.revision
        manager.housekeeping.serve_again()
        assert manager.get(ids[2]).status == "idle"
        manager.housekeeping.expire_subscribers()
        assert [each.view.session_id for each in (manager.changes.after(read) or ([],))[0]] == [
            ids[2]
        ]
        manager.delete(ids[1])
        manager.housekeeping.serve_again()
        assert states(manager, ids[3]) == {SUBSCRIBER: SENDING, DENIED[0]: REFUSED}
        assert (manager.active_sessions, manager.refused) == (2, (0, 1))
        manager.add_subscriber(ids[3], "127.0.0.1:4")
        clock.now += 3602 * SECOND
        assert manager.housekeeping.expire_subscribers() == 1
    assert numbers(path) == (2, 2)


def test_a_refused_session_can_be_deleted(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        ids = [create(manager, ssrc) for ssrc in (1, 2)]
        manager.add_subscriber(ids[1], SUBSCRIBER)
    with started(path, clock, sessions=1) as manager:
        read = manager.changes.revision
        manager.delete(ids[1], request_id="once")
        manager.delete(ids[1], request_id="once")
        with pytest.raises(NotFoundError):
            manager.get(ids[1])
        (change,) = (manager.changes.after(read) or ([],))[0]
        assert (change.kind.name, change.view.session_id) == ("DELETED", ids[1])
    assert numbers(path) == (1, 0)


def test_a_source_that_is_refused_is_served_when_it_may_be(path: str, clock: Clock) -> None:
    """The host got the address that the session's packets come from, and lost it again."""
    source = Address.parse("192.0.2.1:5000")
    with started(path, clock) as manager:
        session_id = create(manager, latch_window_secs=0)
        manager.add_subscriber(session_id, SUBSCRIBER)
    own: set[Any] = {source.ip}
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        policy = manager._rules.policy
        object.__setattr__(policy, "ingress", Address.parse("0.0.0.0:5000"))
        object.__setattr__(policy, "is_local", lambda ip: ip in own)
        manager.housekeeping.on_local_addresses({source.ip: 2})
        manager.restore()
        assert "own ingest" in manager.get(session_id).refused_reason
        with pytest.raises(AddressDeniedError):
            create(manager)
        manager.housekeeping.serve_again()
        assert manager.refused == (1, 0)
        own.clear()
        manager.housekeeping.on_local_addresses({})
        manager.housekeeping.serve_again()
        assert manager.refused == (0, 0)
        assert states(manager, session_id) == {SUBSCRIBER: SENDING}
        with pytest.raises(AlreadyExistsError):
            create(manager)


def test_start_after_start_nothing_is_lost(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        session_id = create(manager)
        create(manager, 2)
        manager.add_subscribers(session_id, DENIED)
    for _ in range(3):
        with started(path, clock, "10.0.0.0/8", sessions=1, fanout=1) as manager:
            assert set(states(manager, session_id).values()) == {REFUSED}
            assert manager.refused == (1, 2)
            manager.housekeeping.expire_subscribers()
    assert numbers(path) == (2, 2)
