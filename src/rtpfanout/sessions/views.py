"""Sessions and subscribers as they were when asked."""

from __future__ import annotations

import bisect
import enum
import itertools
import json
import math
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from rtpfanout._fastpath import LATENCY_BOUNDS_NS, SESSION_FIELDS
from rtpfanout.model import (
    ACTIVE_WINDOW_NS,
    Address,
    Condition,
    MediaType,
    Rtcp,
    SessionStatus,
    SubscriberClass,
    Withheld,
)
from rtpfanout.sessions.terms import answered_terms, shown_terms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtpfanout.sessions.feedback import Feedback, ReceiverReport
    from rtpfanout.sessions.health import ServerHealth
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.terms import Terms


class SourceSsrc(NamedTuple):
    """One that a session's source sends; `since` in UTC, the payload type of its last packet."""

    ssrc: int
    since: datetime
    payload_type: int


@dataclass(frozen=True, slots=True, eq=False)
class SessionView:
    """A session. `created_at` is in UTC. Two are equal that tell the same."""

    session_id: str
    ssrc: int
    media_type: MediaType
    subscriber_count: int
    created_at: datetime
    status: SessionStatus
    terms: Terms
    revision: int = 0
    refused_reason: str = ""
    refused_subscribers: int = 0
    """Of `subscriber_count`."""
    condition: Condition | None = None
    """None of one that is refused."""
    condition_since: datetime | None = None
    """In UTC."""
    ssrcs: tuple[SourceSsrc, ...] = ()
    """What its source sends, the newest first, where the SSRC is not fixed."""

    @property
    def source(self) -> Address | None:
        """The one address that feeds it, if there is one: of EXACT, or whom LATCH pinned."""
        return self.terms.feeder

    @property
    def source_address(self) -> str:
        """As it was asked for, in the canonical spelling."""
        return self.terms.source.text

    @property
    def name(self) -> str:
        """Empty: it has none."""
        return self.terms.name

    @property
    def labels(self) -> Mapping[str, str]:
        """By key."""
        return self.terms.labels

    @property
    def ssrc_text(self) -> str:
        """For the log: the one that comes, or that it was told; "-" where any may come."""
        if not self.ssrcs and not self.ssrc and self.terms.any_ssrc:
            return "-"
        return f"{self.ssrcs[0].ssrc if self.ssrcs else self.ssrc:#010x}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SessionView) and self._told() == other._told()

    def _told(self) -> tuple[object, ...]:
        return self._values(), self.refused_reason, self.refused_subscribers, self.ssrcs

    def to_json(self) -> str:
        """To be kept as the answer of a call; other versions read it, too."""
        return json.dumps(self._values())

    def _values(self) -> dict[str, Any]:
        values = {
            "session_id": self.session_id,
            "ssrc": self.ssrc,
            "media_type": self.media_type,
            "subscriber_count": self.subscriber_count,
            "created_at": self.created_at.isoformat(),
            "status": self.status,
            "revision": self.revision,
            "condition": self.condition,
            "condition_since": self.condition_since and self.condition_since.isoformat(),
            "source": str(self.source) if self.source else None,
            **shown_terms(self.terms),
        }
        values["source_text"] = values.pop("source_address")
        del values["pinned_source"]
        return values

    @classmethod
    def from_json(cls, text: str) -> SessionView:
        """What `to_json` wrote, of this version or another."""
        values = json.loads(text)
        since = values.get("condition_since")
        return cls(
            session_id=values["session_id"],
            ssrc=values["ssrc"],
            media_type=MediaType(values["media_type"]),
            subscriber_count=values["subscriber_count"],
            created_at=datetime.fromisoformat(values["created_at"]),
            status=SessionStatus(values["status"]),
            terms=answered_terms(values),
            revision=values.get("revision", 0),
            condition=Condition(values["condition"]) if values.get("condition") else None,
            condition_since=datetime.fromisoformat(since) if since else None,
        )


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """A latency distribution: upper bounds of the engine's buckets (8 steps per octave).

    A quantile is thus up to 9 % above the true one. Beyond the last bound (16.8 s) that
    bound is told.
    """

    p50_seconds: float
    p99_seconds: float
    p999_seconds: float
    max_seconds: float
    count: int

    @classmethod
    def of(cls, counts: Sequence[int]) -> LatencySummary | None:
        """From one count per LATENCY_BOUNDS_NS and one for all above; None without any."""
        below = list(itertools.accumulate(counts))
        total = below[-1]
        if total == 0:
            return None

        def bound(share: float) -> float:
            bucket = bisect.bisect_left(below, math.ceil(share * total))
            return LATENCY_BOUNDS_NS[min(bucket, len(LATENCY_BOUNDS_NS) - 1)] / 1e9

        return cls(bound(0.5), bound(0.99), bound(0.999), bound(1.0), total)


@dataclass(frozen=True, slots=True)
class SessionStats:
    """A session's counters since its creation or the server's start; bytes are of UDP payload.

    What came for it is `packets_received`, which were admitted, and ``dropped_``; but for
    `dropped_wrong_source`, which came with its SSRC for any session that has it.
    """

    session_id: str
    subscriber_count: int
    uptime_seconds: float
    packets_per_second: float = 0.0
    seconds_since_last_packet: float | None = None
    packets_received: int = 0
    """Admitted: they passed the gate."""
    packets_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    send_failures: int = 0
    dropped_overload: int = 0
    dropped_rate_limit: int = 0
    dropped_paused: int = 0
    dropped_wrong_source: int = 0
    """From where no session of the SSRC admits them; the same for all of these."""
    dropped_latching: int = 0
    dropped_no_port: int = 0
    dropped_loop: int = 0
    dropped_misrouted: int = 0
    dropped_probation: int = 0
    """Of another SSRC than the one that is followed, which did not take its place."""
    last_wrong_source: str = ""
    """From where the last of `dropped_wrong_source` came; empty: there was none."""
    copies_withheld: int = 0
    first_copy_latency: LatencySummary | None = None
    """From the kernel's receive time stamp to the return of the send to the first subscriber."""
    last_copy_latency: LatencySummary | None = None
    """To the last. Both: of a session asked for alone, once a packet had a subscriber."""
    reception: Mapping[str, Any] | None = None
    """How its packets came, by the names of Reception in session.proto; None where that is absent.
    None of one that is refused."""
    feedback: Feedback | None = None
    """Of a session asked for alone that has, or had, RTCP."""
    server: ServerHealth | None = None
    """Of a session asked for alone."""


_COUNTED = tuple(each.name for each in fields(SessionStats) if each.name in SESSION_FIELDS)


class SubscriberState(enum.StrEnum):
    """Whether a subscriber gets copies, and if not, why."""

    SENDING = "sending"
    AWAITING_CONSENT = "awaiting_consent"
    SHED = "shed"
    REFUSED = "refused"

    @classmethod
    def of(cls, withheld: int) -> SubscriberState:
        """From the engine's bits: whoever is refused or shed is so whether it consents or not."""
        if withheld & Withheld.REFUSED:
            return cls.REFUSED
        if withheld & Withheld.SHED:
            return cls.SHED
        return cls.AWAITING_CONSENT if withheld & Withheld.CONSENT else cls.SENDING


@dataclass(frozen=True, slots=True)
class SubscriberView:
    """A subscriber and what happened to its copies. `since` and `expires_at` are in UTC."""

    address: Address
    since: datetime
    packets_sent: int
    send_failures: int
    subscriber_class: SubscriberClass = SubscriberClass.MONITOR
    expires_at: datetime | None = None
    state: SubscriberState = SubscriberState.SENDING
    refused_reason: str = ""
    rtcp: Rtcp = Rtcp.OFF
    report: ReceiverReport | None = None
    reach: str = ""
    """See `reach.State`; empty: nobody looked."""
    reach_detail: str = ""
    reach_since: datetime | None = None


def view_of(
    session: Session,
    values: Mapping[str, float],
    now_ns: int,
    condition_since: datetime,
    ssrcs: tuple[SourceSsrc, ...] = (),
) -> SessionView:
    """`values` are the engine's session_stats at `now_ns`."""
    last = values["last_packet_ns"]
    is_active = last > 0 and now_ns - last <= ACTIVE_WINDOW_NS
    status = SessionStatus.ACTIVE if is_active else SessionStatus.IDLE
    return SessionView(
        session_id=session.session_id,
        ssrc=session.ssrc,
        media_type=session.media_type,
        subscriber_count=int(values["subscribers"]),
        created_at=session.created_at,
        status=SessionStatus.PAUSED if session.terms.paused else status,
        terms=session.terms,
        revision=session.revision,
        refused_subscribers=session.refused,
        condition=session.condition,
        condition_since=condition_since,
        ssrcs=ssrcs,
    )


def stats_of(
    session: Session, values: Mapping[str, float], reception: Mapping[str, Any], now_ns: int
) -> SessionStats:
    """`values` and `reception` are what the engine has of it at `now_ns`."""
    last = values["last_packet_ns"]
    counted: dict[str, Any] = {name: int(values[name]) for name in _COUNTED}
    return SessionStats(
        session_id=session.session_id,
        subscriber_count=int(values["subscribers"]),
        # The session's, not the engine's: that one begins anew with the process.
        uptime_seconds=max(0, now_ns - session.created_ns) / 1e9,
        packets_per_second=values["packets_per_second"],
        # A packet may have come in since the clock was read.
        seconds_since_last_packet=max(0.0, (now_ns - last) / 1e9) if last else None,
        **counted,
        reception=reception_of(reception),
    )


def reception_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """From the engine's session_reception: its nanoseconds as seconds."""
    found = {}
    for name, value in values.items():
        if name.endswith("_age_ns"):
            name = f"seconds_since_{name.removesuffix('_age_ns')}"
        elif name.endswith("_ns"):
            name = f"{name.removesuffix('_ns')}_seconds"
        else:
            found[name] = value
            continue
        found[name] = None if value is None else value / 1e9
    del found["condition"]
    return found
