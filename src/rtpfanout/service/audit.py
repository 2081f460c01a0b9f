"""A line in the log for each call that changes something, or would have."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout.auth import OPERATING, SUBSCRIBING

if TYPE_CHECKING:
    from rtpfanout.auth import Identity

_SHOWN = ("source_address", "ssrc", "session_id", "subscriber_address", "request_id")
"""Fields of requests that are told; move keys and tokens are none of them."""

_log = structlog.stdlib.get_logger("rtpfanout.audit")


class Audit:
    """One call from its arrival on; `identity` is None until it is known."""

    def __init__(self, method: str, peer: str, request: Any) -> None:
        self.identity: Identity | None = None
        self._method = method
        self._peer = peer
        self._request = request
        self._began = time.perf_counter()

    def write(self, outcome: str, response: Any = None) -> None:
        """`outcome` is the name of the status code."""
        if self._method not in OPERATING | SUBSCRIBING:
            return
        shown = {name: value for name in _SHOWN if (value := getattr(self._request, name, None))}
        if addresses := getattr(self._request, "subscriber_addresses", None):
            shown["subscribers"] = len(addresses)
        if created := getattr(response, "session_id", None):
            shown["session_id"] = created
        _log.info(
            "audit",
            call=self._method,
            outcome=outcome,
            who=self.identity.name if self.identity else None,
            role=self.identity.role if self.identity else None,
            peer=self._peer,
            milliseconds=round(1000 * (time.perf_counter() - self._began), 3),
            **shown,
        )
