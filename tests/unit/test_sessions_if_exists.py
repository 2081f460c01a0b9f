"""CreateSession with if_exists = "return": how a program has its session, at each of its starts."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from managers import SECOND, SOURCE, Clock, Gate, manager_of

from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)
from rtpfanout.model import Address
from rtpfanout.sessions import SCOPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager, SessionView

NAME = "rover-7/front"
KEY = b"k" * 16
TERMS: dict[str, Any] = {
    "name": NAME,
    "labels": {"a": "1", "b": "2"},
    "max_subscribers": 2,
    "idle_timeout_secs": 60.0,
    "move_key": KEY,
    "consent": "echo",
    "ingest_limit_bps": 10**6,
}


def ensure(manager: SessionManager, source: str = SOURCE, **terms: Any) -> SessionView:
    said = {"ssrc": 1, "media_type": "video", **terms}
    return manager.create(source, if_exists="return", **said)


@pytest.mark.parametrize("terms", [{}, {"name": NAME}, TERMS])
def test_the_session_that_is_there(manager: SessionManager, terms: dict[str, Any]) -> None:
    first = ensure(manager, **terms)
    manager.update(first.session_id, paused=True)
    again = ensure(manager, "[::ffff:192.0.2.1]:5000", **terms)
    assert (again.session_id, again.status) == (first.session_id, "paused")
    assert manager.counts["created"] == 1
    manager.delete(first.session_id)
    assert ensure(manager, **terms).session_id != first.session_id


def test_without_it_or_with_error_there_is_an_error(manager: SessionManager) -> None:
    ensure(manager, name=NAME)
    for if_exists in ("", "error"):
        with pytest.raises(AlreadyExistsError):
            manager.create(SOURCE, 1, "video", name=NAME, if_exists=if_exists)
    with pytest.raises(InvalidArgumentError) as error:
        manager.create(SOURCE, 1, "video", if_exists="ignore")
    assert error.value.field == "if_exists"


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("ssrc", 2),
        ("media_type", "audio"),
        ("source", "192.0.2.1:5001"),
        ("source_policy", "ip"),
        ("labels", {"a": "1"}),
        ("max_subscribers", 3),
        ("idle_timeout_secs", 0.0),
        ("idle_timeout_secs", None),
        ("move_key", KEY[:-1] + b"l"),
        ("move_key", b""),
        ("consent", ""),
        ("ingest_limit_bps", 0),
    ],
)
def test_the_field_that_is_another_is_named(
    manager: SessionManager, field: str, other: object
) -> None:
    there = ensure(manager, **TERMS)
    asked = TERMS | {field: other}
    if field == "source_policy":
        asked["source"] = "192.0.2.1"
    with pytest.raises(AlreadyExistsError) as error:
        ensure(manager, **asked)
    assert error.value.field == {"source": "source_address"}.get(field, field)
    assert error.value.session_id == there.session_id
    assert there.session_id in error.value.message
    assert NAME in error.value.message
    assert "kkkk" not in error.value.message
    assert manager.get(NAME) == there


def test_one_of_that_source_and_another_name(manager: SessionManager) -> None:
    there = ensure(manager, name=NAME)
    for name in ("", "other"):
        with pytest.raises(AlreadyExistsError, match=f"with name {NAME}") as error:
            ensure(manager, name=name)
        assert (error.value.field, error.value.session_id) == ("name", there.session_id)


def test_a_source_that_signed_a_move_is_not_asked_for(manager: SessionManager) -> None:
    there = ensure(manager, **TERMS)
    manager.signals.move_source(there.session_id, Address.parse("192.0.2.9:9"), 5, KEY)
    assert ensure(manager, **TERMS).source_address == "192.0.2.9:9"
    with pytest.raises(AlreadyExistsError):
        ensure(manager, **TERMS | {"max_subscribers": 9})


def test_a_latch_that_is_pinned_is_the_same(manager: SessionManager, engine: Engine) -> None:
    terms = {"source": "127.0.0.1", "source_policy": "latch", "name": NAME}
    there = ensure(manager, **terms)
    (handle,) = engine.all_session_stats(0)
    assert manager.signals.on_source_notice(handle, Address.parse("127.0.0.1:9"))
    again = ensure(manager, **terms)
    assert (again.session_id, str(again.source)) == (there.session_id, "127.0.0.1:9")


def test_of_others_nothing_is_told(manager: SessionManager) -> None:
    there = ensure(manager, name=NAME, labels={"site": "north"})
    token = SCOPE.set((("site", "south"),))
    try:
        for name in (NAME, ""):
            with pytest.raises(AlreadyExistsError) as error:
                ensure(manager, name=name, labels={"site": "south"})
            assert there.session_id not in error.value.message
            assert error.value.session_id == ""
    finally:
        SCOPE.reset(token)


def test_an_overloaded_server_answers_for_what_is_there(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = ensure(manager, name=NAME)

    def full() -> None:
        raise UnavailableError("the server is overloaded")

    monkeypatch.setattr(manager._life.high_water, "admit", full)
    assert ensure(manager, name=NAME) == there
    with pytest.raises(UnavailableError):
        ensure(manager, ssrc=2, name="new")


def test_with_a_request_id_the_answer_stays(manager: SessionManager) -> None:
    there = ensure(manager, name=NAME)
    assert ensure(manager, name=NAME, request_id="r") == there
    manager.delete(NAME)
    assert ensure(manager, name=NAME, request_id="r") == there  # as it was answered
    with pytest.raises(NotFoundError):
        manager.get(NAME)


def in_thread(call: Callable[[], SessionView]) -> tuple[threading.Thread, list[Any]]:
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(call().session_id)
        except UnavailableError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


@pytest.mark.parametrize("is_refused", [False, True])
@pytest.mark.parametrize("name", ["", NAME])
def test_many_at_once_make_one(engine: Engine, clock: Clock, name: str, is_refused: bool) -> None:
    """Whoever comes while one is made waits for it, and makes it where that failed."""
    store = Gate()
    manager = manager_of(engine, clock, store)
    store.is_open.clear()
    store.refuses_next = is_refused
    first, outcome = in_thread(lambda: ensure(manager, name=name))
    assert store.entered.acquire(timeout=30)
    others = [in_thread(lambda: ensure(manager, name=name)) for _ in range(5)]
    store.is_open.set()
    for thread in [first, *(thread for thread, _ in others)]:
        thread.join(30)
    ids = {found for _, (found,) in others}
    assert len(ids) == 1
    assert manager.get(*ids).name == name
    assert isinstance(outcome[0], UnavailableError) if is_refused else outcome[0] in ids
    assert manager.active_sessions == 1


def test_one_that_is_being_deleted_is_made_anew(engine: Engine, clock: Clock) -> None:
    store = Gate()
    manager = manager_of(engine, clock, store)
    for _ in range(20):
        ensure(manager, name=NAME)
        deleting = threading.Thread(target=manager.delete, args=[NAME])
        deleting.start()
        ensure(manager, name=NAME)  # the one or the other
        deleting.join(30)
        ensure(manager, name=NAME)
        assert manager.active_sessions == 1


def test_how_long_a_latch_waits_or_waits_again_is_no_difference(
    manager: SessionManager, clock: Clock
) -> None:
    latch = {"source": "", "name": NAME, "source_policy": "latch", "ssrc_policy": "follow"}
    there = ensure(manager, **latch)
    clock.now += 70 * SECOND
    manager.update(NAME, latch_window_secs=300)
    again = ensure(manager, **latch)
    assert (again.session_id, again.terms.source.latch_window_secs) == (there.session_id, 300)
    with pytest.raises(AlreadyExistsError, match="latch_scope"):
        ensure(manager, **latch, latch_scope="ip")
