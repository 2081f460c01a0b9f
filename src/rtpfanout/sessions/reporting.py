"""The calls about RTCP (RFC 3550 section 6): who has it, and keyframes on request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from rtpfanout.errors import InvalidArgumentError, PreconditionError
from rtpfanout.model import ADDRESS_RECORD, Address, Rtcp
from rtpfanout.sessions.admission import split_records
from rtpfanout.sessions.feedback import feedback_of
from rtpfanout.sessions.names import title

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.views import SessionStats

_LAST_PORT = 65535
Before = Mapping[int, list[bytes]]
"""Records by the number of what they had."""


def refuse_rtcp(records: bytes, rtcp: Rtcp | None) -> None:
    """Raises InvalidArgumentError: one of them has no port where it would go."""
    if rtcp is not Rtcp.NEXT_PORT:
        return
    for packed, scope, port in ADDRESS_RECORD.iter_unpack(records):
        if port == _LAST_PORT:
            address = Address.unpack(packed, port, scope)
            raise InvalidArgumentError(
                f"next_port, but {address} has no port behind it; give mux, or another port",
                field="rtcp",
            )


def set_rtcp(engine: Engine, session: Session, records: bytes, rtcp: Rtcp | None) -> Before:
    """Of subscribers; None: as it is. What they had, for `set_back`. The lock is held."""
    before: dict[int, list[bytes]] = defaultdict(list)
    if rtcp is not None:
        numbers = engine.find_rtcp(session.handle, records)
        for record, number in zip(split_records(records), numbers, strict=True):
            before[number].append(record)
        engine.set_rtcp(session.handle, records, rtcp.number)
    return before


def set_back(engine: Engine, session: Session, before: Before) -> None:
    """Those that are still there."""
    for number, records in before.items():
        engine.set_rtcp(session.handle, b"".join(records), number)


def request_keyframe(engine: Engine, session: Session) -> None:
    """See SessionManager.request_keyframe."""
    try:
        engine.request_keyframe(session.handle)
    except OSError:
        source = session.terms.source
        raise PreconditionError(
            f"session {title(session)} takes packets of more than one address"
            f" ({source.policy} {source.text or 'anybody'}): only a source that is one address"
            " (exact, ip, or a latch that is pinned) is asked for a keyframe",
            field="session_id",
        ) from None


def with_feedback(
    stats: SessionStats, engine: Engine, session: Session, now_ns: int
) -> SessionStats:
    """`stats` with that of a session that has, or had, RTCP."""
    values = engine.feedback(session.handle)
    if not any(values.values()):
        return stats
    told = feedback_of(values, stats.uptime_seconds, stats.packets_per_second, now_ns)
    return replace(stats, feedback=told)
