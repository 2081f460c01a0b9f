"""What a session is and how it changes: source policies, labels, limits, updates, the log of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from managers import SECOND, SOURCE, SUBSCRIBER, Clock, manager_of, send
from support import eventually, queued, receive, udp_socket

from rtpfanout._fastpath import Engine
from rtpfanout.errors import (
    AbortedError,
    AddressDeniedError,
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    PermissionDeniedError,
)
from rtpfanout.model import Address, ChangeKind, SessionStatus, SourcePolicy
from rtpfanout.sessions import SessionView

if TYPE_CHECKING:
    from rtpfanout.sessions import SessionManager


def test_an_update_changes_what_it_names(manager: SessionManager) -> None:
    first = manager.create(SOURCE, 1, "video", labels={"a": "1", "b": "2"}, max_subscribers=2)
    second = manager.update(
        first.session_id, labels={"a": "", "c": "3"}, ingest_limit_bps=10**6, move_key=b"k" * 16
    )
    assert second.labels == {"b": "2", "c": "3"}
    assert (second.terms.max_subscribers, second.terms.ingest_limit_bps) == (2, 10**6)
    assert second.terms.move_key == b"k" * 16
    assert second.source == first.source
    assert second.revision > first.revision
    third = manager.update(first.session_id, paused=True, if_revision=second.revision)
    assert third.status is SessionStatus.PAUSED
    assert manager.get(first.session_id) == third
    with pytest.raises(AbortedError):
        manager.update(first.session_id, paused=False, if_revision=second.revision)
    resumed = manager.update(first.session_id, paused=False, move_key=b"")
    assert (resumed.status, resumed.terms.move_key) == (SessionStatus.IDLE, b"")
    assert manager.update(first.session_id) == resumed


def test_a_pause_drops_and_a_limit_limits(manager: SessionManager, engine: Engine) -> None:
    with udp_socket() as source, udp_socket() as subscriber:
        session_id = manager.create("{}:{}".format(*source.getsockname()), 1, "video").session_id
        manager.add_subscriber(session_id, "{}:{}".format(*subscriber.getsockname()))
        send(source, engine, 1)
        subscriber.recv(100)
        manager.update(session_id, paused=True)
        send(source, engine, 1, count=3)
        eventually(lambda: manager.stats(session_id).dropped_paused, lambda n: n == 3, "pause")
        manager.update(session_id, paused=False, ingest_limit_bps=1)
        send(source, engine, 1, count=200, payload=b"x" * 1000)  # the burst is 64 KiB
        eventually(lambda: manager.stats(session_id).dropped_rate_limit, lambda n: n > 100, "limit")


def test_the_source_moves_by_an_update(manager: SessionManager, engine: Engine) -> None:
    with udp_socket() as one, udp_socket() as two, udp_socket() as subscriber:
        first, second = ("{}:{}".format(*sock.getsockname()) for sock in (one, two))
        session_id = manager.create(first, 1, "video").session_id
        other = manager.create("192.0.2.9:1", 1, "video").session_id
        manager.add_subscriber(session_id, "{}:{}".format(*subscriber.getsockname()))
        view = manager.update(session_id, source_address=second)
        assert view.source_address == second
        send(two, engine, 1)
        send(one, engine, 1)
        subscriber.recv(100)
        eventually(engine.stats, lambda s: s["dropped_wrong_source"] == 1, "the old source is out")
        with pytest.raises(AlreadyExistsError):
            manager.update(other, source_address=second)
        manager.update(other, source_address=first)  # free again
        ip = manager.update(session_id, source_address="127.0.0.1", source_policy="ip")
        assert (ip.terms.source.policy, ip.source_address) == (SourcePolicy.IP, "127.0.0.1")
        manager.delete(other)
        send(one, engine, 1)
        subscriber.recv(100)
        with pytest.raises(InvalidArgumentError) as error:  # the text is no ip:port
            manager.update(session_id, source_policy="exact")
        assert error.value.field == "source_address"


def test_nobody_is_source_and_subscriber(manager: SessionManager) -> None:
    session_id = manager.create(SUBSCRIBER, 1, "video").session_id
    with pytest.raises(AddressDeniedError, match="loop") as error:
        manager.add_subscriber(session_id, SUBSCRIBER)
    assert error.value.field == "subscriber_address"
    with pytest.raises(AddressDeniedError) as error:
        manager.add_subscribers(session_id, ["127.0.0.1:1", f"[::ffff:{SUBSCRIBER[:-5]}]:6000"])
    assert error.value.field == "subscriber_addresses[1]"
    manager.add_subscriber(session_id, "127.0.0.1:6001")
    with pytest.raises(AddressDeniedError, match="loop") as error:
        manager.update(session_id, source_address="127.0.0.1:6001")
    assert error.value.field == "source_address"
    assert manager.get(session_id).source_address == SUBSCRIBER
    manager.update(session_id, source_address="127.0.0.1:6002")
    manager.add_subscriber(session_id, SUBSCRIBER)


def test_a_cap_of_the_session(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video", max_subscribers=2).session_id
    manager.add_subscriber(session_id, "127.0.0.1:1")
    with pytest.raises(LimitError) as error:
        manager.add_subscribers(session_id, ["127.0.0.1:2", "127.0.0.1:3"])
    assert (error.value.field, error.value.limit) == ("max_subscribers", 2)
    assert manager.total_subscribers == 1
    manager.add_subscribers(session_id, ["127.0.0.1:2", "127.0.0.1:1", "127.0.0.1:2"])
    manager.update(session_id, max_subscribers=1)  # those that are there stay
    assert not manager.add_subscriber(session_id, "127.0.0.1:2")
    assert manager.get(session_id).subscriber_count == 2


def test_a_latch_is_pinned_by_the_first_packet(
    manager: SessionManager, engine: Engine, clock: Clock
) -> None:
    with udp_socket() as one, udp_socket() as two, udp_socket() as subscriber:
        view = manager.create("127.0.0.1", 1, "video", source_policy="latch", latch_window_secs=5)
        manager.add_subscriber(view.session_id, "{}:{}".format(*subscriber.getsockname()))
        assert view.terms.pinned is None
        send(one, engine, 1)
        notices = eventually(engine.notices, bool, "a notice")
        ((what, handle, source),) = notices
        assert what == "source"
        assert not manager.signals.on_source_notice(handle, Address.parse("192.0.2.1:1"))
        with pytest.raises(AddressDeniedError):
            manager.add_subscriber(view.session_id, "{}:{}".format(*manager_ingest(manager)))
        assert manager.signals.on_source_notice(handle, source)
        pinned = manager.get(view.session_id)
        assert str(pinned.terms.pinned) == "{}:{}".format(*one.getsockname())
        assert pinned.source_address == "127.0.0.1"
        send(two, engine, 1)
        send(one, engine, 1)
        assert len(receive(subscriber, 2)) == 2, "the first one, which waited, and this"
        assert queued(subscriber) == []
        assert not manager.signals.on_source_notice(handle, Address.parse("127.0.0.1:9"))
        with pytest.raises(AddressDeniedError):
            manager.add_subscriber(view.session_id, str(pinned.terms.pinned))
    again = manager.update(view.session_id, latch_window_secs=3)
    assert again.terms.pinned is None
    clock.now += 4 * SECOND
    assert not manager.signals.on_source_notice(handle, Address.parse("127.0.0.1:9"))


def manager_ingest(manager: SessionManager) -> tuple[str, int]:
    ingress = manager._rules.policy.ingress
    return str(ingress.ip), ingress.port


def test_another_source_is_pinned_after_a_silence(
    manager: SessionManager, engine: Engine, clock: Clock
) -> None:
    view = manager.create("", 1, "video", source_policy="latch", relatch_after_secs=10)
    (handle,) = engine.all_session_stats(clock.now)
    first, second = Address.parse("127.0.0.1:7"), Address.parse("127.0.0.2:8")
    assert manager.signals.on_source_notice(handle, first)
    clock.now += 9 * SECOND
    assert not manager.signals.on_source_notice(handle, second)
    clock.now += SECOND
    assert manager.signals.on_source_notice(handle, second)
    assert not manager.signals.on_source_notice(handle, first)
    assert manager.get(view.session_id).terms.pinned == second
    assert manager.counts["pinned"] == 2


KEY = b"k" * 32


def test_a_signed_move(manager: SessionManager) -> None:
    view = manager.create(SOURCE, 7, "video", move_key=KEY)
    manager.create("192.0.2.2:5000", 7, "video")
    (target,) = manager.signals.session_for_move(7)
    assert (target.session_id, target.move_key, target.counter) == (view.session_id, KEY, 0)
    assert manager.signals.session_for_move(8) == []
    manager.signals.move_source(view.session_id, Address.parse("192.0.2.3:5001"), 5, KEY)
    assert manager.get(view.session_id).source_address == "192.0.2.3:5001"
    assert manager.signals.session_for_move(7)[0].counter == 5
    with pytest.raises(PermissionDeniedError):
        manager.signals.move_source(view.session_id, Address.parse(SOURCE), 5, KEY)
    with pytest.raises(AlreadyExistsError):
        manager.signals.move_source(view.session_id, Address.parse("192.0.2.2:5000"), 6, KEY)
    with pytest.raises(InvalidArgumentError):
        manager.signals.move_source(view.session_id, Address.parse("224.0.0.1:5000"), 6, KEY)
    manager.update(view.session_id, source_policy="ip", source_address="192.0.2.3")
    manager.signals.move_source(view.session_id, Address.parse("192.0.2.4:9"), 6, KEY)
    assert manager.get(view.session_id).source_address == "192.0.2.4"
    manager.update(view.session_id, source_policy="cidr", source_address="10.0.0.0/8")
    manager.signals.move_source(view.session_id, Address.parse("10.1.2.3:9"), 7, KEY)
    with pytest.raises(PermissionDeniedError):
        manager.signals.move_source(view.session_id, Address.parse("11.1.2.3:9"), 8, KEY)
    assert manager.signals.session_for_move(7)[0].counter == 7


def test_the_log_has_every_change_in_order(manager: SessionManager) -> None:
    start = manager.changes.revision
    one = manager.create(SOURCE, 1, "video", labels={"v": "1"}).session_id
    manager.create(SOURCE, 2, "video")
    with pytest.raises(AlreadyExistsError):
        manager.create(SOURCE, 2, "video")
    for port in range(3):
        manager.add_subscriber(one, f"127.0.0.1:{6000 + port}")
    manager.remove_subscriber(one, "127.0.0.1:6000")
    manager.housekeeping.expire_subscribers()
    manager.housekeeping.expire_subscribers()
    manager.update(one, labels={"v": "2"})
    manager.delete(one)
    read = manager.changes.after(start)
    assert read is not None
    changes, upto = read
    kinds = [change.kind for change in changes]
    created, updated, deleted = ChangeKind
    assert kinds == [created, created, updated, updated, deleted]
    assert changes[2].view.subscriber_count == 2  # two, and one that came and went
    revisions = [change.revision for change in changes]
    assert revisions == sorted(set(revisions))
    assert upto == revisions[-1]
    seen = [change.seen_by((("v", "1"),)) for change in changes]
    assert seen == [created, None, updated, deleted, None]
    assert [c.seen_by((("v", "2"),)) for c in changes] == [None, None, None, created, deleted]
    assert manager.changes.after(upto) == ([], upto)
    assert manager.changes.after(upto + 1) is None


def test_many_updates_at_once_are_all_there(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    start = manager.changes.revision

    def update(n: int) -> None:
        manager.update(session_id, labels={f"n{n}": "x"})

    threads = [threading.Thread(target=update, args=[n]) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(manager.get(session_id).labels) == 12
    read = manager.changes.after(start)
    assert read is not None
    assert [len(change.view.labels) for change in read[0]] == list(range(1, 13))


def test_a_paused_session_does_not_expire(manager: SessionManager, clock: Clock) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.update(session_id, paused=True)
    clock.now += 100 * SECOND
    assert manager.housekeeping.expire_idle() == []
    manager.update(session_id, paused=False)
    assert manager.housekeeping.expire_idle() == []
    clock.now += 29 * SECOND
    assert manager.housekeeping.expire_idle() == []
    manager.update(session_id, source_address="192.0.2.2:5000")
    clock.now += 29 * SECOND
    assert manager.housekeeping.expire_idle() == []
    clock.now += SECOND
    assert len(manager.housekeeping.expire_idle()) == 1


def test_what_the_engine_cannot_do_is_not_in_the_store(
    manager: SessionManager, engine: Engine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = manager.create(SOURCE, 1, "video")

    class Full:
        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

        def move_session(self, *_: object, **__: object) -> None:
            raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(manager._updating, "engine", Full())
        with pytest.raises(MemoryError):
            manager.update(view.session_id, source_address="192.0.2.2:5000", labels={"a": "b"})
    assert manager.get(view.session_id) == view
    manager.create("192.0.2.2:5000", 1, "video")
    again = manager_of(
        Engine(
            Address.parse("127.0.0.1:0"),
            max_sessions=9,
            max_subscribers=3,
            receive_queue_packets=64,
        ),
        clock,
        manager.store,
    )
    again.restore()
    assert again.get(view.session_id) == view


def test_a_view_survives_as_an_answer(manager: SessionManager) -> None:
    exact = manager.create(SOURCE, 1, "video", labels={"a": "b"}, move_key=b"k" * 16)
    latch = manager.create("", 1, "audio", source_policy="latch", relatch_after_secs=2.5)
    for view in (exact, latch):
        assert SessionView.from_json(view.to_json()) == view
