"""What a restart brings back, of what today's policy and limits admit; for packets before calls."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from managers import (
    SECOND,
    SOURCE,
    SUBSCRIBER,
    Clock,
    Gate,
    deny,
    engine_of,
    manager_of,
    subscribers,
)
from structlog.testing import capture_logs

from rtpfanout import convert
from rtpfanout.errors import AlreadyExistsError, LimitError
from rtpfanout.model import Address, SubscriberClass
from rtpfanout.sessions.views import SubscriberState
from rtpfanout.store import Store
from rtpfanout.store.writes import put_subscribers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager, SessionView


@pytest.fixture
def store() -> Iterator[Gate]:
    with Gate() as store:
        yield store


@pytest.fixture
def manager(engine: Engine, clock: Clock, store: Gate) -> SessionManager:
    return manager_of(engine, clock, store)


def served(manager: SessionManager, session_id: str) -> list[str]:
    views = manager.list_subscribers(session_id, 1000)[0]
    return [str(view.address) for view in views if view.state is SubscriberState.SENDING]


def latching_with_everything(manager: SessionManager) -> SessionView:
    """Every field that such a session can have; the same session when asked for again."""
    return manager.create(
        "192.0.2.0/24",
        7,
        "audio",
        source_policy="latch",
        latch_window_secs=60,
        relatch_after_secs=20,
        labels={"vehicle": "rover-7"},
        ingest_limit_bps=5000,
        max_subscribers=2,
        consent="echo",
        move_key=b"k" * 20,
        request_id="c1",
    )


def test_a_restart_brings_everything_back(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "store.db")
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        latch = latching_with_everything(manager)
        (handle,) = engine.all_session_stats(clock.now)
        assert manager.signals.on_source_notice(handle, Address.parse("192.0.2.3:9"))
        gone = manager.create(SOURCE, 8, "video")
        plain = manager.create("192.0.2.7", 8, "video", source_policy="ip")
        manager.delete(gone.session_id)
        manager.update(plain.session_id, paused=True)
        clock.now += SECOND
        manager.add_subscriber(plain.session_id, "127.0.0.1:1", ttl_secs=100)
        manager.add_subscriber(plain.session_id, "127.0.0.1:2", ttl_secs=5)
        clock.now += 2 * SECOND
        manager.add_subscriber(plain.session_id, "[::ffff:127.0.0.1]:3", subscriber_class="pilot")
        manager.add_subscriber(latch.session_id, SUBSCRIBER)
        secret = manager.signals.secret("join")
        before = manager.list_page()[0]
        rows = manager.list_subscribers(plain.session_id)[0]
        revision = manager.changes.revision
        _, cursor = manager.list_page(1)
    clock.now += 10 * SECOND
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        restored = manager.restore()
        assert (restored.sessions, restored.subscribers, restored.expired_subscribers) == (2, 3, 1)
        first, second = manager.list_page()[0]
        assert first == before[0]
        assert str(first.terms.pinned) == "192.0.2.3:9"
        assert (second.status, second.subscriber_count) == ("paused", 2)
        assert manager.list_page(1, cursor)[0] == [second]
        found = manager.list_subscribers(plain.session_id)[0]
        assert [(v.address, v.since, v.subscriber_class) for v in found] == [
            (v.address, v.since, v.subscriber_class) for v in (rows[0], rows[2])
        ]
        assert found[1].subscriber_class is SubscriberClass.PILOT
        assert found[0].expires_at == rows[0].expires_at
        (waiting,) = manager.list_subscribers(latch.session_id)[0]
        assert waiting.state is SubscriberState.AWAITING_CONSENT
        assert manager.total_subscribers == 3
        assert manager.changes.revision > revision
        assert manager.changes.after(revision) is None
        assert manager.signals.secret("join") == secret
        assert manager.signals.session_for_move(7)[0].move_key == b"k" * 20
        assert manager.stats(plain.session_id).uptime_seconds == 13
        clock.now += 90 * SECOND
        assert manager.housekeeping.expire_subscribers() == 1
        with pytest.raises(AlreadyExistsError):
            manager.create("192.0.2.7", 8, "video", source_policy="ip")
        same = latching_with_everything(manager)
        assert same == latch
        new = manager.create(SOURCE, 9, "video")
        assert [view.session_id for view in manager.list_page()[0]][-1] == new.session_id
        assert new.revision > before[-1].revision


def test_a_restart_looks_at_todays_policy_and_limits(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "store.db")
    with Store(path) as store, engine_of(fanout=5) as engine:
        manager = manager_of(engine, clock, store, fanout=5)
        ids = [manager.create(SOURCE, n, "video").session_id for n in range(3)]
        texts = ["10.0.0.1:1", "10.0.0.2:1", "127.0.0.1:1", "[2001:db8::1]:1"]
        manager.add_subscribers(ids[0], texts[:3])
        manager.add_subscribers(ids[1], ["10.0.0.1:1", "192.0.2.9:2", "192.0.2.8:2", "192.0.2.7:2"])
    with Store(path) as store, engine_of(sessions=2, fanout=2) as engine:
        manager = manager_of(engine, clock, store, sessions=2, fanout=2)
        deny(manager, "10.0.0.0/8")
        with capture_logs() as log:
            restored = manager.restore()
        (entry,) = log
        assert (entry["sessions"], entry["subscribers"]) == (1, 4)
        assert (restored.refused_sessions, restored.refused_subscribers) == (1, 4)
        assert served(manager, ids[0]) == ["127.0.0.1:1"]
        assert served(manager, ids[1]) == ["192.0.2.9:2", "192.0.2.8:2"]
        assert manager.counts["restore_refused"] == 5
        assert manager.get(ids[2]).status == "refused"
        assert manager.refused == (1, 4)
    with Store(path) as store, engine_of(fanout=5) as engine:  # they were all kept
        manager = manager_of(engine, clock, store, fanout=5)
        restored = manager.restore()
        assert (restored.sessions, restored.subscribers) == (3, 7)
        assert (restored.refused_sessions, restored.refused_subscribers) == (0, 0)
        assert sorted(served(manager, ids[0])) == sorted(texts[:3])


def test_subscribers_that_a_changed_policy_refuses_are_kept(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "store.db")
    with Store(path) as store, engine_of(fanout=200) as engine:
        manager = manager_of(engine, clock, store, fanout=200)
        many, other = (manager.create(SOURCE, n, "video").session_id for n in range(2))
        texts = [f"127.0.{n % 2}.9:{7000 + n}" for n in range(150)]
        manager.add_subscribers(many, texts, ttl_secs=60)
        manager.add_subscriber(other, SUBSCRIBER)
        before = manager.get(other).revision
        deny(manager, "127.0.1.0/24")
        assert manager.housekeeping.judge_policy() == 75
        assert manager.housekeeping.judge_policy() == 0
        assert served(manager, many) == texts[::2]
        assert manager.get(many).subscriber_count == 150
        assert manager.get(many).refused_subscribers == 75
        assert subscribers(manager, other) == [SUBSCRIBER]
        assert manager.get(other).revision == before
        assert (manager.total_subscribers, manager.counts["policy_withheld"]) == (151, 75)
    with Store(path) as store, engine_of(fanout=200) as engine:
        manager = manager_of(engine, clock, store, fanout=200)
        assert manager.restore().subscribers == 151
        assert served(manager, many) == texts


@pytest.mark.parametrize(
    ("policy", "source"),
    [("ip", "192.0.2.1"), ("cidr", "192.0.2.0/24"), ("exact", "192.0.2.1:{port}")],
)
def test_what_restores_in_bulk_is_as_it_was(
    tmp_path: Path, clock: Clock, policy: str, source: str
) -> None:
    """Leases, networks, and addresses at our own port, of which only our own are refused."""
    path = str(tmp_path / "store.db")
    with engine_of(fanout=9) as before, engine_of(fanout=9) as after:
        port = after.bound.port
        text = source.format(port=port)
        with Store(path) as store:
            manager = manager_of(before, clock, store)
            ids = [
                manager.create(text, n, "video", source_policy=policy).session_id for n in range(3)
            ]
            for n, each in enumerate(ids):
                manager.add_subscriber(each, f"192.0.2.9:{port}", ttl_secs=30 + n)
                clock.now += 2 * SECOND  # within one, leases set the order
                manager.add_subscriber(each, f"192.0.2.9:{port + 1}")
            found = [manager.list_subscribers(each)[0] for each in ids]
            views = [manager.get(each) for each in ids]
        with Store(path) as store:
            manager = manager_of(after, clock, store)
            assert manager.restore().subscribers == 6
            assert [manager.list_subscribers(each)[0] for each in ids] == found
            assert [manager.get(each) for each in ids] == views
            assert all(session.at_ingress_port for session in manager._state.in_order)
            clock.now += 28 * SECOND
            assert manager.housekeeping.expire_subscribers() == 2
            with pytest.raises(AlreadyExistsError):
                manager.create(text, 1, "video", source_policy=policy)


def test_packets_come_before_calls(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "store.db")
    sources = ["127.0.0.1:5001", "[2001:db8::7]:5002", "192.0.2.0/24"]
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        for number, source in enumerate(sources):
            policy = "cidr" if "/" in source else "exact"
            view = manager.create(source, number, "video", source_policy=policy)
            manager.update(view.session_id, paused=number == 0, ingest_limit_bps=10**6)
            manager.add_subscriber(view.session_id, f"127.0.0.1:{number + 1}", ttl_secs=100)
            manager.add_subscriber(view.session_id, "127.0.0.1:9")
        before = manager.list_page()[0]
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        manager.restore_packets()
        stats = engine.all_session_stats(clock.now)
        assert [each["subscribers"] for each in stats.values()] == [2, 2, 2]
        assert manager.active_sessions == manager.total_subscribers == 0
        restored = manager.restore()
        assert (restored.sessions, restored.subscribers) == (3, 6)
        assert set(engine.all_session_stats(clock.now)) == set(stats)
        assert manager.list_page()[0] == before
        assert manager.total_subscribers == 6
        clock.now += 101 * SECOND
        assert manager.housekeeping.expire_subscribers() == 3


def test_a_restart_of_many_sessions(tmp_path: Path, clock: Clock) -> None:
    """More than are read at a time, with subscribers of some seconds and classes."""
    path = str(tmp_path / "store.db")
    with Store(path) as store, engine_of(sessions=250) as engine:
        manager = manager_of(engine, clock, store, sessions=250)
        for number in range(250):
            view = manager.create(f"127.0.0.1:{5000 + number}", 7, "video")
            for port, kind in zip(
                range(number % 4), ("monitor", "pilot", "recorder"), strict=False
            ):
                text = f"127.0.0.2:{port + 1}"
                manager.add_subscriber(view.session_id, text, subscriber_class=kind)
                clock.now += SECOND // 3
        before = listed(manager)
    with Store(path) as store, engine_of(sessions=250) as engine:
        manager = manager_of(engine, clock, store, sessions=250)
        restored = manager.restore()
        assert (restored.sessions, restored.subscribers) == (250, 373)
        assert listed(manager) == before
        assert manager.total_subscribers == 373


def listed(manager: SessionManager) -> dict[str, set[tuple[str, str]]]:
    return {
        view.session_id: {
            (str(each.address), str(each.subscriber_class))
            for each in manager.list_subscribers(view.session_id)[0]
        }
        for view in manager.list_page(250)[0]
    }


def test_a_restart_counts_by_address_and_finds_loops(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "store.db")
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        first = manager.create(SOURCE, 1, "video")
        second = manager.create(SOURCE, 2, "video")
        for session in (first, second):
            manager.add_subscribers(session.session_id, ["127.0.0.1:1", "127.0.0.2:2"])
        assert first.source_address == SOURCE
    with Store(path) as store, engine_of() as engine:
        # The source of both as their subscriber, as no call would take it.
        moved = Address.parse(SOURCE).record
        sequences = [row.sequence for row in store.sessions()]
        store.submit([put_subscribers(sequences[0], moved, 1)]).result(30)
        manager = manager_of(engine, clock, store, subscribers_per_ip=2)
        restored = manager.restore()
        assert (restored.subscribers, restored.refused_subscribers) == (4, 1)
        assert served(manager, first.session_id) == ["127.0.0.1:1", "127.0.0.2:2"]
        with pytest.raises(LimitError):
            manager.add_subscriber(first.session_id, "127.0.0.1:3")
        manager.remove_subscriber(first.session_id, SOURCE)
        manager.remove_subscriber(second.session_id, "127.0.0.1:1")
        manager.add_subscriber(first.session_id, "127.0.0.1:3")


@pytest.mark.parametrize(
    "change",
    [
        "media_type = 'smell'",
        "consent = 'perhaps'",
        "ssrc = -1",
        "ssrc = 1 << 40",
        "source_policy = 'exakt'",
        "source_text = '999.0.0.1:5000'",
        "source_text = '127.0.0.1:99999'",
        "source_text = '224.0.0.1:5000'",
        "source_text = ''",
        "created_ns = -5",
        "ingest_limit_bps = -5",
    ],
)
def test_a_row_that_nobody_wrote(tmp_path: Path, clock: Clock, change: str) -> None:
    """As a damaged file may have, or one of a later version: it is kept, and the others served."""
    path = str(tmp_path / "store.db")
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        ids = [manager.create(SOURCE, ssrc, "video").session_id for ssrc in (1, 2)]
        for each in ids:
            manager.add_subscriber(each, SUBSCRIBER)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute(f"UPDATE session SET {change} WHERE ssrc = 1")  # noqa: S608
        database.execute("UPDATE subscriber SET since_ns = -7")
    before = stored_rows(path)
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        restored = manager.restore()
        assert ids[1] in listed(manager)
        assert restored.sessions == len(engine.all_session_stats(clock.now))
        assert restored.sessions + restored.refused_sessions == 2
        assert [len(each) for each in listed(manager).values()] == [1, 1]
        for view in manager.list_page()[0]:
            convert.session_response(view)
            assert (view.status == "refused") == bool(view.refused_reason)
    assert stored_rows(path) == before
    assert len(before) == 2


def stored_rows(path: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT * FROM session ORDER BY sequence").fetchall()
