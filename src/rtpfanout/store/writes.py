"""Each change of the file: what it says, and the statements that carry it out.

Integers are signed, of 64 bits: what is beyond fails alone, with UnavailableError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from rtpfanout.model import SubscriberClass
from rtpfanout.store.records import RECORD_BYTES, StoredSession

if TYPE_CHECKING:
    from rtpfanout.store.records import KeptClock, StoredAnswer, StoredConsent, StoredDelivery

SLICE = 1000
"""Addresses that are taken apart at a time: as many as the table `number` has rows."""

_COLUMNS = ", ".join(StoredSession._fields)
_UPDATES = ", ".join(f"{name} = excluded.{name}" for name in StoredSession._fields[1:])
_PUT_SESSION = (
    f"INSERT INTO session ({_COLUMNS}) VALUES ({', '.join('?' for _ in StoredSession._fields)})"  # noqa: S608
    f" ON CONFLICT (sequence) DO UPDATE SET {_UPDATES}"
)
_PUT_SUBSCRIBERS = """
INSERT INTO subscriber
SELECT ?1, substr(?2, 24 * i + 1, 24), ?3 + i, ?4, ?5, coalesce(?6, 0) FROM number
WHERE i < ?7 AND EXISTS (SELECT 1 FROM session WHERE sequence = ?1)
ON CONFLICT (session, address) DO UPDATE
SET lease_ns = excluded.lease_ns, class = excluded.class, rtcp = coalesce(?6, rtcp)
"""
_DROP_SUBSCRIBERS = """
DELETE FROM subscriber WHERE session = ?1 AND address IN
(SELECT substr(?2, 24 * i + 1, 24) FROM number WHERE i < ?3)
"""
_PUT_CONSENT = """
INSERT INTO consent SELECT ?1, ?2, ?3, ?4
WHERE EXISTS (SELECT 1 FROM session WHERE sequence = ?1 AND consent = 'echo')
    AND EXISTS (SELECT 1 FROM subscriber WHERE session = ?1 AND address = ?2)
ON CONFLICT (session, address) DO UPDATE SET until_ns = excluded.until_ns, boot = excluded.boot
"""
_PUT_DELIVERY = """
INSERT INTO delivery SELECT ?1, ?2, ?3
WHERE EXISTS (SELECT 1 FROM subscriber WHERE session = ?1 AND address = ?2)
ON CONFLICT (session, address) DO UPDATE SET local = excluded.local
"""
# The counter has 64 bits without a sign, so it is kept as 8 bytes in network order, which compare
# as it does. What is replaced gets the highest number again: the order is that of use.
_PUT_MOVE_COUNTER = """
INSERT OR REPLACE INTO move_counter (key, counter) SELECT ?1, ?2
WHERE NOT EXISTS (SELECT 1 FROM move_counter WHERE key = ?1 AND counter >= ?2)
"""


class Write(NamedTuple):
    """Statements, each with the rows of values that it is carried out with, in order."""

    steps: Sequence[tuple[str, Sequence[Sequence[Any]]]]
    weight: int = 1
    """How many rows of the file it changes, more or less."""


def put_session(session: StoredSession) -> Write:
    """A session that is new, or changed."""
    highest = "UPDATE state SET sequence = max(sequence, ?)"
    return Write([(_PUT_SESSION, [session]), (highest, [(session.sequence,)])])


def note_fed(sequences: Sequence[int]) -> Write:
    """These sessions have had a packet; nothing of those that aren't there."""
    rows = [(sequence,) for sequence in sequences]
    return Write([("UPDATE session SET was_fed = 1 WHERE sequence = ?", rows)], len(rows))


def note_followed(sequence: int, followed: int) -> Write:
    """What its source sends; nothing if it isn't there."""
    return Write([("UPDATE session SET followed = ? WHERE sequence = ?", [(followed, sequence)])])


def drop_session(sequence: int) -> Write:
    """The session and all its subscribers; nothing if it isn't there."""
    of, session = (
        "DELETE FROM subscriber WHERE session = ?",
        "DELETE FROM session WHERE sequence = ?",
    )
    return Write([(of, [(sequence,)]), (session, [(sequence,)])])


def put_subscribers(
    sequence: int,
    records: bytes,
    since_ns: int,
    lease_ns: int = 0,
    subscriber_class: int = SubscriberClass.MONITOR.number,
    rtcp: int | None = None,
) -> Write:
    """Subscribers that are new, or (they keep their `since`) have a new lease and class.

    Without `rtcp` they keep that, too; who is new has none.

    `records` may name an address twice. The i-th counts as there since `since_ns` + i.
    Nothing happens if the session isn't there.
    """
    rows = [
        (sequence, piece, since_ns + start, lease_ns, subscriber_class, rtcp, count)
        for start, piece, count in _pieces(records)
    ]
    return Write([(_PUT_SUBSCRIBERS, rows)], len(records) // RECORD_BYTES)


def drop_subscribers(sequence: int, records: bytes) -> Write:
    """Those of `records` that are there."""
    rows = [(sequence, piece, count) for _, piece, count in _pieces(records)]
    return Write([(_DROP_SUBSCRIBERS, rows)], len(records) // RECORD_BYTES)


def put_consents(boot: bytes, consents: Sequence[StoredConsent]) -> Write:
    """In the place of those before; nothing for who is no subscriber or need not consent.

    They go with their subscriber, their session, and with its asking for consent.
    """
    return Write([(_PUT_CONSENT, [(*each, boot) for each in consents])], len(consents))


def put_move_counter(identity: bytes, counter: int) -> Write:
    """The counter of a key's latest move, below 2^64; a lower one changes nothing."""
    return Write([(_PUT_MOVE_COUNTER, [(identity, counter.to_bytes(8))])])


def drop_move_counters(identities: Sequence[bytes]) -> Write:
    """Those of the identities that are there."""
    rows = [(identity,) for identity in identities]
    return Write([("DELETE FROM move_counter WHERE key = ?", rows)])


def put_deliveries(deliveries: Sequence[StoredDelivery]) -> Write:
    """In the place of those before; nothing for who is no subscriber. They go with that."""
    return Write([(_PUT_DELIVERY, deliveries)], len(deliveries))


def put_interface(number: int, name: str) -> Write:
    """The name of the interface that link-local addresses of this index are of."""
    return Write([("INSERT OR REPLACE INTO interface VALUES (?, ?)", [(number, name)])])


def put_answer(answer: StoredAnswer) -> Write:
    """For a request id; forgotten some time after it expires."""
    return Write([("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?)", [answer])])


def put_secret(name: str, value: bytes) -> Write:
    """Bytes under a name; the first ones stay."""
    return Write([("INSERT OR IGNORE INTO secret VALUES (?, ?)", [(name, value)])])


def put_revision(revision: int, clock: KeptClock | None) -> Write:
    """What each transaction ends with: its revision, if that is the highest, and its time."""
    kept = [clock] if clock else []
    return Write(
        [
            ("UPDATE state SET revision = max(revision, ?)", [(revision,)]),
            ("INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)", kept),
        ]
    )


def _pieces(records: bytes) -> Iterator[tuple[int, bytes, int]]:
    """(number of the first, records, how many) for at most SLICE at a time. Raises ValueError."""
    if len(records) % RECORD_BYTES:
        raise ValueError(f"{len(records)} bytes are no whole number of address records")
    step = SLICE * RECORD_BYTES
    for start in range(0, len(records), step):
        piece = records[start : start + step]
        yield start // RECORD_BYTES, piece, len(piece) // RECORD_BYTES
