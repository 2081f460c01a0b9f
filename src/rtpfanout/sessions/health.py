"""How the server as a whole fares, told beside a session's counters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtpfanout._fastpath import SEND_FAILURES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rtpfanout._fastpath import Engine


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


def health_of(engine: Engine, marks: Mapping[str, bool]) -> ServerHealth:
    """As it is now."""
    stats, sockets = engine.stats(), engine.sockets
    return ServerHealth(
        packets_received=stats["packets_received"],
        kernel_receive_drops=stats["kernel_drops"],
        receive_queue_bytes=sockets.receive_buffer_bytes // 2,  # socket(7): the kernel doubles it
        requested_receive_queue_bytes=sockets.requested_receive_buffer_bytes,
        overload_marks=tuple(name for name, is_passed in marks.items() if is_passed),
        send_failures={reason: stats[f"failed_{reason}"] for reason in SEND_FAILURES},
    )
