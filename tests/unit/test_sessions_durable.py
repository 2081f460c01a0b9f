"""Calls and the store: what a call waits for, and what is undone when it can't be kept."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from managers import SECOND, SOURCE, SUBSCRIBER, Clock, Gate, engine_of, manager_of, subscribers

from rtpfanout.errors import AddressDeniedError, NotFoundError, UnavailableError
from rtpfanout.model import Address
from rtpfanout.sessions.views import SubscriberState
from rtpfanout.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager


@pytest.fixture
def store() -> Iterator[Gate]:
    with Gate() as store:
        yield store


@pytest.fixture
def manager(engine: Engine, clock: Clock, store: Gate) -> SessionManager:
    return manager_of(engine, clock, store)


def started(call: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """The call in a thread, and where its result or error will be."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def test_nothing_stays_applied_when_the_store_refuses(
    manager: SessionManager, store: Gate, engine: Engine, clock: Clock
) -> None:
    key = b"k" * 16
    session_id = manager.create(SOURCE, 1, "video", labels={"a": "b"}, move_key=key).session_id
    manager.add_subscriber(session_id, SUBSCRIBER, ttl_secs=60, subscriber_class="pilot")
    before = manager.get(session_id), manager.list_subscribers(session_id)
    read = manager.changes.revision
    store.refuses = True
    for call in (
        lambda: manager.create("192.0.2.2:5000", 1, "video", request_id="c"),
        lambda: manager.update(session_id, source_address="192.0.2.2:5000", paused=True),
        lambda: manager.update(session_id, labels={"a": ""}),
        lambda: manager.delete(session_id, request_id="d"),
        lambda: manager.add_subscribers(session_id, ["127.0.0.1:1", SUBSCRIBER], ttl_secs=900),
        lambda: manager.add_subscriber(session_id, SUBSCRIBER, subscriber_class="monitor"),
        lambda: manager.remove_subscriber(session_id, SUBSCRIBER),
        lambda: manager.signals.move_source(session_id, Address.parse("192.0.2.2:5000"), 1, key),
        lambda: manager.create("192.0.2.2:5000", 1, "video", move_key=b"l" * 16),
        lambda: manager.update(session_id, move_key=b"l" * 16),
        lambda: manager.signals.join(
            session_id, Address.parse("127.0.0.1:9"), lease_secs=5, subscriber_class=""
        ),
    ):
        with pytest.raises(UnavailableError):
            call()
        assert (manager.get(session_id), manager.list_subscribers(session_id)) == before
        assert (manager.active_sessions, manager.total_subscribers) == (1, 1)
        assert len(engine.all_session_stats(clock.now)) == 1
    clock.now += 31 * SECOND
    assert manager.housekeeping.expire_idle() == []
    assert manager.active_sessions == 1
    store.refuses = False
    assert manager.changes.after(read) == ([], manager.changes.revision)
    manager.create("192.0.2.2:5000", 1, "video", move_key=b"l" * 16)
    manager.create("192.0.2.3:5000", 1, "video", request_id="c")
    manager.delete(session_id, request_id="d")


def test_a_call_returns_when_it_is_durable_and_holds_nobody_up(
    manager: SessionManager, store: Gate
) -> None:
    one, two = (manager.create(SOURCE, n, "video").session_id for n in range(2))
    store.is_open.clear()
    calls = [
        started(call)
        for call in (
            lambda: manager.add_subscriber(one, SUBSCRIBER),
            lambda: manager.add_subscriber(one, "127.0.0.1:1"),
            lambda: manager.create(SOURCE, 3, "video"),
            lambda: manager.update(two, paused=True),
        )
    ]
    for _ in range(6):
        assert store.entered.acquire(timeout=30)
    assert all(thread.is_alive() for thread, _ in calls)
    assert manager.get(two).status == "idle"  # written first, applied then
    assert manager.active_sessions == 2
    store.is_open.set()
    for thread, _ in calls:
        thread.join(30)
    assert [outcome for _, (outcome,) in calls][:2] == [True, True]
    assert manager.get(two).status == "paused"
    assert manager.active_sessions == 3


def race(store: Gate, first: Callable[[], Any], second: Callable[[], Any]) -> tuple[Any, Any]:
    """Their outcomes, when `second` is called while `first` waits for the store."""
    store.is_open.clear()
    while store.entered.acquire(blocking=False):
        pass
    one, outcome = started(first)
    assert store.entered.acquire(timeout=30)
    two, other = started(second)
    two.join(0.05)
    store.is_open.set()
    one.join(30)
    two.join(30)
    return outcome[0], other[0]


def check_agreement(manager: SessionManager, store: Store, clock: Clock) -> None:
    """What a restart would find is what there is."""
    with engine_of() as engine:
        again = manager_of(engine, clock, store)
        again.restore()
        views = manager.list_page()[0]
        assert again.list_page()[0] == views
        for view in views:
            there = manager.list_subscribers(view.session_id)[0]
            found = again.list_subscribers(view.session_id)[0]
            assert {v.address for v in found} == {v.address for v in there}
            assert len(found) == view.subscriber_count


@pytest.mark.parametrize("refuses", [False, True])
def test_races(manager: SessionManager, store: Gate, clock: Clock, refuses: bool) -> None:
    """Each pair of calls that meet at one session, the first of which may be refused."""

    def fresh() -> str:
        for view in manager.list_page()[0]:
            manager.delete(view.session_id)
        session_id = manager.create(SOURCE, 1, "video").session_id
        manager.add_subscriber(session_id, "127.0.0.1:1")
        return session_id

    calls: dict[str, Callable[[str], Any]] = {
        "delete": lambda s: manager.delete(s),
        "add": lambda s: manager.add_subscriber(s, SUBSCRIBER),
        "again": lambda s: manager.add_subscriber(s, "127.0.0.1:1", ttl_secs=50),
        "remove": lambda s: manager.remove_subscriber(s, "127.0.0.1:1"),
        "both": lambda s: manager.remove_subscribers(s, [SUBSCRIBER, "127.0.0.1:1"]),
        "move": lambda s: manager.update(s, source_address=SUBSCRIBER),
        "pause": lambda s: manager.update(s, paused=True),
    }
    for first_name, first in calls.items():
        for second_name, second in calls.items():
            session_id = fresh()
            store.refuses_next = refuses
            outcomes = race(
                store,
                lambda: first(session_id),  # noqa: B023
                lambda: second(session_id),  # noqa: B023
            )
            errors = [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)]
            what = first_name, second_name, outcomes
            if refuses:
                assert errors == [UnavailableError], what
            elif (
                first_name == "delete"
                or first_name == second_name == "remove"
                or (first_name, second_name)
                == (
                    "both",
                    "remove",
                )
            ):
                assert errors == [NotFoundError], what
            elif {first_name, second_name} == {"add", "move"}:
                assert errors == [AddressDeniedError], what
            else:
                assert errors == [], what
            check_agreement(manager, store, clock)


def test_an_expired_lease_is_gone_from_the_store(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "store.db")
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        session_id = manager.create(SOURCE, 1, "video").session_id
        manager.add_subscriber(session_id, SUBSCRIBER, ttl_secs=5)
        clock.now += 8 * SECOND
        assert manager.housekeeping.expire_subscribers() == 1
    with Store(path) as store:
        assert list(store.subscribers()) == []


def test_a_renewal_that_meets_the_end_of_its_lease_counts(
    manager: SessionManager, store: Gate, clock: Clock
) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscriber(session_id, SUBSCRIBER, ttl_secs=5)
    clock.now += 8 * SECOND
    renewed, expired = race(
        store,
        lambda: manager.add_subscriber(session_id, SUBSCRIBER, ttl_secs=5),
        manager.housekeeping.expire_subscribers,
    )
    assert (renewed, expired) == (False, 0)
    assert subscribers(manager, session_id) == [SUBSCRIBER]


def test_a_disk_that_hangs_keeps_no_packets_coming(
    manager: SessionManager, store: Gate, clock: Clock
) -> None:
    """Consent lapses and leases end while calls wait; what is claimed is done a second later."""
    session_id = manager.create(SOURCE, 1, "video", consent="echo").session_id
    other = manager.create(SOURCE, 2, "video").session_id
    manager.add_subscriber(session_id, SUBSCRIBER)
    manager.add_subscriber(session_id, "127.0.0.1:1", ttl_secs=5)
    manager.add_subscriber(other, SUBSCRIBER, ttl_secs=5)
    manager.signals.consent_given(session_id, Address.parse(SUBSCRIBER), clock.now / 1e9 + 5)
    store.is_open.clear()
    while store.entered.acquire(blocking=False):
        pass
    thread, outcome = started(lambda: manager.update(session_id, labels={"a": "b"}))
    assert store.entered.acquire(timeout=30)
    clock.now += 8 * SECOND
    assert manager.housekeeping.expire_subscribers() == 1
    assert subscribers(manager, other) == []
    waiting = manager.list_subscribers(session_id)[0]
    assert [view.state for view in waiting] == [SubscriberState.AWAITING_CONSENT] * 2
    assert thread.is_alive()
    store.is_open.set()
    thread.join(30)
    assert outcome[0].labels == {"a": "b"}
    clock.now += SECOND
    assert manager.housekeeping.expire_subscribers() == 1
    assert subscribers(manager, session_id) == [SUBSCRIBER]
