"""How long a session stays, with a name and without; what a start knows of that and of names."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import pytest
from managers import SECOND, SOURCE, SUBSCRIBER, Clock, deny, engine_of, manager_of

from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    NotFoundError,
    RefusedError,
)
from rtpfanout.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rtpfanout.sessions import SessionManager

NAME = "rover-7/front"


def expired(manager: SessionManager, clock: Clock, secs: float) -> list[str]:
    clock.now += round(secs * SECOND)
    return [view.name or str(view.ssrc) for view in manager.housekeeping.expire_idle()]


def test_one_with_a_name_stays(manager: SessionManager, clock: Clock) -> None:
    manager.create(SOURCE, 1, "video", name=NAME)
    manager.create(SOURCE, 2, "video")
    manager.create(SOURCE, 3, "video", name="short", idle_timeout_secs=10)
    manager.create(SOURCE, 4, "video", idle_timeout_secs=0.0)
    manager.create(SOURCE, 5, "video", idle_timeout_secs=60)
    assert expired(manager, clock, 9.9) == []
    assert expired(manager, clock, 0.1) == ["short"]
    assert expired(manager, clock, 20) == ["2"]  # session_timeout_secs
    assert expired(manager, clock, 30) == ["5"]
    assert expired(manager, clock, 10**6) == []
    assert manager.active_sessions == 2


def test_another_timeout_has_all_of_its_time(manager: SessionManager, clock: Clock) -> None:
    manager.create(SOURCE, 1, "video", name=NAME)
    assert expired(manager, clock, 1000) == []
    assert manager.update(NAME, idle_timeout_secs=5).terms.idle_timeout_secs == 5
    assert expired(manager, clock, 4.9) == []
    assert manager.update(NAME, idle_timeout_secs=0.0).terms.idle_timeout_secs == 0
    assert expired(manager, clock, 1000) == []
    other = manager.create(SOURCE, 2, "video", name="other")
    assert expired(manager, clock, 1000) == []
    manager.update("other", name="")
    assert expired(manager, clock, 29.9) == []
    assert expired(manager, clock, 0.1) == ["2"]
    with pytest.raises(NotFoundError):
        manager.get(other.session_id)
    assert manager.get(NAME).terms.idle_timeout_secs == 0


@pytest.mark.parametrize("secs", [-1.0, float("nan"), float("inf"), 30 * 86_400 + 1])
def test_no_such_timeout(manager: SessionManager, secs: float) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        manager.create(SOURCE, 1, "video", idle_timeout_secs=secs)
    assert error.value.field == "idle_timeout_secs"


@contextmanager
def started(path: str, clock: Clock, denied: str = "198.51.100.0/24") -> Iterator[SessionManager]:
    with Store(path) as store, engine_of() as engine:
        manager = manager_of(engine, clock, store)
        deny(manager, denied)
        manager.restore()
        yield manager


def test_a_start_knows_names_and_timeouts(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "s.db")
    with started(path, clock) as manager:
        manager.create(SOURCE, 1, "video", name=NAME)
        manager.create(SOURCE, 2, "video", name="short", idle_timeout_secs=10)
        manager.create(SOURCE, 3, "video", idle_timeout_secs=0.0)
        manager.create("127.0.0.1", 4, "video", source_policy="latch", name="latch")
        manager.create(SOURCE, 5, "video")
        before = [manager.get(name) for name in (NAME, "short", "latch")]
    with started(path, clock) as manager:
        assert [manager.get(name) for name in (NAME, "short", "latch")] == before
        with pytest.raises(AlreadyExistsError):
            manager.create(SOURCE, 9, "video", name=NAME)
        assert expired(manager, clock, 10) == ["short"]
        assert expired(manager, clock, 20) == ["5"]
        assert expired(manager, clock, 10**6) == []
    with started(path, clock) as manager:
        assert [view.ssrc for view in manager.list_page()[0]] == [1, 3, 4]
        manager.create(SOURCE, 2, "video", name="short")


def change(path: str, query: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(query, values)


def test_one_that_is_refused_keeps_its_name(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "s.db")
    with started(path, clock) as manager:
        view = manager.create(SOURCE, 1, "video", name=NAME)
    change(path, "UPDATE session SET source_text = 'garbage'")
    with started(path, clock) as manager:
        assert manager.get(NAME).status == "refused"
        assert manager.list_page(name_prefix="rover")[0][0].name == NAME
        (glance,) = manager.overview.glances()
        assert (glance.name, glance.status, glance.figures) == (NAME, "refused", None)
        for if_exists in ("", "return"):
            with pytest.raises(AlreadyExistsError, match=view.session_id):
                manager.create(SOURCE, 2, "video", name=NAME, if_exists=if_exists)
        with pytest.raises(RefusedError):
            manager.update(NAME, name="other")
        assert manager.list_subscribers(NAME) == ([], "")
        manager.delete(NAME)
        assert manager.create(SOURCE, 2, "video", name=NAME).ssrc == 2


def test_of_two_with_one_name_the_second_is_kept_and_refused(tmp_path: Path, clock: Clock) -> None:
    """As no version writes it."""
    path = str(tmp_path / "s.db")
    with started(path, clock) as manager:
        first = manager.create(SOURCE, 1, "video", name=NAME)
        second = manager.create(SOURCE, 2, "video", name="other")
        manager.add_subscriber("other", SUBSCRIBER)
    change(path, "UPDATE session SET name = ?", NAME)
    with started(path, clock) as manager:
        assert manager.get(NAME).session_id == first.session_id
        refused = manager.get(second.session_id)
        assert (refused.status, refused.name, refused.subscriber_count) == ("refused", NAME, 1)
        assert "has the name" in refused.refused_reason
        manager.housekeeping.judge_policy()
        assert manager.refused == (1, 0)
        manager.update(NAME, name="third")
        manager.housekeeping.judge_policy()
        assert manager.refused == (0, 0)
        assert manager.get(NAME).session_id == second.session_id
        manager.delete(NAME)
        manager.create(SOURCE, 2, "video", name=NAME)


@pytest.mark.parametrize(("column", "value"), [("name", "a b"), ("idle_timeout_secs", 1e300)])
def test_what_no_call_would_have_is_refused(
    tmp_path: Path, clock: Clock, column: str, value: object
) -> None:
    path = str(tmp_path / "s.db")
    with started(path, clock) as manager:
        view = manager.create(SOURCE, 1, "video", name=NAME)
    change(path, f"UPDATE session SET {column} = ?", value)  # noqa: S608
    with started(path, clock) as manager:
        assert manager.get(view.session_id).status == "refused"
        manager.delete(view.session_id)
