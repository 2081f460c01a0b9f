"""How sources fare: condition and status as they change, to watchers, the log and the counters."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from engine_support import running_engine
from managers import SECOND, Clock, Gate, engine_of, manager_of, send
from structlog.testing import capture_logs
from support import address_of, eventually, udp_socket

from rtpfanout._fastpath import CONDITIONS
from rtpfanout.model import ChangeKind, Condition
from rtpfanout.sessions.changes import UNWRITTEN
from rtpfanout.store import Store

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager
    from rtpfanout.sessions.changes import Change


@pytest.fixture
def clock() -> Clock:
    """Begins now, since packets have the time of the host."""
    clock = Clock()
    clock.now = time.monotonic_ns()
    return clock


@pytest.fixture
def source() -> Iterator[socket.socket]:
    with udp_socket() as sock:
        yield sock


def feed(manager: SessionManager, source: socket.socket, session_id: str) -> None:
    """One packet more, which is counted when this returns."""
    session = manager._state.by_id[session_id]
    received = manager.stats(session_id).packets_received
    send(source, manager._engine, session.ssrc, count=1)
    eventually(
        lambda: manager.stats(session_id).packets_received, lambda n: n > received, "a packet"
    )


def changes_since(manager: SessionManager, revision: int) -> list[Change]:
    read = manager.changes.after(revision, limit=10_000)
    assert read is not None
    return read[0]


def told(change: Change) -> tuple[str, str, str | None]:
    return change.cause, change.view.status, change.view.condition


def counted(manager: SessionManager) -> dict[str, int]:
    kinds = ("condition_", "status_")
    return {name: n for name, n in manager.counts.items() if name.startswith(kinds) and n}


def test_the_names_are_those_of_the_packet_path() -> None:
    assert list(CONDITIONS) == list(map(str, Condition))


def test_each_change_is_told_once(
    manager: SessionManager, clock: Clock, source: socket.socket
) -> None:
    look = manager.housekeeping.tell_conditions
    created = manager.create(address_of(source), 7, "video")
    assert created.condition is Condition.NEVER_FED
    assert created.condition_since == created.created_at
    assert look() == 0
    revision = manager.changes.revision
    with capture_logs() as lines:
        feed(manager, source, created.session_id)
        clock.now = time.monotonic_ns()
        assert look() == 1
        assert look() == 0
        clock.now += 2 * SECOND
        assert look() == 1
        silent = manager.get(created.session_id)
        clock.now += 4 * SECOND
        assert look() == 1
    assert silent.condition_since is not None
    assert (silent.condition_since - created.created_at).total_seconds() >= 2
    changes = changes_since(manager, revision)
    assert [change.kind for change in changes] == 3 * [ChangeKind.UPDATED]
    assert [change.view.condition for change in changes] == ["flowing", "silent", "silent"]
    assert [change.cause for change in changes] == ["condition", "condition", "status"]
    assert manager.get(created.session_id).status == "idle"
    assert [
        (line["log_level"], line.get("condition_was"), line["condition"], line["status"])
        for line in lines
        if line.get("session_id") == created.session_id
    ] == [
        ("info", "never_fed", "flowing", "active"),
        ("warning", "flowing", "silent", "active"),
        ("info", None, "silent", "idle"),
    ]
    assert counted(manager) == {
        "condition_flowing": 1, "condition_silent": 1, "status_active": 1, "status_idle": 1,
    }  # fmt: skip


def test_a_pause_has_its_own_status(
    manager: SessionManager, clock: Clock, source: socket.socket
) -> None:
    """Whether packets come meanwhile is no change of it, and it stays as it was."""
    look = manager.housekeeping.tell_conditions
    session_id = manager.create(address_of(source), 7, "video").session_id
    feed(manager, source, session_id)
    clock.now = time.monotonic_ns()
    look()
    revision = manager.changes.revision
    manager.update(session_id, paused=True)
    clock.now += 9 * SECOND
    assert look() == 0
    manager.update(session_id, paused=False)
    clock.now += SECOND
    assert look() == 1
    causes = [told(change) for change in changes_since(manager, revision)]
    assert causes == [
        ("status", "paused", "flowing"),
        ("status", "idle", "flowing"),
        ("condition", "idle", "silent"),
    ]


def test_what_else_changes_is_named(manager: SessionManager, source: socket.socket) -> None:
    session_id = manager.create(address_of(source), 7, "video").session_id
    revision = manager.changes.revision
    manager.update(session_id, source_address="192.0.2.1:5000")
    manager.update(session_id, max_subscribers=2)
    manager.add_subscriber(session_id, "127.0.0.1:6000")
    manager.housekeeping.expire_subscribers()
    causes = [change.cause for change in changes_since(manager, revision)]
    assert causes == ["source", "", "subscribers"]


def test_how_many_there_are_of_each(
    manager: SessionManager, clock: Clock, source: socket.socket
) -> None:
    one, two, three = (
        manager.create(address_of(source), ssrc, "video").session_id for ssrc in (1, 2, 3)
    )
    feed(manager, source, one)
    clock.now = time.monotonic_ns()
    manager.housekeeping.tell_conditions()
    manager.update(two, paused=True)
    conditions, statuses = manager.conditions.standings()
    assert {name: n for name, n in conditions.items() if n} == {"flowing": 1, "never_fed": 1}
    assert statuses == {"active": 1, "idle": 1, "paused": 1, "refused": 0}
    assert set(conditions) == set(map(str, Condition))
    manager.delete(three)
    assert sum(manager.conditions.standings()[0].values()) == 1


def test_a_session_that_is_still_being_written(
    engine: Engine, clock: Clock, source: socket.socket
) -> None:
    """Its first packets may come before it is durable: they are told when calls know it."""
    with Gate() as store:
        manager = manager_of(engine, clock, store)
        store.is_open.clear()
        with ThreadPoolExecutor(1) as pool:
            creating = pool.submit(manager.create, address_of(source), 7, "video")
            eventually(lambda: engine.stats()["packets_forwarded"], _feeding(source, engine), "one")
            clock.now = time.monotonic_ns()
            assert manager.housekeeping.tell_conditions() == 0
            store.is_open.set()
            session_id = creating.result(30).session_id
        assert manager.housekeeping.tell_conditions() == 1
        assert manager.get(session_id).condition is Condition.FLOWING


def _feeding(source: socket.socket, engine: Engine) -> Any:
    def fed(forwarded: int) -> bool:
        send(source, engine, 7)
        return forwarded > 0

    return fed


@pytest.fixture
def restarted(tmp_path: Path, clock: Clock, source: socket.socket) -> Iterator[SessionManager]:
    """SSRC 1 was fed before, 2 never was."""
    path = str(tmp_path / "s.db")
    with Store(path) as store, engine_of() as engine, running_engine(engine):
        manager = manager_of(engine, clock, store)
        fed = manager.create(address_of(source), 1, "video").session_id
        manager.create(address_of(source), 2, "video")
        feed(manager, source, fed)
        clock.now = time.monotonic_ns()
        assert manager.housekeeping.tell_conditions() == 1
        manager.update(fed, labels={"a": "b"})
    with Store(path) as store, engine_of() as engine, running_engine(engine):
        manager = manager_of(engine, clock, store)
        manager.restore()
        yield manager


def conditions(manager: SessionManager) -> list[str | None]:
    return [view.condition for view in manager.list_page()[0]]


def test_who_does_not_come_back_after_a_restart_is_silent(
    restarted: SessionManager, clock: Clock
) -> None:
    """Not before it had the time to: a restart is no news of all cameras."""
    revision = restarted.changes.revision
    assert conditions(restarted) == ["flowing", "never_fed"]
    assert restarted.housekeeping.tell_conditions() == 0
    clock.now += 6 * SECOND
    assert restarted.housekeeping.tell_conditions() == 1
    assert restarted.housekeeping.tell_conditions() == 0
    assert conditions(restarted) == ["silent", "never_fed"]
    (change,) = changes_since(restarted, revision)
    assert told(change) == ("condition", "idle", "silent")


def test_who_comes_back_after_a_restart_has_a_status_anew(
    restarted: SessionManager, clock: Clock, source: socket.socket
) -> None:
    revision = restarted.changes.revision
    feed(restarted, source, restarted.list_page()[0][0].session_id)
    clock.now = time.monotonic_ns()
    assert restarted.housekeeping.tell_conditions() == 1
    clock.now += SECOND // 2
    (change,) = changes_since(restarted, revision)
    assert told(change) == ("status", "active", "flowing")
    assert conditions(restarted) == ["flowing", "never_fed"]


def test_many_at_once_are_all_told(clock: Clock, source: socket.socket) -> None:
    """More than the lock is held for at a time; of the log as many as it takes in a minute."""
    with engine_of(1200) as engine, running_engine(engine), Store(":memory:") as store:
        manager = manager_of(engine, clock, store, sessions=1200)
        for ssrc in range(1200):
            manager.create(address_of(source), ssrc, "video")
        revision = manager.changes.revision
        for ssrc in range(1200):
            send(source, engine, ssrc)
            if ssrc % 100 == 99:
                eventually(
                    lambda: engine.stats()["packets_forwarded"],
                    lambda n, least=ssrc: n > least,
                    "packets",
                )
        clock.now = time.monotonic_ns()
        with capture_logs() as lines:
            assert manager.housekeeping.tell_conditions() == 1200
        assert len(changes_since(manager, revision)) == 1200
        assert len(lines) == 1000
        assert manager.conditions.standings()[0]["flowing"] == 1200


def test_revisions_of_what_is_not_stored_are_noted_in_time(
    manager: SessionManager, source: socket.socket
) -> None:
    """A start leaves UNWRITTEN of them out: there must not be more without a write."""
    manager.create(address_of(source), 7, "video")
    manager.changes._given += UNWRITTEN // 2
    before = manager.store.revision
    manager.housekeeping.keep_clock()
    manager.store.submit([]).result(30)
    assert manager.store.revision == before
    manager.changes.give_up(manager.changes.begin())
    manager.housekeeping.keep_clock()
    manager.store.submit([]).result(30)
    assert manager.store.revision > before + UNWRITTEN // 2
