"""Consents over a restart: who gets packets at once, until when, and who is asked anew."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from consents_scene import AWAITING, SENDING, asking, give, started, states
from engine_support import running_engine
from managers import SECOND, SOURCE, SUBSCRIBER, Clock, deny, engine_of, manager_of, send
from support import eventually, queued, udp_socket

from rtpfanout import boot
from rtpfanout.model import Address
from rtpfanout.sessions.views import SubscriberState
from rtpfanout.store import Store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


def rows(path: str) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM consent").fetchone()[0])


def test_who_has_consented_gets_packets_at_once_and_until_then(path: str, clock: Clock) -> None:
    texts = [f"127.0.0.1:{port}" for port in range(1, 5)]
    with started(path, clock) as manager:
        session_id = asking(manager, *texts)
        give(manager, session_id, texts[0], clock, 20)
        give(manager, session_id, texts[1], clock, 5)
        give(manager, session_id, texts[2], clock, 5)
        assert manager.housekeeping.keep_consents() == 3
        give(manager, session_id, texts[2], clock, 20.5)
        assert manager.housekeeping.keep_consents() == 1
        assert manager.housekeeping.keep_consents() == 0
    clock.now += 8 * SECOND
    with started(path, clock) as manager:
        assert states(manager) == dict(
            zip(texts, [SENDING, AWAITING, SENDING, AWAITING], strict=True)
        )
        assert all(
            manager.signals.consent_targets(Address.parse(text)) == [session_id] for text in texts
        )
        give(manager, session_id, texts[3], clock, 30)  # who is asked anew may answer
        clock.now += 11 * SECOND
        manager.housekeeping.expire_subscribers()
        assert list(states(manager).values()) == [SENDING, AWAITING, SENDING, SENDING]
        clock.now += SECOND
        manager.housekeeping.expire_subscribers()
        assert list(states(manager).values()) == [AWAITING, AWAITING, SENDING, SENDING]
        give(manager, session_id, texts[2], clock, 20)
        clock.now += 2 * SECOND
        manager.housekeeping.expire_subscribers()
        assert list(states(manager).values()) == [AWAITING, AWAITING, SENDING, SENDING]
        assert manager.counts["consents_lapsed"] == 1


def test_packets_flow_before_calls_do_and_to_nobody_else(path: str, clock: Clock) -> None:
    with udp_socket() as source, udp_socket() as one, udp_socket() as two:
        texts = ["{}:{}".format(*sock.getsockname()) for sock in (source, one, two)]
        with Store(path) as store, engine_of() as engine:
            manager = manager_of(engine, clock, store)
            session_id = manager.create(texts[0], 1, "video", consent="echo").session_id
            manager.add_subscribers(session_id, texts[1:])
            give(manager, session_id, texts[1], clock, 20)
            manager.housekeeping.keep_consents()
        with Store(path) as store, engine_of() as engine:
            manager = manager_of(engine, clock, store)
            manager.restore_packets()
            with running_engine(engine):
                send(source, engine, 1)
                one.settimeout(30)
                one.recv(100)
                eventually(lambda: engine.stats()["packets_sent"], lambda n: n == 1, "one copy")
                manager.restore()
                assert states(manager) == {texts[1]: SENDING, texts[2]: AWAITING}
                assert manager.stats(session_id).copies_withheld == 1
                assert queued(two) == []


def test_consents_of_another_boot_count_for_nothing(
    path: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started(path, clock) as manager:
        session_id = asking(manager, SUBSCRIBER)
        give(manager, session_id, SUBSCRIBER, clock, 20)
        manager.housekeeping.keep_consents()
    boot.boot_id.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(boot.Path, "read_bytes", lambda _: b"another\n")
        with started(path, clock) as manager:
            assert states(manager) == {SUBSCRIBER: AWAITING}
    boot.boot_id.cache_clear()
    with started(path, clock) as manager:
        assert states(manager) == {SUBSCRIBER: SENDING}


def test_where_no_boot_can_be_told_nothing_outlives_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boot.boot_id.cache_clear()

    def missing(_: Path) -> bytes:
        raise FileNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(boot.Path, "read_bytes", missing)
        first = boot.boot_id()
        assert first == boot.boot_id()
        boot.boot_id.cache_clear()
        assert first != boot.boot_id()
    boot.boot_id.cache_clear()
    assert boot.boot_id() == boot.boot_id() == boot._FILE.read_bytes()


def test_without_an_end_it_lasts_as_long_as_the_boot(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        session_id = asking(manager)
        manager.signals.join(
            session_id, Address.parse(SUBSCRIBER), lease_secs=0, subscriber_class=""
        )
        manager.housekeeping.keep_consents()
    clock.now += 10**6 * SECOND
    with started(path, clock) as manager:
        assert states(manager) == {SUBSCRIBER: SENDING}
        clock.now += 10**6 * SECOND
        manager.housekeeping.expire_subscribers()
        assert states(manager) == {SUBSCRIBER: SENDING}
        assert manager._consents._until[Address.parse(SUBSCRIBER).record][session_id] == math.inf


def test_joining_is_kept_with_its_lease(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        session_id = asking(manager)
        manager.signals.join(
            session_id, Address.parse(SUBSCRIBER), lease_secs=10, subscriber_class="pilot"
        )
        manager.housekeeping.keep_consents()
    clock.now += 8 * SECOND
    with started(path, clock) as manager:
        assert states(manager) == {SUBSCRIBER: SENDING}
        clock.now += 3 * SECOND
        assert manager.housekeeping.expire_subscribers() == 1
    assert rows(path) == 0


@pytest.mark.parametrize("way", ["removed", "deleted", "lease", "consent", "idle"])
def test_a_consent_goes_with_its_subscriber(path: str, clock: Clock, way: str) -> None:
    """And one that comes again is asked anew, before a restart and after it."""
    with started(path, clock) as manager:
        session_id = asking(manager, SUBSCRIBER, ttl_secs=5 if way == "lease" else 0)
        give(manager, session_id, SUBSCRIBER, clock, 28)
        assert manager.housekeeping.keep_consents() == 1
        give(manager, session_id, SUBSCRIBER, clock, 28.5)  # still to be kept when it goes
        if way == "removed":
            manager.remove_subscriber(session_id, SUBSCRIBER)
        elif way == "deleted":
            manager.delete(session_id)
        elif way == "consent":
            manager.update(session_id, consent="none")
        elif way == "lease":
            clock.now += 8 * SECOND
            assert manager.housekeeping.expire_subscribers() == 1
        else:
            clock.now += 31 * SECOND
            assert len(manager.housekeeping.expire_idle()) == 1
        assert manager.housekeeping.keep_consents() == 0
        if way == "consent":
            manager.update(session_id, consent="echo")
        elif way in ("deleted", "idle"):
            asking(manager, SUBSCRIBER)
        else:
            manager.add_subscriber(session_id, SUBSCRIBER)
        assert states(manager) == {SUBSCRIBER: AWAITING}
        assert manager.housekeeping.keep_consents() == 0
    assert rows(path) == 0
    with started(path, clock) as manager:
        assert states(manager) == {SUBSCRIBER: AWAITING}


def test_todays_policy_goes_before_consent(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        session_id = asking(manager, SUBSCRIBER, "10.0.0.1:1")
        for text in (SUBSCRIBER, "10.0.0.1:1"):
            give(manager, session_id, text, clock, 28)
        manager.housekeeping.keep_consents()
    assert rows(path) == 2
    with started(path, clock, denied="10.0.0.0/8") as manager:
        assert states(manager) == {SUBSCRIBER: SENDING, "10.0.0.1:1": SubscriberState.REFUSED}
    assert rows(path) == 2
    with started(path, clock) as manager:
        assert states(manager) == {SUBSCRIBER: SENDING, "10.0.0.1:1": SENDING}


def test_who_is_refused_may_consent_and_gets_nothing_all_the_same(path: str, clock: Clock) -> None:
    with started(path, clock) as manager:
        session_id = asking(manager, SUBSCRIBER)
        deny(manager, "127.0.0.0/8")
        assert manager.housekeeping.judge_policy() == 1
        give(manager, session_id, SUBSCRIBER, clock, 28)
        assert states(manager) == {SUBSCRIBER: SubscriberState.REFUSED}
        deny(manager, "10.0.0.0/8")
        assert manager.housekeeping.judge_policy() == 0
        assert states(manager) == {SUBSCRIBER: SENDING}
        deny(manager, "127.0.0.0/8")
        manager.housekeeping.judge_policy()
        clock.now += 29 * SECOND
        manager.housekeeping.expire_subscribers()
        deny(manager, "10.0.0.0/8")
        manager.housekeeping.judge_policy()
        assert states(manager) == {SUBSCRIBER: AWAITING}


def test_more_than_are_written_at_a_time(path: str, clock: Clock) -> None:
    texts = [f"127.1.{n >> 8}.{n & 255}:7000" for n in range(2500)]
    with Store(path) as store, engine_of(fanout=2500) as engine:
        manager = manager_of(engine, clock, store, fanout=2500)
        session_id = manager.create(SOURCE, 1, "video", consent="echo").session_id
        for start in range(0, 2500, 500):
            manager.add_subscribers(session_id, texts[start : start + 500])
        for text in texts[:2300]:
            give(manager, session_id, text, clock, 20)
        assert manager.housekeeping.keep_consents() == 2300
    with Store(path) as store, engine_of(fanout=2500) as engine:
        manager = manager_of(engine, clock, store, fanout=2500)
        manager.restore()
        found: list[SubscriberState] = []
        cursor = ""
        while len(found) < 2500:
            page, cursor = manager.list_subscribers(session_id, 500, cursor)
            found += [view.state for view in page]
        assert found == [SENDING] * 2300 + [AWAITING] * 200
