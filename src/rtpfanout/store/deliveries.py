"""Which of our own addresses a subscriber spoke to, as the file has it: copies leave from there.

A table of its own, made when the first one is kept: other versions neither need nor mind it, and
the triggers hold whichever version of us drops a subscriber.
"""

from __future__ import annotations

SCHEMA = (
    """CREATE TABLE IF NOT EXISTS delivery (
    session INTEGER NOT NULL, address BLOB NOT NULL, local BLOB NOT NULL,
    PRIMARY KEY (session, address),
    CHECK (typeof(address) = 'blob' AND length(address) = 24 AND typeof(local) = 'blob'
        AND length(local) = 16 AND typeof(session) = 'integer')) WITHOUT ROWID""",
    """CREATE TRIGGER IF NOT EXISTS delivery_of_subscriber AFTER DELETE ON subscriber BEGIN
    DELETE FROM delivery WHERE session = old.session AND address = old.address; END""",
    """CREATE TRIGGER IF NOT EXISTS delivery_of_session AFTER DELETE ON session BEGIN
    DELETE FROM delivery WHERE session = old.sequence; END""",
)
IS_THERE = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'delivery'"
ALL = "SELECT session, address, local FROM delivery ORDER BY session"
PUT = """
INSERT INTO delivery SELECT ?1, ?2, ?3
WHERE EXISTS (SELECT 1 FROM subscriber WHERE session = ?1 AND address = ?2)
ON CONFLICT (session, address) DO UPDATE SET local = excluded.local
"""
