"""What is stored, as tuples that SQLite takes and gives without conversion.

Times are nanoseconds of the store's time (sessions/clock.py), since the epoch where the wall clock
was right, but for those of consents, which are of CLOCK_MONOTONIC.
"""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.model import ADDRESS_RECORD

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
    name: str = ""
    idle_timeout_secs: float = -1.0
    """Below 0: absent."""
    ingest_port: int = 0
    """0: none."""
    dscp: str = ""
    keyframe_request: str = ""
    repair_source: int = 0
    report_class: str = ""
    was_fed: int = 0
    """1: it has had a packet."""
    encoding: str = ""
    """As `pack_encoding` of `sdp` makes it."""
    ssrc_policy: str = ""
    latch_scope: str = ""
    srtp: int = 0
    check_padding: int = -1
    """0 or 1; -1: absent. As `rtcp_mux`."""
    rtcp_mux: int = -1
    followed: int = 0
    """SSRC and payload type of the one that was followed, as the engine takes it; 0: none."""


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
    ingest_port: int = 0
    dscp: str = ""
    keyframe_request: str = ""
    repair_source: int = 0
    report_class: str = ""
    ssrc_policy: str = ""
    latch_scope: str = ""
    srtp: int = 0
    check_padding: int = -1
    rtcp_mux: int = -1
    followed: int = 0

    @property
    def speaks_rtcp(self) -> bool:
        """Whether its source is told more by RTCP than is usual."""
        return bool(self.keyframe_request or self.repair_source or self.report_class)


SubscriberRow = tuple[int, int, int, int, int, bytes, int]
"""(session, second of `since`, lease, class, `since`, address, rtcp) as SubscriberRun has them."""


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
    rtcp: int = 0
    """As Rtcp.number."""


def runs_of(rows: list[SubscriberRow]) -> Iterator[SubscriberRun]:
    """What follows each other and has the same session, second, lease, class and rtcp."""
    same_terms = itemgetter(0, 1, 2, 3, 6)
    for (session, _second, lease, number, rtcp), same in groupby(rows, same_terms):
        group = list(same)
        records = b"".join([row[5] for row in group])
        yield SubscriberRun(session, lease, number, group[0][4], records, rtcp)


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
