"""What the high-water marks are compared with: how busy, how much lost, how much memory."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from rtpfanout.overload import Sample

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine

_STATM = "/proc/self/statm"
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class ResidentMemory:
    """This process's. The file is opened once: later there may be no descriptor left."""

    def __init__(self) -> None:
        self._statm: int | None = None
        with contextlib.suppress(OSError):  # no /proc here
            self._statm = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self._statm is not None:
            os.close(self._statm)

    def bytes_now(self) -> int:
        """0 where the kernel doesn't tell."""
        if self._statm is None:
            return 0
        return int(os.pread(self._statm, 128, 0).split()[1]) * _PAGE_BYTES


class Pressure:
    """Samples of one engine and this process, each over the time since the one before.

    Takes none of what it might be short of: no file is opened for a sample.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memory = ResidentMemory()
        self._at = time.monotonic_ns()
        self._busy = self._busy_ns()
        self._drops = engine.stats()["kernel_drops"]

    def sample(self) -> Sample:
        """Since the last call."""
        now, busy = time.monotonic_ns(), self._busy_ns()
        drops = self._engine.stats()["kernel_drops"]
        elapsed = max(1, now - self._at)
        busiest = max(after - before for after, before in zip(busy, self._busy, strict=True))
        sample = Sample(
            busy=min(1.0, busiest / elapsed),
            kernel_drops=(drops - self._drops) * 1e9 / elapsed,
            memory_bytes=self._memory.bytes_now(),
        )
        self._at, self._busy, self._drops = now, busy, drops
        return sample

    def _busy_ns(self) -> list[int]:
        return [busy for _last_sign, busy in self._engine.worker_health()]
