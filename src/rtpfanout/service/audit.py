"""A line in the log for each call that changes something, or would have.

Calls of strangers, who got no identity, have a line each up to STRANGERS_PER_SECOND; above that
they are counted and told with the next line, so that strangers don't fill the disk.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.auth import OPERATING, SUBSCRIBING
from rtpfanout.seldom import Bucket

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout.auth import Identity

STRANGERS_PER_SECOND = 10
LONGEST_SHOWN = 128

_SHOWN = ("source_address", "ssrc", "session_id", "name", "subscriber_address", "request_id")
"""Fields of requests that are told; move keys and tokens are none of them."""

_CHANGING = (OPERATING | SUBSCRIBING) - {"ListKnocks"}
"""Who knocks needs a role, and changes nothing."""

_log = structlog.stdlib.get_logger("rtpfanout.audit")


class AuditLog:
    """Of one server; for one event loop."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is in seconds."""
        self._now = now
        self._allowance = Bucket(STRANGERS_PER_SECOND, STRANGERS_PER_SECOND)
        self._left_out = 0

    def begin(self, method: str, peer: str, request: Any) -> Audit:
        """A call arrives."""
        return Audit(self, method, peer, request)

    def write(self, is_stranger: bool, **entry: object) -> None:
        """One line, perhaps."""
        if is_stranger and not self._allowance.take(self._now()):
            self._left_out += 1
            return
        if self._left_out:
            entry["strangers_left_out"] = self._left_out
            self._left_out = 0
        _log.info("audit", **entry)


class Audit:
    """One call from its arrival on; `identity` is None until it is known."""

    def __init__(self, log: AuditLog, method: str, peer: str, request: Any) -> None:
        self.identity: Identity | None = None
        self._log = log
        self._method = method
        self._peer = peer
        self._began = time.perf_counter()
        self._is_told = method in _CHANGING
        # Before the request is confined: as the caller wrote it.
        self._request = _told(request) if self._is_told else {}

    def write(self, outcome: str, response: Any = None) -> None:
        """`outcome` is the name of the status code."""
        if not self._is_told:
            return
        told = dict(self._request)
        if created := getattr(response, "session_id", None):
            told["session_id"] = created
        if name := getattr(response, "name", None):
            told["name"] = name
        identity = self.identity
        self._log.write(
            identity is None,
            call=self._method,
            outcome=outcome,
            who=_short(identity.name) if identity else None,
            role=str(identity.role) if identity else None,
            scope=",".join(map("=".join, identity.scope)) if identity else None,
            peer=self._peer,
            milliseconds=round(1000 * (time.perf_counter() - self._began), 3),
            **told,
        )


def _told(request: Any) -> dict[str, object]:
    told = {
        name: _short(value) if isinstance(value, str) else value
        for name in _SHOWN
        if (value := getattr(request, name, None))
    }
    if addresses := getattr(request, "subscriber_addresses", None):
        told["subscribers"] = len(addresses)
    return told


def _short(text: str) -> str:
    """Neither long nor with control characters, which a terminal would obey."""
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    return text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 3] + "..."
