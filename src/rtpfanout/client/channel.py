"""How a client reaches its server, and what both clients are told about it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.client.retry import RetryPolicy

OPTIONS: tuple[tuple[str, int], ...] = (
    # The control API is reached directly: a proxy from the environment would be asked
    # for 127.0.0.1 too.
    ("grpc.enable_http_proxy", 0),
    # A server that restarts is found again as soon as it is there, not a second or,
    # after some tries, two minutes later (gRPC's defaults).
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A page of 1000 sessions with all their labels.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Manner:
    """How calls are made: seconds for an attempt, for a call with its retries; and those."""

    timeout: float
    overall_timeout: float
    retries: RetryPolicy

    def within(self, seconds: float) -> Manner:
        """The same, but a call ends in `seconds`, retries and all."""
        timeout = min(self.timeout, seconds)
        return dataclasses.replace(self, timeout=timeout, overall_timeout=seconds)


def manner(timeout: float, overall_timeout: float | None, retries: RetryPolicy) -> Manner:
    """Without an `overall_timeout`: 20 s, or one attempt if that may take longer."""
    return Manner(timeout, overall_timeout or max(20.0, timeout), retries)
