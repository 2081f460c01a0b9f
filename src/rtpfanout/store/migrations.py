"""The layouts of the file, each by what it adds to the one before, and how a file gets from one to
another.

A new file is one of layout 0, and goes through all of them: so the tables of today are described
here and nowhere else (`reading` and `writes` have the statements that use them). A layout is never
changed once a version that writes it was released; what is new is another one at the end. For a
further column of `session` or `subscriber` that is one line, and its field in `records`. Before
that, a file of the layout before goes to tests/unit/data.

Nothing happens to a file that is there: a copy is changed, checked, made durable, and then takes
its place by one rename.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from rtpfanout.errors import StartError
from rtpfanout.store.files import new_file, reason_of, remove, sync
from rtpfanout.store.reading import READS, STATE
from rtpfanout.store.writes import SLICE

if TYPE_CHECKING:
    from collections.abc import Iterator

APPLICATION_ID = 0x52464F53  # "RFOS"


def _columns(*columns: str) -> str:
    """Of these names and types. quick_check looks at the CHECKs: what it lets pass can be read."""
    return ", ".join(f"{column} NOT NULL {_check(column)}" for column in columns)


def _check(column: str) -> str:
    name, kind = column.split()
    return f"CHECK (typeof({name}) = '{kind.lower()}')"


def _added(table: str, *columns: tuple[str, str]) -> str:
    """Further columns: the name and type of each, and what those rows have that are there."""
    return "".join(
        f"ALTER TABLE {table} ADD COLUMN {column} NOT NULL DEFAULT {default} {_check(column)};\n"
        for column, default in columns
    )


_SESSION = _columns(
    "session_id TEXT",
    "ssrc INTEGER",
    "media_type TEXT",
    "source_policy TEXT",
    "source_text TEXT",
    "created_ns INTEGER",
    "revision INTEGER",
    "pinned_source TEXT",
    "latch_window_secs REAL",
    "relatch_after_secs REAL",
    "latch_until_ns INTEGER",
    "paused INTEGER",
    "ingest_limit_bps INTEGER",
    "max_subscribers INTEGER",
    "consent TEXT",
    "move_key BLOB",
    "move_counter INTEGER",
    "labels TEXT",
)
_LAYOUT_1 = f"CREATE TABLE session (sequence INTEGER PRIMARY KEY, {_SESSION});"
_LAYOUT_1 += """
CREATE TABLE subscriber (
    session INTEGER NOT NULL, address BLOB NOT NULL, since_ns INTEGER NOT NULL,
    lease_ns INTEGER NOT NULL, class INTEGER NOT NULL,
    PRIMARY KEY (session, address),
    CHECK (typeof(address) = 'blob' AND length(address) = 24 AND class BETWEEN 0 AND 2
        AND typeof(session) = 'integer' AND typeof(since_ns) = 'integer'
        AND typeof(lease_ns) = 'integer' AND typeof(class) = 'integer')) WITHOUT ROWID;
CREATE TABLE answer (
    request_id TEXT PRIMARY KEY, digest BLOB NOT NULL, text TEXT NOT NULL, expires REAL NOT NULL,
    CHECK (typeof(request_id) = 'text' AND typeof(digest) = 'blob' AND typeof(text) = 'text'
        AND typeof(expires) = 'real')) WITHOUT ROWID;
CREATE INDEX answer_expires ON answer (expires);
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL,
    CHECK (typeof(name) = 'text' AND typeof(value) = 'blob')) WITHOUT ROWID;
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, sequence INTEGER NOT NULL,
    buried INTEGER NOT NULL);
CREATE TABLE number (i INTEGER PRIMARY KEY);
INSERT INTO state VALUES (1, 0, 0, 0);
INSERT INTO number WITH RECURSIVE n(i) AS
    (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999) SELECT i FROM n;
"""

# Files of layout 1 have some of these: each was made when it was needed first. There were versions
# that did not know `clock`; when they wrote, a trigger set its last column to 0.
_LAYOUT_2 = """
CREATE TABLE IF NOT EXISTS consent (
    session INTEGER NOT NULL, address BLOB NOT NULL, until_ns INTEGER NOT NULL, boot BLOB NOT NULL,
    PRIMARY KEY (session, address),
    CHECK (typeof(address) = 'blob' AND length(address) = 24 AND typeof(boot) = 'blob'
        AND typeof(session) = 'integer' AND typeof(until_ns) = 'integer')) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS consent_of_subscriber AFTER DELETE ON subscriber BEGIN
    DELETE FROM consent WHERE session = old.session AND address = old.address; END;
CREATE TRIGGER IF NOT EXISTS consent_of_session AFTER DELETE ON session BEGIN
    DELETE FROM consent WHERE session = old.sequence; END;
CREATE TRIGGER IF NOT EXISTS consent_asked_for AFTER UPDATE OF consent ON session
    WHEN new.consent <> old.consent BEGIN
    DELETE FROM consent WHERE session = old.sequence; END;
CREATE TABLE IF NOT EXISTS clock (
    id INTEGER PRIMARY KEY CHECK (id = 1), boot BLOB NOT NULL, offset_ns INTEGER NOT NULL,
    shown_ns INTEGER NOT NULL, written_ns INTEGER NOT NULL,
    CHECK (typeof(boot) = 'blob' AND typeof(offset_ns) = 'integer'
        AND typeof(shown_ns) = 'integer' AND typeof(written_ns) = 'integer'));
DROP TRIGGER IF EXISTS clock_of_others;
DELETE FROM clock WHERE written_ns = 0;
CREATE TABLE IF NOT EXISTS move_counter (
    number INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, counter BLOB NOT NULL,
    CHECK (typeof(key) = 'blob' AND length(key) = 16
        AND typeof(counter) = 'blob' AND length(counter) = 8));
CREATE TABLE IF NOT EXISTS delivery (
    session INTEGER NOT NULL, address BLOB NOT NULL, local BLOB NOT NULL,
    PRIMARY KEY (session, address),
    CHECK (typeof(address) = 'blob' AND length(address) = 24 AND typeof(local) = 'blob'
        AND length(local) = 16 AND typeof(session) = 'integer')) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS delivery_of_subscriber AFTER DELETE ON subscriber BEGIN
    DELETE FROM delivery WHERE session = old.session AND address = old.address; END;
CREATE TRIGGER IF NOT EXISTS delivery_of_session AFTER DELETE ON session BEGIN
    DELETE FROM delivery WHERE session = old.sequence; END;
CREATE TABLE IF NOT EXISTS interface (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (typeof(name) = 'text'));
"""

# Where a number or a flag may be absent, -1 says that it is.
_LAYOUT_3 = _added(
    "session",
    ("name TEXT", "''"),
    ("idle_timeout_secs REAL", "-1.0"),
    ("ingest_port INTEGER", "0"),
    ("dscp TEXT", "''"),
    ("keyframe_request TEXT", "''"),
    ("repair_source INTEGER", "0"),
    ("report_class TEXT", "''"),
    ("was_fed INTEGER", "0"),
    ("encoding TEXT", "''"),
    ("ssrc_policy TEXT", "''"),
    ("latch_scope TEXT", "''"),
    ("srtp INTEGER", "0"),
    ("check_padding INTEGER", "-1"),
    ("rtcp_mux INTEGER", "-1"),
    ("followed INTEGER", "0"),
)
_LAYOUT_3 += _added("subscriber", ("rtcp INTEGER", "0"))

LAYOUTS = (_LAYOUT_1, _LAYOUT_2, _LAYOUT_3)
LAYOUT = len(LAYOUTS)
"""The one that this version reads and writes."""
_MOST_LAYOUTS = 1000  # a greater one was not written by any version of us


class DamagedError(Exception):
    """The file is not one that we wrote."""


def layout_of(connection: sqlite3.Connection) -> int:
    """0: there is nothing in it. Raises DamagedError."""
    execute = connection.execute
    (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application,) = execute("PRAGMA application_id").fetchone()
    (layout,) = execute("PRAGMA user_version").fetchone()
    if tables == application == layout == 0:
        return 0
    if application != APPLICATION_ID or not 0 < layout < _MOST_LAYOUTS:
        raise DamagedError("it is not a store of rtpfanout")
    return int(layout)


def refuse_later(path: str) -> None:
    """A file of a later version isn't even opened. Raises StartError.

    Its number is in its header, and not in a log only: a file has its layout before its name.
    """
    try:
        with Path(path).open("rb") as file:
            header = file.read(100)
    except OSError:  # there is none, or it can't be had, as will be told
        return
    if header[:16] != b"SQLite format 3\0" or int.from_bytes(header[68:72]) != APPLICATION_ID:
        return
    layout = int.from_bytes(header[60:64])
    if LAYOUT < layout < _MOST_LAYOUTS:
        before = kept_name(path, LAYOUT)
        or_else = "move the file away, to begin without sessions"
        if Path(before).exists():
            or_else = f"put {before} in its place, the store as it was when that version came"
        raise StartError(
            f"the store {path} was made by a later version of rtpfanout (layout {layout}, this one"
            f" knows {LAYOUT}); start that version, or {or_else}",
            field="store.path",
        )


def kept_name(path: str, layout: int) -> str:
    """Where a file that was of this layout lies since it was replaced."""
    return f"{path}.layout-{layout}"


def bring_up(connection: sqlite3.Connection, layout: int) -> None:
    """From that layout to today's; if it fails the file is good for nothing.

    Raises DamagedError and sqlite3.Error: what it began with was no file of that layout.
    """
    for script in LAYOUTS[layout:]:
        connection.executescript(script)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {LAYOUT}")
    check_tables(connection)


def check_tables(connection: sqlite3.Connection) -> None:
    """Each statement that reads can be prepared, and the single row is there.

    Raises DamagedError, sqlite3.Error.
    """
    for query in READS:
        connection.execute(f"EXPLAIN {query}", (0,) * query.count("?"))
    (count,) = connection.execute("SELECT count(*) FROM number").fetchone()
    state = connection.execute(STATE).fetchone()
    if count != SLICE or state is None or not all(isinstance(value, int) for value in state):
        raise DamagedError("rows that every store has are missing")


def copy_brought_up(connection: sqlite3.Connection, path: str, layout: int, copy: str) -> None:
    """What `connection` has of the file `path`, as a durable file `copy` of today's layout.

    It is read, page by page, and not changed. Raises DamagedError, StartError (no room), and
    sqlite3.Error: its tables are not as they should be.
    """
    with _told(path, layout), contextlib.ExitStack() as stack:
        _check_room(connection, path)
        new_file(copy, path)
        stack.callback(remove, copy)
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as target:
            execute = target.execute
            execute("PRAGMA locking_mode = EXCLUSIVE")
            # It is durable at the end, or is thrown away: until then it needs no log.
            no_log = "PRAGMA journal_mode = OFF"
            execute(no_log)
            execute("PRAGMA synchronous = OFF")
            connection.backup(target)
            execute(no_log)  # that was copied, too
            (found,) = execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise DamagedError(str(found).replace("\n", " "))
            bring_up(target, layout)
            execute("PRAGMA journal_mode = WAL")
        sync(copy)
        stack.pop_all()


@contextlib.contextmanager
def _told(path: str, layout: int) -> Iterator[None]:
    """What keeps a copy from being made is no fault of the file's."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_IOERR) & 0xFF
        if code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
            raise
        raise StartError(
            f"the store {path} can't be brought up to date, from layout {layout} to {LAYOUT}:"
            f" {reason_of(error)}; it is as it was: make room for a copy of it beside it, in a"
            " directory that this user may write to, or start the version before",
            field="store.path",
        ) from None


def _check_room(connection: sqlite3.Connection, path: str) -> None:
    """Before a disk is filled in vain."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    needed, free = pages * size, shutil.disk_usage(Path(path).parent).free
    if free < needed:
        raise OSError(f"a copy takes {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free")
