"""What the high-water marks are compared with: how busy, how much lost, how much memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rtpfanout.overload import Sample

if TYPE_CHECKING:
    from io import FileIO

    from rtpfanout._fastpath import Engine

_STATM = Path("/proc/self/statm")
_log = structlog.stdlib.get_logger(__name__)


class Pressure:
    """Samples of one engine and this process, each over the time since the one before.

    Takes none of what it might be short of: no file is opened for a sample.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._at = time.monotonic_ns()
        self._busy = self._busy_ns()
        self._stats = engine.stats()
        self._statm = _open_statm()

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
            memory_bytes=self._memory_bytes(),
        )
        self._at, self._busy, self._stats = now, busy, stats
        return sample

    def _memory_bytes(self) -> int:
        if self._statm is None:
            return 0
        pages = int(os.pread(self._statm.fileno(), 200, 0).split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _since(self, field: str, stats: dict[str, int]) -> int:
        return stats[field] - self._stats[field]

    def _busy_ns(self) -> list[int]:
        return [busy for _last_sign, busy, _cpu in self._engine.worker_health()]


def _open_statm() -> FileIO | None:
    """Once: a descriptor may be hard to get later. None where /proc isn't mounted."""
    try:
        return _STATM.open("rb", buffering=0)
    except OSError as error:
        _log.warning("overload.memory_mib is not watched", file=str(_STATM), reason=error.strerror)
        return None
