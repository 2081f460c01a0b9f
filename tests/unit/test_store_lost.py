"""The store's file is removed, replaced, moved away or written over while it is open."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store_support import contents, record, session
from structlog.testing import capture_logs
from support import eventually, requires_root

from rtpfanout.errors import UnavailableError
from rtpfanout.store import Store, submission
from rtpfanout.store.writes import put_secret, put_session, put_subscribers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rtpfanout.store import Change


@pytest.fixture(autouse=True)
def looks_when_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by itself, in the middle of what a test does to the file."""
    monkeypatch.setattr(submission, "LOOK_SECS", 3600.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "s.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(str(path)) as store:
        write(
            store, put_session(session(1)), put_subscribers(1, record(1), 1), put_secret("a", b"b")
        )
        yield store


def write(store: Store, *changes: Change) -> None:
    store.submit(changes).result(30)


def after_a_crash(path: Path, tmp_path: Path) -> dict[int, int]:
    """How many subscribers each session has, by what lies on the disk now."""
    copy = tmp_path / f"copy-{time.monotonic_ns()}"
    copy.mkdir()
    for suffix in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(f"{path}{suffix}", copy / f"s.db{suffix}")
    with Store(str(copy / "s.db")) as found:
        return {s.sequence: len(subscribers) for s, subscribers in contents(found).items()}


def other_store(path: Path) -> Path:
    """One that has something else, as a backup has."""
    other = path.parent.parent / "other.db"
    with Store(str(other)) as store:
        write(store, put_session(session(7)))
    return other


def remove(path: Path) -> None:
    path.unlink()


def remove_all(path: Path) -> None:
    shutil.rmtree(path.parent)


def move_away(path: Path) -> None:
    path.parent.rename(path.parent.with_name("away"))


def remove_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def remove_lock(path: Path) -> None:
    Path(f"{path}.lock").unlink()


def replace(path: Path) -> None:
    other_store(path).rename(path)


def replace_all(path: Path) -> None:
    other = other_store(path)
    move_away(path)
    path.parent.mkdir()
    other.rename(path)


def write_over(path: Path) -> None:
    shutil.copyfile(other_store(path), path)


WAYS = [remove, remove_all, move_away, remove_log, remove_lock, replace, replace_all, write_over]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_nothing_is_acknowledged_into_nothing(
    store: Store, path: Path, tmp_path: Path, way: Callable[[Path], None]
) -> None:
    store._database.read_all()
    way(path)
    with capture_logs() as log:
        write(store, put_session(session(2)), put_subscribers(2, record(1) + record(2), 1))
    assert after_a_crash(path, tmp_path) == {1: 1, 2: 2}
    assert [entry["log_level"] for entry in log] == ["error", "warning"]
    assert (store.counts()["lost"], store.counts()["healed"], store.failing) == (1, 1, "")
    write(store, put_session(session(3)))
    assert after_a_crash(path, tmp_path) == {1: 1, 2: 2, 3: 0}
    assert store.counts()["lost"] == 1
    if way in (replace, replace_all, write_over):  # theirs is kept
        assert log[1]["moved_to"]
        assert after_a_crash(Path(log[1]["moved_to"]), tmp_path) == {7: 0}
    with pytest.raises(Exception, match="in use"):
        Store(str(path))
    store.close()
    with Store(str(path)) as again:
        assert set(again.secret("a")) == set(b"b")
        assert {s.sequence for s in again.sessions()} == {1, 2, 3}


@pytest.mark.parametrize("way", [remove, replace], ids=lambda way: way.__name__)
def test_it_heals_without_a_change_and_at_the_end(
    path: Path, tmp_path: Path, way: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "LOOK_SECS", 0.05)
    store = Store(str(path))
    write(store, put_session(session(1)), put_subscribers(1, record(1), 1))
    store._read_all_at = 0.0
    eventually(lambda: store._database.is_in_memory, bool, "it is all in memory")
    way(path)
    eventually(lambda: store.counts()["healed"], bool, "it is written anew")
    assert after_a_crash(path, tmp_path) == {1: 1}
    way(path)
    store.close()
    assert after_a_crash(path, tmp_path) == {1: 1}


def test_where_it_cant_be_written_anew_changes_are_refused(
    store: Store, path: Path, tmp_path: Path
) -> None:
    away = path.parent.with_name("away")
    move_away(path)
    path.parent.write_text("in the way of the directory")
    with capture_logs() as log:
        for _ in range(3):
            with pytest.raises(UnavailableError, match=r"was removed.*can't be written anew"):
                write(store, put_session(session(2)))
        assert store.failing
        path.parent.unlink()
        away.rename(path.parent)  # it was a mistake
        write(store, put_session(session(3)))
    assert after_a_crash(path, tmp_path) == {1: 1, 3: 0}
    assert [entry["log_level"] for entry in log] == ["error", "error", "info"]
    assert (store.counts()["lost"], store.counts()["healed"], store.failing) == (1, 0, "")


def test_another_server_that_has_begun_there_is_left_alone(
    store: Store, path: Path, tmp_path: Path
) -> None:
    move_away(path)
    with Store(str(path)) as other:
        write(other, put_session(session(9)))
        with pytest.raises(UnavailableError, match="in use by process"):
            write(store, put_session(session(2)))
        store.close()
        write(other, put_session(session(10)))
        assert after_a_crash(path, tmp_path) == {9: 0, 10: 0}


def test_what_is_written_over_a_large_store_counts_at_the_next_start(
    store: Store, path: Path, tmp_path: Path
) -> None:
    """It may be a backup; what is left of ours in memory is not all of it."""
    assert not store._database.is_in_memory
    write_over(path)
    with pytest.raises(UnavailableError, match=r"overwritten by another program.*start the server"):
        write(store, put_session(session(2)))
    store.close()
    assert after_a_crash(path, tmp_path) == {7: 0}


def test_what_is_written_over_a_large_store_takes_nothing_away(
    store: Store, path: Path, tmp_path: Path
) -> None:
    """Its log may have all that was acknowledged since the last checkpoint."""
    original = path.read_bytes()
    write_over(path)
    with capture_logs() as log, pytest.raises(UnavailableError, match="overwritten"):
        write(store, put_session(session(2)))
    store.close()
    assert not Path(f"{path}-wal").exists()
    (kept,) = (entry["moved_to"] for entry in log if "moved_to" in entry)
    path.write_bytes(original)
    Path(kept).rename(f"{path}-wal")
    assert after_a_crash(path, tmp_path) == {1: 1}


def test_a_large_store_whose_time_of_change_is_set_is_the_same(
    store: Store, path: Path, tmp_path: Path
) -> None:
    """`touch`, or a backup that sets it back."""
    assert not store._database.is_in_memory
    for nanoseconds in (1, 2):
        os.utime(path, ns=(0, nanoseconds))
        write(store, put_session(session(1 + nanoseconds)))
    assert after_a_crash(path, tmp_path) == {1: 1, 2: 0, 3: 0}
    os.utime(path)
    remove_log(path)
    write(store, put_session(session(4)))
    assert after_a_crash(path, tmp_path) == {1: 1, 2: 0, 3: 0, 4: 0}
    assert (store.counts()["lost"], store.counts()["healed"]) == (1, 1)


def test_a_store_that_has_grown_is_not_in_memory_any_more(store: Store) -> None:
    store._database.read_all()
    assert store._database.is_in_memory
    for number in range(30):
        write(store, put_secret(f"{number}", bytes(1_000_000)))
    assert not store._database.is_in_memory


def test_a_volume_that_is_gone_is_waited_for(tmp_path: Path) -> None:
    requires_root()
    volume, elsewhere = tmp_path / "volume", tmp_path / "elsewhere"
    volume.mkdir()
    elsewhere.mkdir()
    path = volume / "rtp" / "s.db"

    def mount(*arguments: object) -> None:
        subprocess.run(["mount", *map(str, arguments)], check=True)

    mount("-t", "tmpfs", "none", volume)
    try:
        mount("--make-private", volume)
        with Store(str(path)) as store:
            write(store, put_session(session(1)))
            mount("--move", volume, elsewhere)
            with pytest.raises(UnavailableError, match="volume is not mounted"):
                write(store, put_session(session(2)))
            assert list(volume.iterdir()) == []
            mount("--move", elsewhere, volume)
            write(store, put_session(session(3)))
            assert after_a_crash(path, tmp_path) == {1: 0, 3: 0}
    finally:
        for directory in (volume, elsewhere):
            subprocess.run(["umount", "-l", str(directory)], check=False, capture_output=True)


def test_the_clock_is_kept_by_the_one_that_is_written_anew(store: Store, path: Path) -> None:
    from rtpfanout.store import KeptClock

    clock = KeptClock(b"boot", 5, 6, 7)
    store.keep_clock(lambda: clock)
    write(store, put_session(session(2)))
    remove(path)
    write(store, put_session(session(3)))
    store.close()
    with Store(str(path)) as again:
        assert again.kept_clock == clock
