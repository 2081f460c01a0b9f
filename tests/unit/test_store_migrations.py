"""A store of an earlier layout becomes one of today's, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_support import contents, record, session
from support import requires, requires_root

from rtpfanout.errors import StartError
from rtpfanout.store import Store, migrations
from rtpfanout.store.migrations import LAYOUT, LAYOUTS
from rtpfanout.store.records import StoredSession
from rtpfanout.store.writes import put_session, put_subscribers

OLD = sorted(Path(__file__).with_name("data").glob("store_*.db"))
AFFINITIES = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB"}
INTEGERS = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "INTEGER": INTEGERS,
    "REAL": st.floats(allow_nan=False),
    "TEXT": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9),
    "BLOB": st.binary(max_size=40),
}
KEPT = {"state": 1, "number": 1000}
"""Tables that have so many rows in each store."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s.db"


def schema(connection: sqlite3.Connection) -> set[tuple[str, ...]]:
    """Tables, indexes and triggers, as they were made."""
    return set(connection.execute("SELECT type, name, sql FROM sqlite_master"))


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Each row of each table, of a copy: what is looked at stays as it is."""
    with tempfile.TemporaryDirectory() as directory:
        for suffix in ("", "-wal"):
            if Path(f"{path}{suffix}").exists():
                shutil.copy(f"{path}{suffix}", f"{directory}/s.db{suffix}")
        with closing(sqlite3.connect(f"{directory}/s.db")) as connection:
            names = connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
            return {
                name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)  # noqa: S608
                for (name,) in names
            }


def as_wide_as(rows: list[tuple[Any, ...]], before: list[tuple[Any, ...]]) -> list[Any]:
    """Without the columns that were added behind."""
    width = len(before[0]) if before else 0
    return [row[:width] for row in rows]


def first_layout(path: Path, later: set[str] = frozenset()) -> sqlite3.Connection:  # type: ignore[assignment]
    """A file of layout 1, open; with the tables `later`, which were made when they were needed."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(LAYOUTS[0])
    with closing(sqlite3.connect(OLD[-1])) as other:
        for _, name, sql in sorted(schema(other), key=lambda entry: entry[0]):
            if sql and any(name.startswith(table) for table in later):
                connection.execute(sql)
    connection.execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 1")
    return connection


def layout(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[60:64])


@pytest.mark.parametrize("old", OLD, ids=lambda path: path.stem)
def test_a_new_store_is_like_one_that_was_brought_up_to_date(old: Path, tmp_path: Path) -> None:
    shutil.copy(old, tmp_path / "old.db")
    found = []
    for name in ("old.db", "new.db"):
        with Store(str(tmp_path / name)):
            pass
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            found.append(schema(connection))
    assert found[0] == found[1]


def test_the_columns_of_a_session_are_its_fields(path: Path) -> None:
    with Store(str(path)):
        pass
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("PRAGMA table_info(session)").fetchall()
    hints = get_type_hints(StoredSession)
    assert [(row[1], row[2]) for row in rows] == [
        (name, AFFINITIES[hints[name]]) for name in StoredSession._fields
    ]


LATER = st.sets(st.sampled_from(["consent", "clock", "move_counter", "delivery", "interface"]))


@settings(max_examples=12, deadline=None)
@given(st.data(), LATER, st.booleans())
def test_whatever_is_in_it_stays(data: st.DataObject, later: set[str], was_killed: bool) -> None:
    shared = Path("/dev/shm")  # noqa: S108
    where = shared if shared.is_dir() else None  # there an fsync costs nothing
    with tempfile.TemporaryDirectory(dir=where) as directory:
        path, live = Path(directory, "s.db"), Path(directory, "live.db")
        connection = first_layout(live, later)
        connection.execute("UPDATE state SET revision = 5, sequence = 7")
        tables = sorted({name for kind, name, _ in schema(connection) if kind == "table"})
        for table in tables:
            columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
            row = st.tuples(*(VALUES[kind] for _, _, kind, *_ in columns))
            for values in data.draw(st.lists(row, max_size=5)) if table not in KEPT else []:
                fitting = dict(zip((name for _, name, *_ in columns), values, strict=True))
                for name, size in (("address", 24), ("local", 16), ("key", 16), ("counter", 8)):
                    if name in fitting:
                        fitting[name] = bytes(fitting[name])[:size].ljust(size, b"\1")
                if table == "subscriber":
                    fitting["class"] %= 3
                if table == "clock":
                    fitting |= {"id": 1, "written_ns": fitting["written_ns"] or 1}
                marks = ", ".join("?" for _ in fitting)
                query = f"INSERT OR REPLACE INTO {table} VALUES ({marks})"  # noqa: S608
                connection.execute(query, tuple(fitting.values()))
        before = dump(live)
        if not was_killed:
            connection.close()
        for suffix in ("", "-wal"):
            if Path(f"{live}{suffix}").exists():
                shutil.copy(f"{live}{suffix}", f"{path}{suffix}")
        connection.close()
        with Store(str(path)) as store:
            assert (store.revision, store.sequence) == (5, 7)
        after = dump(path)
        found = {name: as_wide_as(after.pop(name), rows) for name, rows in before.items()}
        assert found == before
        assert not any(after.values())
        assert dump(Path(f"{path}.layout-1")) == before
        assert sorted(Path(directory).glob("s.db*")) == [
            path,
            Path(f"{path}.layout-1"),
            Path(f"{path}.lock"),
        ]


def test_one_of_a_later_version_is_refused_and_left_alone(path: Path) -> None:
    with Store(str(path)) as store:
        store.submit([put_session(session(1))]).result(30)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {LAYOUT + 1}")
    Path(f"{path}-wal").write_bytes(b"what its server left")
    path.chmod(0o644)
    before = [(p.read_bytes(), p.stat()) for p in (path, Path(f"{path}-wal"))]
    with pytest.raises(StartError) as caught:
        Store(str(path))
    assert f"layout {LAYOUT + 1}, this one knows {LAYOUT}" in caught.value.message
    assert "start that version, or move the file away" in caught.value.message
    kept = Path(f"{path}.layout-{LAYOUT}")
    kept.touch()
    with pytest.raises(StartError, match=f"or put {kept} in its place"):
        Store(str(path))
    after = [(p.read_bytes(), p.stat()) for p in (path, Path(f"{path}-wal"))]
    assert [(bytes_, s.st_mode, s.st_mtime_ns) for bytes_, s in after] == [
        (bytes_, s.st_mode, s.st_mtime_ns) for bytes_, s in before
    ]


def test_on_trial_a_damaged_file_is_left_to_who_serves_it(path: Path) -> None:
    damaged = b"SQLite format 3\0" + bytes(4080)
    path.write_bytes(damaged)
    with pytest.raises(StartError, match="damaged"):
        Store(str(path), on_trial=True)
    assert path.read_bytes() == damaged
    assert list(path.parent.glob("*.damaged-*")) == []


def test_on_trial_the_file_is_as_it_was_until_it_is_settled(path: Path) -> None:
    """Another version may have to go on with it, whatever becomes of this one."""
    first_layout(path).close()
    before = path.read_bytes()
    with Store(str(path), on_trial=True) as store:
        store.submit([put_session(session(1))]).result(30)
        assert path.read_bytes() == before
    assert {p.name for p in path.parent.iterdir()} == {"s.db", "s.db.lock"}
    assert path.read_bytes() == before
    with Store(str(path), on_trial=True) as store:
        store.submit([put_session(session(2))], 9).result(30)
        secret = store.secret("a")
        store.settle()
        store.submit([put_subscribers(2, record(1), 1)]).result(30)
        store.settle()
        assert contents(store) == {session(2): {record(1): (0, 2)}}
        assert (store.revision, store.secret("a")) == (9, secret)
    assert layout(path) == LAYOUT
    assert dump(Path(f"{path}.layout-1"))["session"] == []
    with Store(str(path)) as store:
        assert contents(store) == {session(2): {record(1): (0, 2)}}


@pytest.mark.parametrize("cause", ["free", "name"])
def test_without_room(path: Path, monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    first_layout(path).close()
    before = path.read_bytes()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if cause == "free":
        usage = SimpleNamespace(free=4096)
        monkeypatch.setattr(migrations.shutil, "disk_usage", lambda _: usage)
    else:
        monkeypatch.setattr(migrations, "new_file", refuse)
    with pytest.raises(StartError, match=f"from layout 1 to {LAYOUT}") as caught:
        Store(str(path))
    assert "it is as it was" in caught.value.message
    assert path.read_bytes() == before
    assert {p.name for p in path.parent.iterdir()} == {"s.db", "s.db.lock"}


@pytest.mark.parametrize("code", ["EPERM", "EOPNOTSUPP", "ENOSYS", "EMLINK", "ENOSPC"])
@pytest.mark.parametrize("on_trial", [False, True])
def test_what_was_there_is_kept_where_there_are_links(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: str, on_trial: bool
) -> None:
    """A FAT has none, nor has many a network's file system; a full disk is no reason to go on."""
    first_layout(path).close()
    before = path.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, code), code)

    def use() -> None:
        with Store(str(path), on_trial=on_trial) as store:
            store.settle()

    monkeypatch.setattr(os, "link", refuse)
    if code == "ENOSPC":
        with pytest.raises(StartError, match=code):
            use()
        assert path.read_bytes() == before
    else:
        use()
        assert layout(path) == LAYOUT
    assert {p.name for p in path.parent.iterdir()} == {"s.db", "s.db.lock"}


def test_what_a_link_leads_to_is_replaced_and_not_the_link(tmp_path: Path) -> None:
    real, link = tmp_path / "volume" / "real.db", tmp_path / "s.db"
    real.parent.mkdir()
    first_layout(real).close()
    link.symlink_to(real)
    with Store(str(link)), pytest.raises(StartError, match="in use"):
        Store(str(real))
    assert link.is_symlink()
    assert layout(real) == LAYOUT
    assert Path(f"{real}.layout-1").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.db", "volume"]


def test_it_stays_its_owners(path: Path) -> None:
    requires_root()
    first_layout(path).close()
    os.chown(path, 12345, 54321)
    with Store(str(path)):
        pass
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (12345, 54321, 0o600)


def test_what_a_kill_left_is_cleared_away(path: Path) -> None:
    first_layout(path).close()
    for suffix in ("", "-wal", "-journal"):
        Path(f"{path}.new{suffix}").write_bytes(b"half of it")
    with Store(str(path)):
        pass
    assert {p.name for p in path.parent.iterdir()} == {"s.db", "s.db.lock", "s.db.layout-1"}


CALLS = "fsync,fdatasync,ftruncate,link,rename,unlink"


def test_killed_at_each_call_that_changes_a_file(tmp_path: Path) -> None:
    """By the system call before which it dies, until it comes through."""
    requires("strace")
    code = "import sys; from rtpfanout.store import Store; Store(sys.argv[1]).close()"
    whole = tmp_path / "whole.db"
    connection = first_layout(whole, {"consent"})
    columns = connection.execute("PRAGMA table_info(session)").fetchall()
    row = tuple(session(1))[: len(columns)]
    marks = ", ".join("?" for _ in row)
    connection.execute(f"INSERT INTO session VALUES ({marks})", row)  # noqa: S608
    expected = dump(whole)
    layouts = set()
    number, code_of_exit = 0, -signal.SIGKILL
    while code_of_exit == -signal.SIGKILL:
        number += 1
        path = tmp_path / str(number) / "s.db"
        path.parent.mkdir()
        for suffix in ("", "-wal"):
            shutil.copy(f"{whole}{suffix}", f"{path}{suffix}")
        tracing = ["-e", f"trace={CALLS}", "-e", f"inject={CALLS}:signal=SIGKILL:when={number}"]
        command = ["strace", "-qq", "-f", "-o", "/dev/null", *tracing, sys.executable, "-c", code]
        code_of_exit = subprocess.run([*command, str(path)], check=False).returncode
        found = dump(path)
        assert {name: as_wide_as(found[name], rows) for name, rows in expected.items()} == expected
        layouts.add(layout(path) or 1)  # of a file that is still in its log
        with Store(str(path)) as store:
            assert list(contents(store)) == [session(1)]
    connection.close()
    assert number > 8
    assert layouts == {1, LAYOUT}
    assert code_of_exit == 0
