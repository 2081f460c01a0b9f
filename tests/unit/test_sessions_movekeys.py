"""A move key names one session of an SSRC, and its counter outlives that session."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from engine_support import running_engine
from managers import SOURCE, Clock, manager_of
from store_support import session as stored

from rtpfanout._fastpath import Engine
from rtpfanout.errors import AlreadyExistsError, NotFoundError, PermissionDeniedError
from rtpfanout.model import Address, SourcePolicy
from rtpfanout.sessions.movekeys import MoveKeys, identity_of
from rtpfanout.sessions.source import Source
from rtpfanout.sessions.terms import Terms
from rtpfanout.store import Store
from rtpfanout.store.writes import put_move_counter, put_session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rtpfanout.sessions import SessionManager

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
MOVED = Address.parse("192.0.2.9:5000")
OTHER_SOURCE = "192.0.2.2:5000"
THIEF = Address.parse("198.51.100.1:6666")


def terms_with(counter: int) -> Terms:
    source = Source(SourcePolicy.EXACT, SOURCE, Address.parse(SOURCE))
    return Terms(source=source, move_key=KEY, move_counter=counter)


@contextmanager
def restarted(path: Path) -> Iterator[SessionManager]:
    """Over what the store at `path` has."""
    engine = Engine(
        Address.parse("127.0.0.1:0"), max_sessions=50, max_subscribers=3, receive_queue_packets=256
    )
    with running_engine(engine), Store(str(path)) as store:
        manager = manager_of(engine, Clock(), store)
        manager.restore()
        yield manager


def is_replayed(manager: SessionManager, session_id: str, counter: int) -> bool:
    before = manager.get(session_id).source_address
    with pytest.raises(PermissionDeniedError) as error:
        manager.signals.move_source(session_id, THIEF, counter, KEY)
    return error.value.field == "counter" and manager.get(session_id).source_address == before


def test_the_same_key_again_opens_nothing(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 7, "video", move_key=KEY).session_id
    manager.signals.move_source(session_id, MOVED, 1000, KEY)
    manager.update(session_id, move_key=KEY)
    assert is_replayed(manager, session_id, 1000)
    manager.update(session_id, move_key=KEY, request_id="whole-state", labels={"a": "b"})
    assert is_replayed(manager, session_id, 1000)
    manager.update(session_id, move_key=OTHER_KEY)
    manager.signals.move_source(session_id, MOVED, 1, OTHER_KEY)
    manager.update(session_id, move_key=b"")
    manager.update(session_id, move_key=KEY)
    assert is_replayed(manager, session_id, 1000)
    manager.signals.move_source(session_id, MOVED, 1001, KEY)


def test_neither_does_another_session_with_the_key(manager: SessionManager) -> None:
    first = manager.create(SOURCE, 7, "video", move_key=KEY).session_id
    manager.signals.move_source(first, MOVED, 1000, KEY)
    manager.delete(first)
    again = manager.create(SOURCE, 7, "video", move_key=KEY).session_id
    assert is_replayed(manager, again, 1000)
    other_ssrc = manager.create(SOURCE, 8, "video", move_key=KEY).session_id
    manager.signals.move_source(other_ssrc, MOVED, 1, KEY)


@pytest.mark.parametrize("counter", [5, 2**63 - 1, 2**63, 2**64 - 2])
def test_nor_a_restart_whatever_the_counter(tmp_path: Path, counter: int) -> None:
    """NTP time stamps are above 2^63 until 2036."""
    path = tmp_path / "s.db"
    with restarted(path) as manager:
        session_id = manager.create(SOURCE, 7, "video", move_key=KEY).session_id
        manager.signals.move_source(session_id, MOVED, counter, KEY)
    with restarted(path) as manager:
        assert is_replayed(manager, session_id, counter)
        manager.update(session_id, move_key=OTHER_KEY)
    with restarted(path) as manager:
        manager.delete(session_id)
    with restarted(path) as manager:
        session_id = manager.create(SOURCE, 7, "video", move_key=KEY).session_id
        assert is_replayed(manager, session_id, counter)
        manager.signals.move_source(session_id, MOVED, counter + 1, KEY)


def test_a_store_that_knows_only_sessions_counters(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    row = stored(1, ssrc=7, move_key=KEY, move_counter=50)
    with Store(str(path)) as store:
        store.submit([put_session(row), put_move_counter(identity_of(7, KEY), 49)]).result()
    with restarted(path) as manager:
        assert is_replayed(manager, row.session_id, 50)
        manager.delete(row.session_id)
    with restarted(path) as manager:
        again = manager.create(SOURCE, 7, "video", move_key=KEY).session_id
        assert is_replayed(manager, again, 50)


def test_one_key_names_one_session_of_an_ssrc(manager: SessionManager) -> None:
    first = manager.create(SOURCE, 7, "video", move_key=KEY).session_id
    with pytest.raises(AlreadyExistsError) as error:
        manager.create(OTHER_SOURCE, 7, "video", move_key=KEY)
    assert error.value.field == "move_key"
    second = manager.create(OTHER_SOURCE, 7, "video", move_key=OTHER_KEY).session_id
    with pytest.raises(AlreadyExistsError):
        manager.update(second, move_key=KEY, labels={"nothing": "changes"})
    assert manager.get(second).labels == {}
    assert {target.move_key for target in manager.signals.session_for_move(7)} == {KEY, OTHER_KEY}
    manager.create(SOURCE, 8, "video", move_key=KEY)
    manager.create("192.0.2.3:5000", 7, "video")
    with pytest.raises(AlreadyExistsError):  # for its source: the key is not taken by that
        manager.create(SOURCE, 7, "video", move_key=b"third" * 5)
    manager.update(first, move_key=b"third" * 5)
    manager.update(second, move_key=KEY)
    manager.delete(second)
    manager.create(OTHER_SOURCE, 7, "video", move_key=KEY)


def test_of_many_at_once_one_gets_the_key(manager: SessionManager) -> None:
    made: list[str] = []

    def create(n: int) -> None:
        with suppress(AlreadyExistsError):
            made.append(manager.create(f"192.0.2.2:{n}", 7, "video", move_key=KEY).session_id)

    threads = [threading.Thread(target=create, args=[n]) for n in range(1, 17)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert [target.session_id for target in manager.signals.session_for_move(7)] == made


def test_a_move_by_a_key_that_is_no_more(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 7, "video", move_key=KEY).session_id
    manager.update(session_id, move_key=OTHER_KEY)
    with pytest.raises(NotFoundError):
        manager.signals.move_source(session_id, THIEF, 1, KEY)
    manager.update(session_id, move_key=b"")
    with pytest.raises(NotFoundError):
        manager.signals.move_source(session_id, THIEF, 1, b"")
    assert manager.get(session_id).source_address == SOURCE


def test_what_a_store_has_is_kept_though_two_share_a_key(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    rows = [
        stored(n, ssrc=7, source_text=f"192.0.2.{n}:5000", move_key=KEY, move_counter=10 * n)
        for n in (1, 2, 3)
    ]
    with Store(str(path)) as store:
        store.submit([put_session(row) for row in rows]).result()
    for _ in range(2):
        with restarted(path) as manager:
            assert {target.counter for target in manager.signals.session_for_move(7)} == {30}
            assert manager.active_sessions == 3
            manager.update(rows[0].session_id, labels={"kept": "it"}, move_key=KEY)
            with pytest.raises(AlreadyExistsError):
                manager.create("192.0.2.4:5000", 7, "video", move_key=KEY)
    with restarted(path) as manager:
        manager.delete(rows[2].session_id)
        manager.update(rows[1].session_id, move_key=OTHER_KEY)
        assert is_replayed(manager, rows[0].session_id, 30)
        manager.signals.move_source(rows[0].session_id, MOVED, 31, KEY)


def test_no_more_are_kept_than_that(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with restarted(path) as manager:
        manager._state.move_keys = MoveKeys(most_kept=2)
        for n in range(4):
            key = bytes([n]) * 16
            session_id = manager.create(SOURCE, 7, "video", move_key=key).session_id
            manager.signals.move_source(session_id, MOVED, n + 1, key)
            manager.delete(session_id)
    with Store(str(path)) as store:
        assert [counter for _, counter in store.move_counters()] == [3, 4]
    with restarted(path) as manager:
        manager._state.move_keys = keys = MoveKeys(most_kept=1)
        keys.restore(manager.store.move_counters(), [])
        assert keys.settle() == [identity_of(7, bytes([2]) * 16)]


def test_the_counter_of_a_shared_key_is_the_highest_of_any() -> None:
    """A session that was refused comes back with the key of one that is served, which then goes."""
    keys = MoveKeys()
    served, refused = terms_with(100), terms_with(50)
    keys.restore([], [])
    assert keys.take("a", 7, terms_with(0)) == 0
    assert keys.take_again("b", 7, refused) == 50
    keys.give_back("a", 7, served)
    assert keys.reached(7, refused) == 100
    keys.give_back("b", 7, refused)
    assert keys.take("c", 7, terms_with(0)) == 100
