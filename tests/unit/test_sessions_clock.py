"""Leases and ages when the wall clock is set: within a boot and over one, with crashes between."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from managers import SECOND, SOURCE, engine_of, policy_of
from store_support import back_to_layout_1

from rtpfanout import boot
from rtpfanout.sessions import Limits, SessionManager
from rtpfanout.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RIGHT = datetime(2026, 5, 1, tzinfo=UTC)
UNSET = datetime(2000, 1, 1, tzinfo=UTC)
LONG, SHORT = "127.0.0.1:6000", "127.0.0.1:6001"


class Host:
    """Its clocks: what it boots with is `monotonic` 0, and the wall clock is set by whom it may."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = str(path / "s.db")
        self.monotonic = 50 * SECOND
        self.wall = RIGHT
        self._boots = 0
        self._patch = monkeypatch
        self.boot()

    def boot(self) -> None:
        self._boots += 1
        self.monotonic = 20 * SECOND
        self._patch.setattr(boot.Path, "read_bytes", lambda _: b"%d" % self._boots)
        boot.boot_id.cache_clear()

    def wait(self, seconds: float) -> None:
        self.monotonic += round(seconds * SECOND)
        self.wall += timedelta(seconds=seconds)

    @contextmanager
    def server(self) -> Iterator[SessionManager]:
        """What ends as by a crash: nothing is written at the end."""
        with engine_of() as engine, Store(self.path) as store:
            manager = SessionManager(
                engine,
                policy_of(engine),
                store,
                limits=Limits(sessions=50, fanout=3),
                monotonic_ns=lambda: self.monotonic,
                utc_now=lambda: self.wall,
            )
            manager.restore()
            yield manager

    def begin(self) -> str:
        """A session with a lease of an hour and one of four seconds."""
        with self.server() as manager:
            session_id = manager.create(SOURCE, 1, "video").session_id
            manager.add_subscriber(session_id, LONG, ttl_secs=3600)
            manager.add_subscriber(session_id, SHORT, ttl_secs=4)
        return session_id

    def left(self, manager: SessionManager, session_id: str) -> list[str]:
        manager.housekeeping.expire_subscribers()
        return sorted(str(v.address) for v in manager.list_subscribers(session_id)[0])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with monkeypatch.context() as patch:
        yield Host(tmp_path, patch)
    boot.boot_id.cache_clear()


@pytest.mark.parametrize(("before", "after"), [(UNSET, RIGHT), (RIGHT, UNSET)])
def test_the_clock_is_set_over_a_crash(host: Host, before: datetime, after: datetime) -> None:
    host.wall = before
    session_id = host.begin()
    host.wait(2)
    host.wall = after
    with host.server() as manager:
        assert host.left(manager, session_id) == [LONG, SHORT]
        assert manager.stats(session_id).uptime_seconds == pytest.approx(2)
        host.wait(3)
        assert host.left(manager, session_id) == [LONG]
    host.wait(3590)
    with host.server() as manager:
        assert host.left(manager, session_id) == [LONG]
        assert manager.stats(session_id).uptime_seconds == pytest.approx(3595)
        host.wait(7)
        assert host.left(manager, session_id) == []


def test_times_are_told_by_the_clock_as_it_is(host: Host) -> None:
    host.wall = UNSET
    with host.server() as manager:
        session_id = manager.create(SOURCE, 1, "video").session_id
        manager.add_subscriber(session_id, LONG, ttl_secs=3600)
        host.wait(10)
        host.wall = RIGHT
        (view,) = manager.list_subscribers(session_id)[0]
        assert view.expires_at
        assert view.expires_at - RIGHT == timedelta(seconds=3590)
        assert view.since == RIGHT - timedelta(seconds=10)
    with host.server() as manager:
        assert manager.get(session_id).created_at == RIGHT - timedelta(seconds=10)
        assert manager.list_subscribers(session_id)[0] == [view]
        created = manager.get(session_id).created_at
    host.wall += timedelta(milliseconds=300)  # corrected, not set
    with host.server() as manager:
        assert manager.get(session_id).created_at == created


def test_over_a_boot_the_wall_clock_tells(host: Host) -> None:
    session_id = host.begin()
    host.wait(1800)
    host.boot()
    with host.server() as manager:
        assert host.left(manager, session_id) == [LONG]
        assert manager.stats(session_id).uptime_seconds == pytest.approx(1800)
        host.wait(1802)
        assert host.left(manager, session_id) == []


def test_over_a_boot_without_the_time_a_lease_gets_no_longer(host: Host) -> None:
    session_id = host.begin()
    host.boot()
    host.wall = UNSET
    for _ in range(2):
        with host.server() as manager:
            assert host.left(manager, session_id) == [LONG, SHORT]
            assert 0 <= manager.stats(session_id).uptime_seconds < 1
    host.wait(5)
    host.wall = RIGHT + timedelta(days=1)
    with host.server() as manager:  # of the same boot: that the clock is set means nothing
        assert host.left(manager, session_id) == [LONG]
        host.wait(3600)
        assert host.left(manager, session_id) == []


def test_a_boot_after_the_clock_was_set(host: Host) -> None:
    host.wall = UNSET
    session_id = host.begin()
    host.wall = RIGHT
    with host.server() as manager:
        host.wall += timedelta(days=1)  # and once more, while it runs and writes nothing
        manager.housekeeping.keep_clock()
    host.wait(1800)
    host.boot()
    with host.server() as manager:
        assert host.left(manager, session_id) == [LONG]
        assert manager.stats(session_id).uptime_seconds == pytest.approx(1800)
        host.wait(1802)
        assert host.left(manager, session_id) == []


def test_a_boot_id_that_lies_is_found_out(host: Host) -> None:
    """As of a virtual machine that was set back: its monotonic clock is before the last write."""
    session_id = host.begin()
    host.monotonic -= 19 * SECOND
    with host.server() as manager:
        assert host.left(manager, session_id) == [LONG, SHORT]
        host.wait(5)
        assert host.left(manager, session_id) == [LONG]


def test_after_a_version_that_keeps_no_clock_its_times_count(host: Host) -> None:
    """One with layout 1 wrote wall times; a trigger noted that the clock is not that of these."""
    host.wall = UNSET
    session_id = host.begin()
    host.wall = RIGHT
    until = round((RIGHT + timedelta(hours=1)).timestamp()) * SECOND
    with closing(sqlite3.connect(host.path)) as connection, connection:
        connection.execute("UPDATE subscriber SET lease_ns = ?", (until,))
        connection.execute("UPDATE clock SET written_ns = 0")
        back_to_layout_1(connection)
    with host.server() as manager:
        assert host.left(manager, session_id) == [LONG, SHORT]
        host.wait(3602)
        assert host.left(manager, session_id) == []
