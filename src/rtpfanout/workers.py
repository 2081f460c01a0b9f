"""The threads of the packet path: one for each worker, named, and pinned if asked."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import StartError
from rtpfanout.model import MOST_WORKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rtpfanout._fastpath import Engine

_log = structlog.stdlib.get_logger(__name__)


def worker_count(configured: int) -> int:
    """How many workers `workers` stands for; 0: one for each CPU this process may use."""
    return configured or min(MOST_WORKERS, len(os.sched_getaffinity(0)))


def cpus_of(workers: int, cpus: Sequence[int]) -> Sequence[int]:
    """The CPUs that `worker_cpus` stands for; empty: the kernel places the workers.

    One worker for each CPU stays on its own: else one that is woken to help often has to wait
    on the very CPU of the one that it is to help (two workers, 1,000 subscribers: p99 to the last
    of them 0.9 of what one worker takes instead of 0.55).
    """
    available = sorted(os.sched_getaffinity(0))
    return cpus if cpus or workers or len(available) == 1 else available


def check_cpus(cpus: Sequence[int]) -> None:
    """Raises StartError for the first of `cpus` that this process may not use."""
    available = os.sched_getaffinity(0)
    for cpu in cpus:
        if cpu not in available:
            listed = ", ".join(map(str, sorted(available)))
            raise StartError(
                f"there is no CPU {cpu} for this process; the available ones are {listed}",
                field="worker_cpus",
            )


class Workers:
    """The engine's packet loops, each in a thread.

    Worker i is pinned to entry i modulo length of `cpus`, unless that is empty. `on_end` is
    called in the thread of a loop that ends, for whatever reason; `failed` tells that one
    ended without `stop`.
    """

    def __init__(
        self, engine: Engine, count: int, cpus: Sequence[int], on_end: Callable[[], None]
    ) -> None:
        self.failed = False
        self._engine = engine
        self._cpus = cpus
        self._on_end = on_end
        self._stopping = False
        self._threads = [
            threading.Thread(
                target=self._run, args=(index,), name=f"rtpfanout-worker-{index}", daemon=True
            )
            for index in range(count)
        ]

    @property
    def are_alive(self) -> bool:
        """All packet loops run."""
        return not self.failed and all(thread.is_alive() for thread in self._threads)

    def can_run(self, index: int) -> bool:
        """Worker `index` has a CPU or waits for one; False where there is no /proc to tell."""
        try:
            text = Path(f"/proc/self/task/{self._threads[index].native_id}/stat").read_bytes()
        except OSError:
            return False
        return text.rpartition(b")")[2].split()[0] == b"R"  # proc_pid_stat(5)

    def start(self) -> None:
        """Packets are taken from here on."""
        for thread in self._threads:
            thread.start()

    def stop(self, *, leaves_queue: bool = False) -> None:
        """Returns when every loop has ended, after forwarding what was queued, or leaving it."""
        self._stopping = True
        self._engine.stop(drain=not leaves_queue)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self, index: int) -> None:
        try:
            _name_thread(index)
            if self._cpus:
                os.sched_setaffinity(0, {self._cpus[index % len(self._cpus)]})  # this thread's
            self._engine.run(index)
        except BaseException:
            self.failed = True
            _log.critical("packet loop failed", worker=index, exc_info=True)
        else:
            if not self._stopping:
                self.failed = True
                _log.critical("packet loop returned without being told to", worker=index)
        self._on_end()


def _name_thread(index: int) -> None:
    """As the kernel shows it: 15 characters at the most, see proc_pid_comm(5)."""
    comm = Path(f"/proc/self/task/{threading.get_native_id()}/comm")
    with contextlib.suppress(OSError):  # it is for the eye only
        comm.write_text(f"rtp-worker-{index}")
