"""The statements that read and change the file; `migrations` has its tables."""

from __future__ import annotations

from rtpfanout.store.records import StoredSession, StoredSource

SLICE = 1000
"""Addresses that are taken apart at a time: as many as the table `number` has rows."""
IDENTITY_BYTES = 16
"""Of the SSRC and key that a move counter is of."""

_COLUMNS = ", ".join(StoredSession._fields)
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in StoredSession._fields[1:])
SESSIONS = f"SELECT {_COLUMNS} FROM session ORDER BY sequence"  # noqa: S608
SOURCES = (
    f"SELECT {', '.join(StoredSource._fields)} FROM session"  # noqa: S608
    " WHERE sequence BETWEEN ? AND ? ORDER BY sequence"
)
PUT_SESSION = (
    f"INSERT INTO session ({_COLUMNS}) VALUES ({', '.join('?' for _ in StoredSession._fields)})"  # noqa: S608
    f" ON CONFLICT (sequence) DO UPDATE SET {_UPDATES}"
)
ROWS = """
SELECT session, since_ns / 1000000000, lease_ns, class, since_ns, address FROM subscriber
WHERE session BETWEEN ? AND ? ORDER BY session, since_ns / 1000000000, lease_ns, class, since_ns
"""
PUT_SUBSCRIBERS = """
INSERT INTO subscriber SELECT ?1, substr(?2, 24 * i + 1, 24), ?3 + i, ?4, ?5 FROM number
WHERE i < ?6 AND EXISTS (SELECT 1 FROM session WHERE sequence = ?1)
ON CONFLICT (session, address) DO UPDATE SET lease_ns = excluded.lease_ns, class = excluded.class
"""
DROP_SUBSCRIBERS = """
DELETE FROM subscriber WHERE session = ?1 AND address IN
(SELECT substr(?2, 24 * i + 1, 24) FROM number WHERE i < ?3)
"""
CONSENTS = """
SELECT session, address, until_ns FROM consent WHERE boot = ? AND until_ns > ? ORDER BY session
"""
PUT_CONSENT = """
INSERT INTO consent SELECT ?1, ?2, ?3, ?4
WHERE EXISTS (SELECT 1 FROM session WHERE sequence = ?1 AND consent = 'echo')
    AND EXISTS (SELECT 1 FROM subscriber WHERE session = ?1 AND address = ?2)
ON CONFLICT (session, address) DO UPDATE SET until_ns = excluded.until_ns, boot = excluded.boot
"""
DELIVERIES = "SELECT session, address, local FROM delivery ORDER BY session"
PUT_DELIVERY = """
INSERT INTO delivery SELECT ?1, ?2, ?3
WHERE EXISTS (SELECT 1 FROM subscriber WHERE session = ?1 AND address = ?2)
ON CONFLICT (session, address) DO UPDATE SET local = excluded.local
"""
# The counter has 64 bits without a sign, so it is kept as 8 bytes in network order, which compare
# as it does. What is replaced gets the highest number again: the order is that of use.
MOVE_COUNTERS = "SELECT key, counter FROM move_counter ORDER BY number"
PUT_MOVE_COUNTER = """
INSERT OR REPLACE INTO move_counter (key, counter) SELECT ?1, ?2
WHERE NOT EXISTS (SELECT 1 FROM move_counter WHERE key = ?1 AND counter >= ?2)
"""
DROP_MOVE_COUNTER = "DELETE FROM move_counter WHERE key = ?"
INTERFACES = "SELECT number, name FROM interface"
PUT_INTERFACE = "INSERT OR REPLACE INTO interface VALUES (?, ?)"
ANSWERS = "SELECT request_id, digest, text, expires FROM answer ORDER BY expires"
PUT_ANSWER = "INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?)"
SECRETS = "SELECT name, value FROM secret"
PUT_SECRET = "INSERT OR IGNORE INTO secret VALUES (?, ?)"  # noqa: S105
CLOCK = "SELECT boot, offset_ns, shown_ns, written_ns FROM clock"
PUT_CLOCK = "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)"
STATE = "SELECT revision, sequence, buried FROM state"
READS = (SESSIONS, ROWS, CONSENTS, DELIVERIES, MOVE_COUNTERS, INTERFACES, ANSWERS, SECRETS, CLOCK)
"""Where each of them can be prepared, the tables are those that we use."""
