"""The tables of the file, and the statements that read and change them."""

from __future__ import annotations

from typing import get_type_hints

from rtpfanout.store.records import StoredSession, StoredSource

APPLICATION_ID = 0x52464F53  # "RFOS"
SCHEMA_VERSION = 1
SLICE = 1000
"""Addresses that are taken apart at a time: as many as the table `number` has rows."""

SESSION_COLUMNS = ", ".join(StoredSession._fields)
SOURCE_COLUMNS = ", ".join(StoredSource._fields)
SESSION_VALUES = ", ".join("?" for _ in StoredSession._fields)
SESSION_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in StoredSession._fields[1:])

# quick_check looks at the CHECKs too: what it lets pass can be read.
TYPES = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB"}
SESSION_TABLE = ", ".join(
    f"{name} INTEGER PRIMARY KEY"
    if name == "sequence"
    else f"{name} {kind} NOT NULL CHECK (typeof({name}) = '{kind.lower()}')"
    for name, kind in ((name, TYPES[kind]) for name, kind in get_type_hints(StoredSession).items())
)
SCHEMA = f"""
CREATE TABLE session ({SESSION_TABLE});
"""
SCHEMA += """
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
# Made when the first consent is kept: other versions neither need nor mind these, and the
# triggers hold whichever version of us drops a subscriber.
CONSENT_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS consent (
    session INTEGER NOT NULL, address BLOB NOT NULL, until_ns INTEGER NOT NULL, boot BLOB NOT NULL,
    PRIMARY KEY (session, address),
    CHECK (typeof(address) = 'blob' AND length(address) = 24 AND typeof(boot) = 'blob'
        AND typeof(session) = 'integer' AND typeof(until_ns) = 'integer')) WITHOUT ROWID""",
    """CREATE TRIGGER IF NOT EXISTS consent_of_subscriber AFTER DELETE ON subscriber BEGIN
    DELETE FROM consent WHERE session = old.session AND address = old.address; END""",
    """CREATE TRIGGER IF NOT EXISTS consent_of_session AFTER DELETE ON session BEGIN
    DELETE FROM consent WHERE session = old.sequence; END""",
    """CREATE TRIGGER IF NOT EXISTS consent_asked_for AFTER UPDATE OF consent ON session
    WHEN new.consent <> old.consent BEGIN
    DELETE FROM consent WHERE session = old.sequence; END""",
)
HAS_CONSENTS = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'consent'"
CONSENTS = """
SELECT session, address, until_ns FROM consent WHERE boot = ? AND until_ns > ? ORDER BY session
"""
PUT_CONSENT = """
INSERT INTO consent SELECT ?1, ?2, ?3, ?4
WHERE EXISTS (SELECT 1 FROM session WHERE sequence = ?1 AND consent = 'echo')
    AND EXISTS (SELECT 1 FROM subscriber WHERE session = ?1 AND address = ?2)
ON CONFLICT (session, address) DO UPDATE SET until_ns = excluded.until_ns, boot = excluded.boot
"""
# Made with the first write. Whoever writes without knowing the table leaves a 0: the clock is not
# that of all times in the store any more.
CLOCK_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS clock (
    id INTEGER PRIMARY KEY CHECK (id = 1), boot BLOB NOT NULL, offset_ns INTEGER NOT NULL,
    shown_ns INTEGER NOT NULL, written_ns INTEGER NOT NULL,
    CHECK (typeof(boot) = 'blob' AND typeof(offset_ns) = 'integer'
        AND typeof(shown_ns) = 'integer' AND typeof(written_ns) = 'integer'))""",
    """CREATE TRIGGER IF NOT EXISTS clock_of_others AFTER UPDATE OF revision ON state BEGIN
    UPDATE clock SET written_ns = 0; END""",
)
HAS_CLOCK = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'clock'"
CLOCK = "SELECT boot, offset_ns, shown_ns, written_ns FROM clock WHERE written_ns <> 0"
PUT_CLOCK = """
INSERT INTO clock VALUES (1, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET boot = excluded.boot,
offset_ns = excluded.offset_ns, shown_ns = excluded.shown_ns, written_ns = excluded.written_ns
"""
PUT_SESSION = (
    f"INSERT INTO session ({SESSION_COLUMNS}) VALUES ({SESSION_VALUES})"  # noqa: S608
    f" ON CONFLICT (sequence) DO UPDATE SET {SESSION_UPDATES}"
)
PUT_SUBSCRIBERS = """
INSERT INTO subscriber SELECT ?1, substr(?2, 24 * i + 1, 24), ?3 + i, ?4, ?5 FROM number
WHERE i < ?6 AND EXISTS (SELECT 1 FROM session WHERE sequence = ?1)
ON CONFLICT (session, address) DO UPDATE SET lease_ns = excluded.lease_ns, class = excluded.class
"""
DROP_SUBSCRIBERS = """
DELETE FROM subscriber WHERE session = ?1 AND address IN
(SELECT substr(?2, 24 * i + 1, 24) FROM number WHERE i < ?3)
"""
ROWS = """
SELECT session, since_ns / 1000000000, lease_ns, class, since_ns, address FROM subscriber
WHERE session BETWEEN ? AND ? ORDER BY session, since_ns / 1000000000, lease_ns, class, since_ns
"""
