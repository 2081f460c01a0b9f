"""What the high-water marks are compared with: how busy, how much lost, how much memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rtpfanout.overload import Sample

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine

_STATM = Path("/proc/self/statm")


class Pressure:
    """Samples of one engine and this process, each over the time since the one before."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at = time.monotonic_ns()
        self._busy = self._busy_ns()
        self._received, self._drops = self._counts()

    def sample(self) -> Sample:
        """Since the last call."""
        now, busy = time.monotonic_ns(), self._busy_ns()
        received, drops = self._counts()
        came = received - self._received + drops - self._drops
        elapsed = max(1, now - self._at)
        busiest = max(after - before for after, before in zip(busy, self._busy, strict=True))
        sample = Sample(
            busy=min(1.0, busiest / elapsed),
            kernel_drops=(drops - self._drops) * 1e9 / elapsed,
            lost_share=(drops - self._drops) / max(1, came),
            memory_bytes=int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        )
        self._at, self._busy = now, busy
        self._received, self._drops = received, drops
        return sample

    def _counts(self) -> tuple[int, int]:
        """Datagrams received, and those that a full receive queue had no room for."""
        stats = self._engine.stats()
        return stats["packets_received"], stats["kernel_drops"]

    def _busy_ns(self) -> list[int]:
        return [busy for _last_sign, busy in self._engine.worker_health()]
