"""What a start has in hand between the packet path, which goes first, and calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from rtpfanout.sessions.terms import Terms

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

    def tell(self) -> None:
        """In one line of the log, if something is refused."""
        if self.refused_sessions or self.refused_subscribers:
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
