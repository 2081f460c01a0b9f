"""What is stored, as tuples that SQLite takes and gives without conversion, and the changes.

Times are nanoseconds of the store's time (sessions/clock.py), since the epoch where the wall clock
was right, but for those of consents, which are of CLOCK_MONOTONIC. Integers are signed, of 64 bits:
what is beyond fails alone, with UnavailableError.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.model import ADDRESS_RECORD, SubscriberClass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

RECORD_BYTES = ADDRESS_RECORD.size


class StoredSession(NamedTuple):
    """A session; `sequence` is its key, which is never given again.

    The fields are the columns, in order.
    """

    sequence: int
    session_id: str
    ssrc: int
    media_type: str
    source_policy: str
    source_text: str
    created_ns: int
    revision: int
    pinned_source: str = ""
    latch_window_secs: float = 0.0
    relatch_after_secs: float = 0.0
    latch_until_ns: int = 0
    paused: int = 0
    """0 or 1, as SQLite has it."""
    ingest_limit_bps: int = 0
    max_subscribers: int = 0
    consent: str = ""
    move_key: bytes = b""
    move_counter: int = 0
    """As far as it fits; all of it is with its key (`PutMoveCounter`)."""
    labels: str = ""
    """As `pack_labels` makes it."""


class StoredSource(NamedTuple):
    """What of a session the packet path needs first; the fields are columns of the same table."""

    sequence: int
    ssrc: int
    source_policy: str
    source_text: str
    pinned_source: str
    relatch_after_secs: float
    paused: int
    ingest_limit_bps: int
    consent: str


SubscriberRow = tuple[int, int, int, int, int, bytes]
"""(session, second of `since`, lease, class, `since`, address) as SubscriberRun has them."""


class SubscriberRun(NamedTuple):
    """Subscribers of one session with the same terms, in the order they were added."""

    sequence: int
    """Of the session."""
    lease_ns: int
    """End of the lease; 0: none."""
    subscriber_class: int
    """As SubscriberClass.number."""
    since_ns: int
    """Of the first; the others followed within a second."""
    records: bytes
    """`model.ADDRESS_RECORD` after `model.ADDRESS_RECORD`."""


def runs_of(rows: list[SubscriberRow]) -> Iterator[SubscriberRun]:
    """What follows each other and has the same session, second, lease and class."""
    for (session, _second, lease, number), same in groupby(rows, itemgetter(0, 1, 2, 3)):
        group = list(same)
        records = b"".join([row[5] for row in group])
        yield SubscriberRun(session, lease, number, group[0][4], records)


class StoredConsent(NamedTuple):
    """Until when a subscriber may get packets; kept with the boot id, as its clock is."""

    sequence: int
    """Of the session."""
    record: bytes
    until_ns: int
    """Of CLOCK_MONOTONIC."""


class StoredDelivery(NamedTuple):
    """Which of our own addresses a subscriber's copies leave from."""

    sequence: int
    """Of the session."""
    record: bytes
    local: bytes
    """As `Address.packed`."""


class StoredAnswer(NamedTuple):
    """What was answered to a call with a request id."""

    request_id: str
    digest: bytes
    text: str
    expires: float
    """Seconds since the epoch."""


class KeptClock(NamedTuple):
    """What the times in the store are of; see sessions/clock.py."""

    boot: bytes
    """Of the host's start that the next two hold in."""
    offset_ns: int
    """The store's time less CLOCK_MONOTONIC."""
    shown_ns: int
    """The wall clock's time less CLOCK_MONOTONIC, when it was last looked at."""
    written_ns: int
    """When the store was last written to, of the store's time."""


@dataclass(frozen=True, slots=True)
class PutSession:
    """A session that is new, or changed."""

    session: StoredSession


@dataclass(frozen=True, slots=True)
class DropSession:
    """The session and all its subscribers; nothing if it isn't there."""

    sequence: int


@dataclass(frozen=True, slots=True)
class PutSubscribers:
    """Subscribers that are new, or (they keep their `since`) have a new lease and class.

    `records` may name an address twice. The i-th counts as there since `since_ns` + i.
    Nothing happens if the session isn't there.
    """

    sequence: int
    records: bytes
    since_ns: int
    lease_ns: int = 0
    subscriber_class: int = SubscriberClass.MONITOR.number


@dataclass(frozen=True, slots=True)
class DropSubscribers:
    """Those of `records` that are there."""

    sequence: int
    records: bytes


@dataclass(frozen=True, slots=True)
class PutConsents:
    """In the place of those before; nothing for who is no subscriber or need not consent.

    They go with their subscriber, their session, and with its asking for consent.
    """

    boot: bytes
    consents: Sequence[StoredConsent]


@dataclass(frozen=True, slots=True)
class PutMoveCounter:
    """The counter of a key's latest move, below 2^64; a lower one changes nothing."""

    identity: bytes
    counter: int


@dataclass(frozen=True, slots=True)
class DropMoveCounters:
    """Those of the identities that are there."""

    identities: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class PutDeliveries:
    """In the place of those before; nothing for who is no subscriber. They go with that."""

    deliveries: Sequence[StoredDelivery]


@dataclass(frozen=True, slots=True)
class PutInterface:
    """The name of the interface that link-local addresses of this index are of."""

    number: int
    name: str


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """For a request id; forgotten some time after it expires."""

    answer: StoredAnswer


@dataclass(frozen=True, slots=True)
class PutSecret:
    """Bytes under a name; the first ones stay."""

    name: str
    value: bytes


Change = (
    PutSession
    | DropSession
    | PutSubscribers
    | DropSubscribers
    | PutConsents
    | PutMoveCounter
    | DropMoveCounters
    | PutDeliveries
    | PutInterface
    | PutAnswer
    | PutSecret
)


def pack_labels(labels: Mapping[str, str]) -> str:
    """As one text. Raises ValueError: a key has a "=", or there is a line break."""
    for key, value in labels.items():
        if "=" in key or "\n" in key or "\n" in value:
            raise ValueError(f"{key!r}: a label's key has no '=', and neither part a line break")
    return "\n".join(f"{key}={value}" for key, value in labels.items())


def unpack_labels(text: str) -> dict[str, str]:
    """What `pack_labels` packed."""
    if not text:
        return {}
    pairs = (line.partition("=") for line in text.split("\n"))
    return {key: value for key, _, value in pairs}
