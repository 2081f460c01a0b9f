"""How the server as a whole fares, told beside a session's counters."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtpfanout._fastpath import SEND_FAILURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtpfanout._fastpath import Engine

KEPT_SECS = 0.1


@dataclass(frozen=True, slots=True)
class ServerHealth:
    """Counters are since the server's start, over all sessions."""

    packets_received: int = 0
    kernel_receive_drops: int = 0
    """Datagrams that the receive queue had no room for."""
    receive_queue_bytes: int = 0
    """What the kernel grants, its overhead aside; and what `buffer_size` asks for."""
    requested_receive_queue_bytes: int = 0
    overload_marks: tuple[str, ...] = ()
    """Those that are passed."""
    send_failures: Mapping[str, int] = field(default_factory=dict)
    """Copies that the kernel refused, by reason."""


class Health:
    """What it costs to ask the kernel what it dropped (0.2 ms) is not paid for each session that is
    asked about. Thread-safe."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._sockets = engine, engine.sockets
        self._stats = engine.stats()
        self._read_at = time.monotonic()

    def look(self, marks: Mapping[str, bool]) -> ServerHealth:
        """As it is now, or was KEPT_SECS ago."""
        now = time.monotonic()
        if now - self._read_at >= KEPT_SECS:
            self._read_at = now
            self._stats = self._engine.stats()
        stats, sockets = self._stats, self._sockets
        return ServerHealth(
            packets_received=stats["packets_received"],
            kernel_receive_drops=stats["kernel_drops"],
            receive_queue_bytes=sockets.receive_buffer_bytes // 2,  # socket(7): it is doubled
            requested_receive_queue_bytes=sockets.requested_receive_buffer_bytes,
            overload_marks=tuple(name for name, is_passed in marks.items() if is_passed),
            send_failures={reason: stats[f"failed_{reason}"] for reason in SEND_FAILURES},
        )
