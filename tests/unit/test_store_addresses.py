"""Which of our addresses subscribers spoke to, and by which interface link-local ones are: tables
of their own, which other versions don't know."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_support import contents, record, records, session, split

from rtpfanout.model import Address
from rtpfanout.store import (
    MEMORY,
    Store,
    StoredConsent,
    StoredDelivery,
)
from rtpfanout.store.interfaces import NOWHERE, renumbered
from rtpfanout.store.writes import (
    drop_session,
    drop_subscribers,
    put_consents,
    put_deliveries,
    put_interface,
    put_session,
    put_subscribers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rtpfanout.store import Change

HERE, THERE = Address.parse("10.0.0.1:0").packed, Address.parse("[2001:db8::1]:0").packed


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "s.db")


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, path: str) -> Iterator[Store]:
    with Store(path if request.param == "file" else MEMORY) as opened:
        yield opened


def write(store: Store, *changes: Change) -> None:
    store.submit(changes).result(30)


def link_local(number: int, index: int) -> bytes:
    return Address.parse(f"[fe80::{number:x}%{index}]:6000").record


def test_addresses_come_back(path: str) -> None:
    first, second = (StoredDelivery(1, record(n), HERE) for n in (1, 2))
    with Store(path) as store:
        write(store, put_session(session(1)), put_subscribers(1, records([1, 2, 3]), 0))
        assert list(store.deliveries()) == []
        write(store, put_deliveries([first._replace(local=THERE), second]))
        write(store, put_deliveries([first]))
    with Store(path) as store:
        assert sorted(store.deliveries()) == [first, second]


@pytest.mark.parametrize("change", [drop_session(1), drop_subscribers(1, records(range(3000)))])
def test_they_go_with_their_subscriber(store: Store, change: Change) -> None:
    there = put_subscribers(1, records(range(2500)), 0)
    spoken = [StoredDelivery(1, one, HERE) for one in split(records(range(2500)))]
    other = StoredDelivery(2, record(1), THERE)
    write(store, put_session(session(1)), put_session(session(2)), there)
    write(store, put_subscribers(2, record(1), 0), put_deliveries([*spoken, other]))
    assert len(list(store.deliveries())) == 2501
    write(store, change)
    assert list(store.deliveries()) == [other]
    write(store, put_deliveries(spoken[:3]))  # of nobody who is there
    assert list(store.deliveries()) == [other]


def test_an_earlier_version_drops_them_without_knowing_them(path: str) -> None:
    with Store(path) as store:
        for n in (1, 2, 3):
            write(store, put_session(session(n)), put_subscribers(n, record(n), 0))
            write(store, put_deliveries([StoredDelivery(n, record(n), HERE)]))
    with sqlite3.connect(path) as earlier:
        earlier.execute("DELETE FROM subscriber WHERE session = 1")
        earlier.execute("DELETE FROM session WHERE sequence = 2")
    earlier.close()
    with Store(path) as store:
        assert [each.sequence for each in store.deliveries()] == [3]


def test_link_local_addresses_follow_the_name_of_their_interface(path: str) -> None:
    """Two have each other's index now, one has another, and one is not there."""
    with Store(path) as store:
        for number, name in ((2, "a"), (3, "b"), (4, "c"), (5, "d")):
            write(store, put_interface(number, name))
        write(
            store,
            put_session(session(1, source_text="[fe80::1%2]:5000", consent="echo")),
            put_session(session(2, source_policy="ip", source_text="fe80::1%3")),
            put_session(session(3, source_policy="latch", source_text="",
                               pinned_source="[fe80::1%4]:5000")),
            put_session(session(4, source_text="[2001:db8::2]:5000")),
        )  # fmt: skip
        each = [link_local(n, n) for n in (2, 3, 4, 5)]
        write(store, put_subscribers(1, b"".join([*each, record(2)]), 0))
        write(store, put_consents(b"boot", [StoredConsent(1, each[0], 9)]))
        write(store, put_deliveries([StoredDelivery(1, each[1], THERE)]))
    now = {"a": 3, "b": 2, "c": 44, "new": 5}
    gone = NOWHERE + 5
    wanted = [link_local(2, 3), link_local(3, 2), link_local(4, 44), link_local(5, gone)]
    with Store(path) as store:
        assert store.place_interfaces(now) == {3: "a", 2: "b", 44: "c", gone: "d"}
    with Store(path) as store:
        found = contents(store)
        texts = {s.sequence: s.source_text + s.pinned_source for s in found}
        assert texts == {
            1: "[fe80::1%3]:5000",
            2: "fe80::1%2",
            3: "[fe80::1%44]:5000",
            4: "[2001:db8::2]:5000",
        }
        (subscribers,) = [rows for s, rows in found.items() if s.sequence == 1]
        assert set(subscribers) == {*wanted, record(2)}
        assert list(store.consents(b"boot", 0)) == [StoredConsent(1, wanted[0], 9)]
        assert list(store.deliveries()) == [StoredDelivery(1, wanted[1], THERE)]
        assert store.place_interfaces(now | {"d": 6})[6] == "d"
        (subscribers,) = [rows for s, rows in contents(store).items() if s.sequence == 1]
        assert link_local(5, 6) in subscribers


@given(
    st.dictionaries(st.integers(1, 9), st.sampled_from("abcdefgh")),
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 9)),
)
def test_no_address_is_left_on_an_interface_of_another_name(
    kept: dict[int, str], now: dict[str, int]
) -> None:
    changes = renumbered(kept, now)
    names = {index: name for name, index in now.items()}
    for number, name in kept.items():
        there = changes.get(number, number)
        if name in now:
            assert there == now[name]
        else:
            assert there not in names
