"""Whose consent the packet path is told to await: each address once, and no longer than it is."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from managers import Clock, Gate, manager_of

from rtpfanout._fastpath import Engine
from rtpfanout.errors import UnavailableError
from rtpfanout.model import Address
from rtpfanout.sessions.admission import split_records
from rtpfanout.store import Store

if TYPE_CHECKING:
    from pathlib import Path

A, B = "127.0.0.1:6000", "127.0.0.1:6001"


class Listening(Engine):
    """Knows how often each address is awaited."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        self.count: Counter[bytes] = Counter()

    def await_consent(self, records: bytes, on: bool) -> None:
        super().await_consent(records, on)
        for record in split_records(records):
            self.count[record] += 1 if on else -1

    @property
    def awaited(self) -> set[str]:
        """None more than once."""
        assert set(self.count.values()) <= {0, 1}
        return {text for text in (A, B) if self.count[Address.parse(text).record]}


@pytest.fixture
def engine() -> Listening:
    return Listening(
        Address.parse("127.0.0.1:0"), max_sessions=5, max_subscribers=5, receive_queue_packets=64
    )


def test_they_are_awaited_while_any_session_asks_them(engine: Listening) -> None:
    manager = manager_of(engine, Clock())
    one = manager.create("192.0.2.1:1", 1, "video", consent="echo").session_id
    two = manager.create("192.0.2.1:1", 2, "video", consent="echo").session_id
    plain = manager.create("192.0.2.1:1", 3, "video").session_id
    manager.add_subscriber(plain, B)
    assert engine.awaited == set()
    manager.add_subscriber(one, A)
    manager.add_subscriber(one, A)
    manager.add_subscriber(two, A)
    assert engine.awaited == {A}
    manager.update(plain, consent="echo")
    assert engine.awaited == {A, B}
    manager.remove_subscriber(one, A)
    assert engine.awaited == {A, B}
    manager.update(two, consent="none")
    assert engine.awaited == {B}
    manager.delete(plain)
    assert engine.awaited == set()


def test_one_that_the_store_refuses_is_not(engine: Listening) -> None:
    store = Gate()
    manager = manager_of(engine, Clock(), store)
    session = manager.create("192.0.2.1:1", 1, "video", consent="echo").session_id
    store.refuses = True
    with pytest.raises(UnavailableError):
        manager.add_subscriber(session, A)
    assert engine.awaited == set()


def test_after_a_restart_they_are_awaited_again(engine: Listening, tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    with Store(path) as store:
        before = manager_of(engine, Clock(), store)
        session = before.create("192.0.2.1:1", 1, "video", consent="echo").session_id
        before.add_subscriber(session, A)
    later = Listening(
        Address.parse("127.0.0.1:0"), max_sessions=5, max_subscribers=5, receive_queue_packets=64
    )
    with Store(path) as store:
        manager_of(later, Clock(), store).restore()
        assert later.awaited == {A}
