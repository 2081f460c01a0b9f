"""Consents that the store failed to keep, or a crash lost: nobody gets packets by those."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from consents_scene import AWAITING, SENDING, asking, give, started, states
from hypothesis import given, settings
from hypothesis import strategies as st
from managers import SECOND, SUBSCRIBER, Clock, Gate, engine_of, manager_of
from structlog.testing import capture_logs

from rtpfanout import boot
from rtpfanout.errors import UnavailableError
from rtpfanout.store import MEMORY, Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rtpfanout.sessions import SessionManager
    from rtpfanout.sessions.record import Session


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


def test_a_store_that_fails_costs_nothing_but_the_consents(path: str, clock: Clock) -> None:
    with Gate(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        session_id = asking(manager, SUBSCRIBER)
        give(manager, session_id, SUBSCRIBER, clock, 25)
        store.refuses = True
        for _ in range(3):
            assert manager.housekeeping.keep_consents() == 0
            assert states(manager) == {SUBSCRIBER: SENDING}
        store.refuses = False
        assert manager.housekeeping.keep_consents() == 1  # it is made up for
        give(manager, session_id, SUBSCRIBER, clock, 28)
        store.refuses = True
        assert manager.housekeeping.keep_consents() == 0
    clock.now += 23 * SECOND
    with started(path, clock) as manager:
        assert states(manager) == {SUBSCRIBER: SENDING}
        clock.now += 3 * SECOND
        manager.housekeeping.expire_subscribers()
        assert states(manager) == {SUBSCRIBER: AWAITING}


def test_a_full_disk_is_told_once_and_calls_go_on(path: str, clock: Clock) -> None:
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        session_id = asking(manager, SUBSCRIBER)
        give(manager, session_id, SUBSCRIBER, clock, 20)
        disk = store._database.connection
        disk.execute(
            "CREATE TEMP TRIGGER no_room BEFORE INSERT ON consent BEGIN"
            " SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
        with capture_logs() as log:
            assert [manager.housekeeping.keep_consents() for _ in range(3)] == [0, 0, 0]
        assert [entry["log_level"] for entry in log] == ["error"]
        assert manager.store.counts()["failures"] == 3
        manager.update(session_id, paused=True)
        manager.add_subscriber(session_id, "127.0.0.1:1")
        disk.execute("DROP TRIGGER no_room")
        assert manager.housekeeping.keep_consents() == 1
    with started(path, clock) as manager:
        assert states(manager) == {SUBSCRIBER: SENDING, "127.0.0.1:1": AWAITING}


def test_who_comes_again_after_a_write_that_failed_is_asked(path: str, clock: Clock) -> None:
    with Gate(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        session_id = asking(manager, SUBSCRIBER, ttl_secs=5)
        give(manager, session_id, SUBSCRIBER, clock, 28)
        assert manager.housekeeping.keep_consents() == 1
        clock.now += 8 * SECOND
        store.refuses = True
        assert manager.housekeeping.expire_subscribers() == 1  # a full disk keeps no packets coming
        with pytest.raises(UnavailableError):
            manager.add_subscriber(session_id, SUBSCRIBER)
        store.refuses = False
        assert manager.add_subscriber(session_id, SUBSCRIBER)
    with started(path, clock) as manager:
        assert states(manager) == {SUBSCRIBER: AWAITING}


def test_what_is_given_while_consent_is_switched_off_is_not_kept(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has the session without it already, the engine not yet."""
    with Gate() as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        session_id = asking(manager, SUBSCRIBER)
        begun = manager._consents.end

        def end(session: Session, records: Sequence[bytes]) -> None:
            give(manager, session_id, SUBSCRIBER, clock, 20)
            manager.housekeeping.keep_consents()
            begun(session, records)

        monkeypatch.setattr(manager._consents, "end", end)
        manager.update(session_id, consent="none")
        assert list(store.consents(boot.boot_id(), 0)) == []
        manager.update(session_id, consent="echo")
        assert list(store.consents(boot.boot_id(), 0)) == []


TEXTS = ("127.0.0.1:1", "127.0.0.1:2")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("give"), st.sampled_from(TEXTS), st.integers(1, 9)),
        st.tuples(st.just("add"), st.sampled_from(TEXTS), st.sampled_from([0, 3])),
        st.tuples(st.just("remove"), st.sampled_from(TEXTS), st.just(0)),
        st.tuples(st.just("ask"), st.sampled_from(["echo", "none"]), st.just(0)),
        st.tuples(st.just("pass"), st.just(""), st.integers(1, 4)),
        st.tuples(st.just("keep"), st.just(""), st.just(0)),
        st.tuples(st.just("crash"), st.just(""), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS)
@settings(max_examples=150, deadline=None)
def test_a_crash_gives_nobody_packets_who_had_none(steps: list[tuple[str, str, int]]) -> None:
    """Whatever happened before: after it exactly those get packets whose consent was kept."""
    clock = Clock()
    kept: set[str] = set()
    with Store(MEMORY) as store:
        with engine_of() as engine:
            session_id = asking(manager_of(engine, clock, store), TEXTS[0])
        manager = begun(store, clock)
        for step, what, number in [*steps, ("crash", "", 0)]:
            there = states(manager)
            if step == "give":
                give(manager, session_id, what, clock, number)
                kept.discard(what)  # of the two moments either may be stored
            elif step == "add":
                manager.add_subscriber(session_id, what, ttl_secs=number)
            elif step == "remove" and what in there:
                manager.remove_subscriber(session_id, what)
            elif step == "ask":
                manager.update(session_id, consent=what)
            elif step == "pass":
                clock.now += number * SECOND
                manager.housekeeping.expire_subscribers()
            elif step == "keep":
                manager.housekeeping.keep_consents()
                kept = {text for text, state in there.items() if state is SENDING}
            elif step == "crash":
                store.submit([]).result(30)
                manager = begun(store, clock)
                manager.housekeeping.expire_subscribers()
                after = states(manager)
                before = {text for text, state in there.items() if state is SENDING}
                sending = {text for text, state in after.items() if state is SENDING}
                assert after.keys() == there.keys()
                assert sending <= before
                assert sending >= kept & before


def begun(store: Store, clock: Clock) -> SessionManager:
    with engine_of() as engine:
        manager = manager_of(engine, clock, store)
        manager.restore()
        return manager
