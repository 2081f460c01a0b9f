"""Names of sessions: what they may be, that no two are the same, that calls take them for ids."""

from __future__ import annotations

import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managers import SOURCE, SUBSCRIBER, Clock, Gate, engine_of, manager_of

from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
    UnknownNameError,
)
from rtpfanout.sessions import SCOPE, SessionView
from rtpfanout.sessions.fields import is_name
from rtpfanout.signed import Token
from rtpfanout.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager

NAME = "rover-7/front"
UUID = "0a1b2c3d-0000-4000-8000-00000000000a"
PARTS = st.text("abzABZ019._-", min_size=1, max_size=12)


@given(st.lists(PARTS, min_size=1, max_size=9))
def test_parts_of_letters_and_digits_are_a_name(parts: list[str]) -> None:
    assert is_name("/".join(parts))


@pytest.mark.parametrize(
    "name", ["a", "7", ".", "-", "a" * 128, "A/b.c_d-e/9", "0a1b2c3d", UUID[1:]]
)
def test_a_name(manager: SessionManager, name: str) -> None:
    view = manager.create(SOURCE, 1, "video", name=name)
    assert view.name == name
    assert manager.get(name) == manager.get(view.session_id) == view


@pytest.mark.parametrize(
    "name",
    [
        *("/", "/a", "a/", "a//b", "a b", "a\n", "\n", "ä", "a\0", "a" * 129, "a:b", "a*"),
        *(UUID, UUID.upper(), UUID.replace("-", ""), UUID.replace("-", "").upper()),
    ],
)
def test_no_name(manager: SessionManager, name: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        manager.create(SOURCE, 1, "video", name=name)
    assert error.value.field == "name"
    session_id = manager.create(SOURCE, 1, "video").session_id
    with pytest.raises(InvalidArgumentError):
        manager.update(session_id, name=name)
    assert manager.get(session_id).name == ""


def test_every_call_takes_it(manager: SessionManager) -> None:
    view = manager.create(SOURCE, 1, "video", name=NAME)
    manager.add_subscriber(NAME, SUBSCRIBER)
    manager.add_subscribers(NAME, ["127.0.0.1:1", "127.0.0.1:2"])
    manager.remove_subscriber(NAME, SUBSCRIBER)
    assert manager.remove_subscribers(NAME, ["127.0.0.1:2", "127.0.0.1:3"]) == ["127.0.0.1:3"]
    found, _ = manager.list_subscribers(NAME)
    assert [str(each.address) for each in found] == ["127.0.0.1:1"]
    assert manager.stats(NAME).session_id == view.session_id
    text, _ = manager.issue_join_token(NAME)
    assert Token.parse(text).claims.session_id == view.session_id
    assert manager.update(NAME, paused=True).status == "paused"
    manager.delete(NAME)
    assert manager.active_sessions == 0


CALLS: list[Callable[[SessionManager, str], Any]] = [
    lambda m, which: m.get(which),
    lambda m, which: m.update(which, paused=True),
    lambda m, which: m.delete(which),
    lambda m, which: m.stats(which),
    lambda m, which: m.issue_join_token(which),
    lambda m, which: m.add_subscriber(which, SUBSCRIBER),
    lambda m, which: m.add_subscribers(which, [SUBSCRIBER]),
    lambda m, which: m.remove_subscriber(which, SUBSCRIBER),
    lambda m, which: m.remove_subscribers(which, [SUBSCRIBER]),
    lambda m, which: m.list_subscribers(which),
]


@pytest.mark.parametrize("call", CALLS)
def test_one_that_no_session_has(
    manager: SessionManager, call: Callable[[SessionManager, str], Any]
) -> None:
    """As ever to a client of the first version, and to others not found; also of other scopes."""
    manager.create(SOURCE, 1, "video", name=NAME, labels={"site": "north"})
    token = SCOPE.set((("site", "south"),))
    try:
        for name in ("rover-7/fornt", NAME):
            with pytest.raises(UnknownNameError, match="nor the name of a session") as error:
                call(manager, name)
            assert isinstance(error.value, InvalidArgumentError)
            assert isinstance(error.value, NotFoundError)
            assert error.value.field == "session_id"
    finally:
        SCOPE.reset(token)
    with pytest.raises(InvalidArgumentError, match="not a UUID, nor a name") as malformed:
        call(manager, "rover 7")
    assert not isinstance(malformed.value, NotFoundError)


def test_no_two_have_the_same(manager: SessionManager) -> None:
    one = manager.create(SOURCE, 1, "video", name=NAME)
    with pytest.raises(AlreadyExistsError, match=one.session_id) as error:
        manager.create(SOURCE, 2, "video", name=NAME)
    assert (error.value.field, error.value.session_id) == ("name", one.session_id)
    two = manager.create(SOURCE, 2, "video")  # what was refused holds nothing
    with pytest.raises(AlreadyExistsError):
        manager.update(two.session_id, name=NAME, move_key=b"k" * 16)
    manager.create(SOURCE, 3, "video", name=NAME.upper())
    token = SCOPE.set((("site", "south"),))
    try:
        with pytest.raises(AlreadyExistsError) as foreign:
            manager.create(SOURCE, 4, "video", name=NAME, labels={"site": "south"})
    finally:
        SCOPE.reset(token)
    assert one.session_id not in foreign.value.message
    assert foreign.value.session_id == ""
    manager.delete(NAME)
    assert manager.update(two.session_id, name=NAME, move_key=b"k" * 16).name == NAME


def test_a_name_is_free_again_when_its_session_could_not_be_made(
    engine: Engine, clock: Clock
) -> None:
    store = Gate()
    manager = manager_of(engine, clock, store)
    store.refuses_next = True
    with pytest.raises(UnavailableError):
        manager.create(SOURCE, 1, "video", name=NAME)
    with pytest.raises(UnknownNameError):
        manager.get(NAME)
    manager.create(SOURCE, 1, "video", move_key=b"k" * 16)
    with pytest.raises(AlreadyExistsError, match="move_key"):
        manager.create("192.0.2.2:1", 1, "video", name=NAME, move_key=b"k" * 16)
    manager.create(SOURCE, 2, "video", name=NAME)


def test_another_name(manager: SessionManager) -> None:
    view = manager.create(SOURCE, 1, "video", name=NAME)
    start = manager.changes.revision
    renamed = manager.update(NAME, name="rover-7/rear")
    assert renamed.session_id == view.session_id
    with pytest.raises(UnknownNameError):
        manager.get(NAME)
    other = manager.create(SOURCE, 2, "video", name=NAME)
    assert manager.get(NAME) == other
    assert manager.update("rover-7/rear", name="rover-7/rear").name == "rover-7/rear"
    read = manager.changes.after(start)
    assert read is not None
    assert [change.view.name for change in read[0]] == ["rover-7/rear", NAME]
    assert manager.update("rover-7/rear", name="").name == ""
    assert SessionView.from_json(renamed.to_json()) == renamed
    manager.create(SOURCE, 3, "video", name="rover-7/rear")


def test_while_the_store_writes_the_old_name_counts(engine: Engine, clock: Clock) -> None:
    store = Gate()
    manager = manager_of(engine, clock, store)
    view = manager.create(SOURCE, 1, "video", name=NAME)
    store.is_open.clear()
    store.entered.acquire(timeout=30)
    renaming = threading.Thread(target=manager.update, args=[NAME], kwargs={"name": "new"})
    renaming.start()
    assert store.entered.acquire(timeout=30)
    assert manager.get(NAME).session_id == view.session_id
    with pytest.raises(UnknownNameError):
        manager.get("new")
    for name in (NAME, "new"):
        with pytest.raises(AlreadyExistsError):
            manager.create(SOURCE, 2, "video", name=name)
    store.is_open.set()
    renaming.join(30)
    assert manager.get("new").session_id == view.session_id
    store.refuses_next = True
    with pytest.raises(UnavailableError):
        manager.update("new", name=NAME)
    assert manager.get("new").session_id == view.session_id
    manager.create(SOURCE, 2, "video", name=NAME)


def test_pages_of_those_that_begin_so(manager: SessionManager) -> None:
    names = ["rover-7/front", "rover-7/rear", "rover-70/front", ""]
    ids = {
        name: manager.create(SOURCE, n, "video", name=name).session_id
        for n, name in enumerate(names)
    }

    def found(**wanted: str) -> list[str]:
        first, cursor = manager.list_page(1, **wanted)
        rest, end = manager.list_page(9, cursor, **wanted) if cursor else ([], "")
        assert end == ""
        return [view.name for view in (*first, *rest)]

    assert found() == names
    assert found(name_prefix="rover-7") == names[:3]
    assert found(name_prefix="rover-7/") == names[:2]
    assert found(name_prefix="rover-8") == []
    assert found(id_prefix=ids[""][:13].upper()) == [""]
    assert found(id_prefix="rover") == []
    assert found(id_prefix=ids["rover-7/rear"], name_prefix="rover-7/f") == []


# --- what a request id stands for ---


def test_a_request_id_stands_for_the_name_that_was_said(manager: SessionManager) -> None:
    first = manager.create(SOURCE, 1, "video", name=NAME)
    manager.delete(NAME, request_id="r")
    second = manager.create(SOURCE, 1, "video", name=NAME)
    manager.delete(NAME, request_id="r")  # the answer was lost: it is the same call
    assert manager.get(NAME) == second
    with pytest.raises(InvalidArgumentError):
        manager.delete(first.session_id, request_id="r")
    manager.add_subscriber(NAME, SUBSCRIBER, request_id="a")
    manager.update(NAME, name="other")
    assert manager.add_subscriber(NAME, SUBSCRIBER, request_id="a")


def digests(store: Store) -> dict[str, bytes]:
    return {answer.request_id: answer.digest for answer in store.answers()}


def test_digests_of_who_knows_no_names_are_as_they_were(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "s.db")
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        terms = {
            "source_policy": "",
            "labels": {},
            "max_subscribers": 3,
            "name": "",
            "if_exists": "",
        }
        view = manager.create(SOURCE, 7, "video", request_id="c", **terms)
        manager.update(view.session_id.upper(), paused=True, request_id="u")
        manager.delete(view.session_id, request_id="d")
    said = {
        "c": [
            "CreateSession",
            {"max_subscribers": 3, "media_type": "video", "source_address": SOURCE, "ssrc": 7},
        ],
        "u": ["UpdateSession", {"changes": {"paused": True}, "session_id": view.session_id}],
        "d": ["DeleteSession", {"session_id": view.session_id}],
    }
    with Store(path) as store:
        assert digests(store) == {
            name: hashlib.sha256(json.dumps(each, separators=(",", ":")).encode()).digest()
            for name, each in said.items()
        }


def test_for_ever_is_another_request_than_nothing(manager: SessionManager) -> None:
    manager.create(SOURCE, 1, "video", request_id="r")
    with pytest.raises(InvalidArgumentError, match="another call"):
        manager.create(SOURCE, 1, "video", request_id="r", idle_timeout_secs=0.0)
