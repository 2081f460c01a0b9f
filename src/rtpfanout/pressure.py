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
        self._stats = engine.stats()

    def sample(self) -> Sample:
        """Since the last call."""
        now, busy, stats = time.monotonic_ns(), self._busy_ns(), self._engine.stats()
        elapsed = max(1, now - self._at)
        worked = [after - before for after, before in zip(busy, self._busy, strict=True)]
        drops = self._since("kernel_drops", stats)
        sample = Sample(
            busy=min(1.0, max(worked) / elapsed),
            kernel_drops=drops * 1e9 / elapsed,
            lost_share=drops / max(1, drops + self._since("packets_received", stats)),
            work=sum(worked) / elapsed,
            copies=self._since("copies_attempted", stats) * 1e9 / elapsed,
            memory_bytes=int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        )
        self._at, self._busy, self._stats = now, busy, stats
        return sample

    def _since(self, field: str, stats: dict[str, int]) -> int:
        return stats[field] - self._stats[field]

    def _busy_ns(self) -> list[int]:
        return [busy for _last_sign, busy in self._engine.worker_health()]
