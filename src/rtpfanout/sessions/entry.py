"""What a start has in hand between the packet path, which goes first, and calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from rtpfanout.sessions.admission import RECORD_BYTES, split_records

if TYPE_CHECKING:
    from rtpfanout.sessions.rules import Rules
    from rtpfanout.sessions.terms import Terms
    from rtpfanout.store import SubscriberRun

_log = structlog.stdlib.get_logger(__name__)
_NO_LEASES: frozenset[int] = frozenset()


@dataclass(slots=True)
class Restored:
    """How many are served again, are refused, and were over."""

    sessions: int = 0
    subscribers: int = 0
    refused_sessions: int = 0
    refused_subscribers: int = 0
    expired_subscribers: int = 0
    first_reason: str = ""

    @property
    def refused(self) -> int:
        """Sessions and subscribers."""
        return self.refused_sessions + self.refused_subscribers

    def tell(self) -> None:
        """In one line of the log, if something is refused."""
        if self.refused:
            _log.warning(
                "stored sessions or subscribers are refused now: they are kept, and get nothing",
                sessions=self.refused_sessions,
                subscribers=self.refused_subscribers,
                first_reason=self.first_reason,
            )


class Entry:
    """A session that the engine has again and calls don't know yet."""

    __slots__ = (
        "at_ingress_port", "feeder", "handle", "is_echo", "last_since", "leases", "records",
        "refused", "subscribers", "terms",
    )  # fmt: skip

    def __init__(self, handle: int, feeder: bytes | None, *, is_echo: bool) -> None:
        self.handle = handle
        self.feeder = feeder  # the record of its one source, if there is only one
        self.is_echo = is_echo
        self.terms: Terms | None = None  # still to be read
        self.subscribers = 0
        self.refused = 0  # of these
        self.last_since = 0
        self.at_ingress_port = False
        self.leases: frozenset[int] = _NO_LEASES
        self.records = b""  # of its subscribers, where each is counted or has to consent


def divided(
    run: SubscriberRun, entry: Entry, rules: Rules, served: int, *, looks: bool
) -> tuple[bytes, list[bytes], str]:
    """(records that are served, others, why the first of these is not): by the policy, if it
    `looks`, by the limits, and by the session's source, which is no subscriber of its own.

    `served` are subscribers of all sessions.
    """
    left, reason = run.records, ""
    if looks:
        left, reason = rules.admission.divide(left)
    if entry.feeder is not None and entry.feeder in left:
        reason = reason or "loop"
        left = b"".join(r for r in split_records(left) if r != entry.feeder)
    room = rules.limits.fanout - (entry.subscribers - entry.refused)
    room = max(0, min(room, rules.limits.subscribers - served))
    if len(left) > room * RECORD_BYTES:
        reason = reason or "limits"
        left = left[: room * RECORD_BYTES]
    if len(left) == len(run.records):
        return left, [], ""
    kept = set(split_records(left))
    return left, [record for record in split_records(run.records) if record not in kept], reason
