"""The threads of the packet path: one for each worker, named, and pinned if asked."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import StartError
from rtpfanout.model import MOST_WORKERS

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine

_log = structlog.stdlib.get_logger(__name__)

CROWDED_SHARE = 0.5
"""Of the time between two looks: so long a worker may have to wait for its CPU."""
APART_SECONDS = 60.0
"""So long workers are left to the kernel the first time, twice as long each further time."""
LONGEST_APART_SECONDS = 3600.0


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


@dataclass
class Pinning:
    """Whether workers stay on their own CPUs, by looks at how long each had to wait for one.

    On a CPU that others use too, a pinned thread that often sleeps may get next to nothing: the
    kernel shares a CPU by groups (sched(7), "The autogroup feature"), and a group's part there goes
    by what else it does there. So workers leave CPUs that are crowded, and come back later.
    """

    pinned: bool = True
    _pause: float = APART_SECONDS
    _again: float = 0.0
    _looked: float | None = None
    _waited: tuple[int, ...] = ()

    def look(self, now: float, waited: tuple[int, ...]) -> bool:
        """Whether `pinned` has changed. `now` in seconds, `waited` in ns since each began."""
        since, before = self._looked, self._waited
        self._looked, self._waited = now, waited
        if not self.pinned:
            self.pinned = now >= self._again
            return self.pinned
        if since is None or len(before) != len(waited) or now <= since:
            return False
        longest = max((b - a for a, b in zip(before, waited, strict=True)), default=0)
        if longest / 1e9 < CROWDED_SHARE * (now - since):
            return False
        if now - self._again > LONGEST_APART_SECONDS:  # it has been well for so long
            self._pause = APART_SECONDS
        self.pinned = False
        self._again = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_APART_SECONDS)
        return True


class Workers:
    """The engine's packet loops, each in a thread.

    Worker i is pinned to entry i modulo length of `cpus`, unless that is empty; if it `may_leave`
    its CPU, only while that is not crowded (see `look_at_cpus`). `on_end` is called in the
    thread of a loop that ends, for whatever reason; `failed` tells that one ended without `stop`.
    """

    def __init__(
        self,
        engine: Engine,
        count: int,
        cpus: Sequence[int],
        on_end: Callable[[], None],
        *,
        may_leave: bool = False,
    ) -> None:
        self.failed = False
        self._engine = engine
        self._cpus = cpus
        self._all_cpus = os.sched_getaffinity(0)
        self._pinning = Pinning() if cpus and may_leave else None
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

    def look_at_cpus(self) -> None:
        """Once a second: lets workers leave CPUs that are crowded, and takes them back later."""
        if self._pinning is None or not self._pinning.look(time.monotonic(), self._waited()):
            return
        for index, thread in enumerate(self._threads):
            cpus = {self._cpu_of(index)} if self._pinning.pinned else self._all_cpus
            with contextlib.suppress(OSError):  # it has ended
                os.sched_setaffinity(thread.native_id or 0, cpus)
        if not self._pinning.pinned:
            _log.info("others use the workers' CPUs too; the kernel places the workers for a while")

    def _waited(self) -> tuple[int, ...]:
        """Nanoseconds each had to wait for a CPU; empty where the kernel doesn't tell."""
        waited = []
        for thread in self._threads:
            try:
                text = Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text()
            except OSError:
                return ()
            waited.append(int(text.split()[1]))  # Documentation/scheduler/sched-stats.rst
        return tuple(waited)

    def _cpu_of(self, index: int) -> int:
        return self._cpus[index % len(self._cpus)]

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
                os.sched_setaffinity(0, {self._cpu_of(index)})  # this thread's
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
