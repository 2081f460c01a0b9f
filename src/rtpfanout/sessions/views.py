"""Sessions and subscribers as they were when asked."""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout._fastpath import LATENCY_BOUNDS_NS
from rtpfanout.model import ACTIVE_WINDOW_NS, Address, MediaType, SessionStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime


@dataclass(slots=True)
class Session:
    """What the engine does not keep; `subscribers` changes under the manager's lock."""

    session_id: str
    sequence: int
    handle: int
    source: Address
    ssrc: int
    media_type: MediaType
    created_at: datetime
    created_ns: int
    subscribers: int = 0


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session. `created_at` is in UTC."""

    session_id: str
    source: Address
    ssrc: int
    media_type: MediaType
    subscriber_count: int
    created_at: datetime
    status: SessionStatus


@dataclass(frozen=True, slots=True)
class SessionStats:
    """A session's counters since its creation; bytes are of UDP payload."""

    session_id: str
    packets_received: int
    packets_sent: int
    bytes_received: int
    bytes_sent: int
    send_failures: int
    subscriber_count: int
    uptime_seconds: float
    packets_per_second: float
    seconds_since_last_packet: float | None


@dataclass(frozen=True, slots=True)
class SubscriberView:
    """A subscriber and what happened to its copies. `since` is in UTC."""

    address: Address
    since: datetime
    packets_sent: int
    send_failures: int


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
class SessionLatency:
    """From the kernel's receive time stamp to the return of the send, of a session's packets.

    To the first and to the last subscriber served; None while no packet had a subscriber.
    """

    first_copy: LatencySummary | None
    last_copy: LatencySummary | None


def view_of(session: Session, values: Mapping[str, float], now_ns: int) -> SessionView:
    """`values` are the engine's session_stats at `now_ns`."""
    last = values["last_packet_ns"]
    is_active = last > 0 and now_ns - last <= ACTIVE_WINDOW_NS
    return SessionView(
        session_id=session.session_id,
        source=session.source,
        ssrc=session.ssrc,
        media_type=session.media_type,
        subscriber_count=int(values["subscribers"]),
        created_at=session.created_at,
        status=SessionStatus.ACTIVE if is_active else SessionStatus.IDLE,
    )


def stats_of(session: Session, values: Mapping[str, float], now_ns: int) -> SessionStats:
    """`values` are the engine's session_stats at `now_ns`."""
    last = values["last_packet_ns"]
    return SessionStats(
        session_id=session.session_id,
        packets_received=int(values["packets_received"]),
        packets_sent=int(values["packets_sent"]),
        bytes_received=int(values["bytes_received"]),
        bytes_sent=int(values["bytes_sent"]),
        send_failures=int(values["send_failures"]),
        subscriber_count=int(values["subscribers"]),
        uptime_seconds=(now_ns - values["created_ns"]) / 1e9,
        packets_per_second=values["packets_per_second"],
        # A packet may have come in since the clock was read.
        seconds_since_last_packet=max(0.0, (now_ns - last) / 1e9) if last else None,
    )
