"""A store whose file was cut or changed always opens: whole transactions, or none and a message."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from store_support import contents, records, session

from rtpfanout.store import Store
from rtpfanout.store.writes import drop_subscribers, put_session, put_subscribers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from store_support import Terms

    from rtpfanout.store import StoredSession

Contents = dict["StoredSession", dict[bytes, "Terms"]]


@pytest.fixture
def log() -> Any:
    with structlog.testing.capture_logs() as entries:
        yield entries


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A directory where an fsync costs nothing, if there is one."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        yield Path(directory)


def filled(path: Path, transactions: int = 12) -> list[tuple[int, Contents]]:
    """A file and log at `path` as a crash leaves them; (log size, contents) after each commit."""
    live = path.with_name("live.db")
    log = Path(f"{live}-wal")
    states: list[tuple[int, Contents]] = []
    with Store(str(live)) as store:
        states.append((log.stat().st_size, contents(store)))
        for n in range(1, transactions + 1):
            batch = records(range(n * 100, n * 100 + 40))
            changes = [put_session(session(n)), put_subscribers(n, batch, n)]
            if n > 1:
                changes += [put_session(session(n - 1, paused=1)), drop_subscribers(n - 1, batch)]
            store.submit(changes, n).result(30)
            states.append((log.stat().st_size, contents(store)))
        copy(live, path)
    return states


def copy(source: Path, target: Path) -> None:
    for suffix in ("", "-wal"):
        shutil.copy(f"{source}{suffix}", f"{target}{suffix}")


def opened(path: Path) -> tuple[int, Contents]:
    with Store(str(path)) as store:
        return store.revision, contents(store)


HEADER, FRAME = 32, 24 + 4096  # of SQLite's log: "The WAL File Format"


def near_a_border(cut: int) -> bool:
    """Whether it is within eight bytes of where a frame, or what is in it, begins."""
    of_frame = (cut - HEADER) % FRAME
    return of_frame <= 24 + 8 or of_frame >= FRAME - 8


@pytest.mark.parametrize(
    "every_byte",
    [
        pytest.param(False, id="borders"),
        pytest.param(
            True,
            id="every_byte",
            marks=[pytest.mark.slow("opens a store per byte"), pytest.mark.timeout(600)],
        ),
    ],
)
def test_cut_anywhere_in_the_last_transactions(memory_path: Path, every_byte: bool) -> None:
    whole = memory_path / "s.db"
    states = filled(whole, 4)
    log = Path(f"{whole}-wal").read_bytes()
    assert states[-1][0] == len(log)
    start = states[-3][0]
    target = memory_path / "cut.db"
    shutil.copy(whole, target)
    base = target.read_bytes()
    assert (start - HEADER) % FRAME == 0
    for cut in range(start, len(log) + 1):
        if not (every_byte or near_a_border(cut)):
            continue
        target.write_bytes(base)
        Path(f"{target}-wal").write_bytes(log[:cut])
        revision, found = opened(target)
        # Each commit whose frames are whole is there, and nothing of the next.
        expected = max(n for n, (size, _) in enumerate(states) if size <= cut)
        assert (revision, found) == (expected, states[expected][1]), cut
    assert not list(memory_path.glob("*damaged*"))


def test_cut_anywhere_in_the_log(tmp_path: Path) -> None:
    whole = tmp_path / "s.db"
    states = filled(whole)
    log = Path(f"{whole}-wal").read_bytes()
    for cut in random.Random(1).sample(range(len(log)), 200):
        target = tmp_path / "cut.db"
        shutil.copy(whole, target)
        Path(f"{target}-wal").write_bytes(log[:cut])
        revision, found = opened(target)
        known = [n for n, (size, _) in enumerate(states) if size <= cut]
        # Short of the first commit there is the file before, or a new one.
        expected = max(known, default=0)
        assert (revision, found) == (expected, states[expected][1] if known else {}), cut


def test_bits_flipped_in_the_log(tmp_path: Path) -> None:
    whole = tmp_path / "s.db"
    states = filled(whole)
    log = Path(f"{whole}-wal").read_bytes()
    choose = random.Random(2)
    for _ in range(200):
        at = choose.randrange(len(log))
        target = tmp_path / "cut.db"
        shutil.copy(whole, target)
        flipped = bytearray(log)
        flipped[at] ^= 1 << choose.randrange(8)
        Path(f"{target}-wal").write_bytes(flipped)
        revision, found = opened(target)
        # Checksums end the log there: a prefix of the commits is left, all before the flip.
        assert found == (states[revision][1] if revision else {}), at
        assert revision >= max((n for n, (size, _) in enumerate(states) if size <= at), default=0)


def test_bytes_changed_in_the_file(tmp_path: Path, log: Any) -> None:
    """It opens, whatever it holds then, and what opened once opens again."""
    whole = tmp_path / "s.db"
    filled(whole)
    with Store(str(whole)):
        pass  # moves the log into the file
    good = whole.read_bytes()
    choose = random.Random(3)
    aside = 0
    for _ in range(150):
        directory = tmp_path / str(choose.random())
        directory.mkdir()
        target = directory / "s.db"
        bad = bytearray(good)
        at = choose.randrange(len(bad)) if choose.random() < 0.6 else choose.randrange(100)
        for i in range(at, min(at + choose.choice([1, 16, 5000]), len(bad))):
            bad[i] = choose.randrange(256)
        target.write_bytes(bad)
        with Store(str(target)) as store:
            read = (store.sessions(), list(store.subscribers()), store.answers())
            assert store.submit([put_session(session(77))]).result(30) >= 0
        with Store(str(target)) as store:
            assert session(77) in store.sessions()
        moved = list(directory.glob("s.db.damaged-*"))
        aside += len(moved)
        if moved:
            assert read == ([], [], [])
            assert moved[0].read_bytes()[:100] == bad[:100]
    assert aside > 20
    assert sum(entry["log_level"] == "error" for entry in log) == aside


@pytest.mark.parametrize("size", [15, 99, 100, 511, 4096, 5000, 20_000])
def test_a_file_cut_short(size: int, tmp_path: Path, log: Any) -> None:
    whole = tmp_path / "s.db"
    filled(whole)
    with Store(str(whole)):
        pass
    whole.write_bytes(whole.read_bytes()[:size])
    assert opened(whole) == (0, {})
    (message,) = (entry for entry in log if entry["log_level"] == "error")
    assert "set aside" in message["event"]
    assert Path(message["moved_to"]).stat().st_size == size
    assert opened(whole) == (0, {})
    assert len(list(tmp_path.glob("*damaged*"))) == 1


@pytest.mark.parametrize("kind", ["text", "foreign", "tables", "rows", "version"])
def test_what_is_no_store_is_set_aside(kind: str, tmp_path: Path, log: Any) -> None:
    path = tmp_path / "s.db"
    if kind == "text":
        path.write_text("these are not the bytes of a database\n" * 100)
    else:
        if kind != "foreign":
            Store(str(path)).close()
        statement = {
            "foreign": "CREATE TABLE other (a)",
            "tables": "DROP TABLE subscriber",
            "rows": "DELETE FROM state",
            "version": "PRAGMA user_version = 123456",
        }[kind]
        with sqlite3.connect(path) as connection:
            connection.execute(statement)
        connection.close()
    for _ in range(2):
        assert opened(path) == (0, {})
    assert len(list(tmp_path.glob("s.db.damaged-*"))) == 1
    assert [entry["log_level"] for entry in log] == ["error"]


def test_two_damaged_files_in_one_second(tmp_path: Path, log: Any) -> None:
    path = tmp_path / "s.db"
    for _ in range(3):
        path.write_bytes(b"?" * 5000)
        Path(f"{path}-wal").write_bytes(b"!" * 50)
        assert opened(path) == (0, {})
    assert len([p for p in tmp_path.glob("s.db.damaged-*") if p.suffix != "-wal"]) >= 3
    assert len(log) == 3
