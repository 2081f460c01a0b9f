"""What a session's source and its subscribers report by RTCP (RFC 3550 section 6), as it was when
asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtpfanout._fastpath import FEEDBACK_FIELDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtpfanout._fastpath._engine import Report

MISSING_AFTER_SECS = 15.0
"""Who has RTCP should have had a sender report by then: most senders make one every 5 s."""


@dataclass(frozen=True, slots=True)
class ReceiverReport:
    """The last one of a subscriber."""

    fraction_lost: float
    """Of the packets between it and the one before: 0 to 1."""
    lost: int
    """In all; below 0 where duplicates came."""
    age_seconds: float
    jitter_seconds: float | None = None
    round_trip_seconds: float | None = None
    """From us to it and back; known once it has reported on a sender report."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """Counters of a session's RTCP since its creation or the server's start."""

    sender_reports: int = 0
    seconds_since_sender_report: float | None = None
    sender_reports_missing: bool = False
    """Packets come, somebody has RTCP, and there was none for MISSING_AFTER_SECS."""
    receiver_reports: int = 0
    keyframe_requests: int = 0
    keyframe_requests_sent: int = 0
    packets_nacked: int = 0
    reports_sent: int = 0
    bitrates_sent: int = 0
    packets_asked: int = 0
    packets_repaired: int = 0
    copies_rtcp: int = 0
    reporters: int = 0
    """Subscribers with RTCP."""


def report_of(report: Report | None, now_ns: int) -> ReceiverReport | None:
    """Of what the engine tells; None: nothing was reported."""
    if report is None or report[1] == 0:
        return None
    _rtcp, at_ns, fraction, lost, jitter, round_trip = report
    return ReceiverReport(
        fraction,
        lost,
        max(0, now_ns - at_ns) / 1e9,
        jitter if jitter >= 0 else None,
        round_trip if round_trip >= 0 else None,
    )


def feedback_of(
    values: Mapping[str, int], uptime_secs: float, packets_per_second: float, now_ns: int
) -> Feedback:
    """`values` are the engine's, as what is told of its packets."""
    came = values["sender_report_ns"]
    since = max(0, now_ns - came) / 1e9 if came else None
    counted: dict[str, Any] = {name: values[name] for name in FEEDBACK_FIELDS}
    return Feedback(
        seconds_since_sender_report=since,
        sender_reports_missing=values["reporters"] > 0
        and packets_per_second > 0
        and uptime_secs > MISSING_AFTER_SECS
        and (since is None or since > MISSING_AFTER_SECS),
        reporters=values["reporters"],
        **counted,
    )
