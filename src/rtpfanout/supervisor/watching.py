"""Ends a server process with a packet loop that is stuck; tells the supervisor that it lives."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from rtpfanout.server import Server
    from rtpfanout.supervisor.link import Link

STUCK_SECONDS = 2.0
"""So long without a sign of life, while it does nothing else either, and a worker is stuck."""
LONGEST_SECONDS = 30.0
"""So long without a sign of life, and it is, whatever it does."""
LOOK_SECONDS = 0.5
EXIT_STUCK = 70
_NANOSECONDS = 1e9

_log = structlog.stdlib.get_logger(__name__)


@dataclass
class _Look:
    """What was seen of one worker: its last sign of life, and the CPU time that its thread had."""

    sign: int
    cpu_at_sign: int
    cpu: int
    silent: int = 0
    """Looks since the sign."""
    still: int = 0
    """Looks since anything changed."""


class StuckWorkers:
    """Which worker is stuck, by looks at all of them every LOOK_SECONDS.

    A worker gives a sign of life every few milliseconds while it runs. One that gives none for
    STUCK_SECONDS is stuck if its thread has not run meanwhile, as when it hangs in the kernel, or
    has run for so long, as when it goes round in a circle. One that has run for less of them gets
    on, but has to wait for a CPU, as has one that could run and was not let: on a machine with that
    much to do another process would fare no better. Looks are counted because time passes, too,
    while this whole process is stopped.
    """

    def __init__(self, can_run: Callable[[int], bool] = lambda _worker: False) -> None:
        """`can_run` says whether a worker has a CPU or waits for one; False where nobody knows."""
        self._looks: dict[int, _Look] = {}
        self._can_run = can_run

    def look(self, now: int, health: Sequence[tuple[int, int, int]]) -> tuple[int, float] | None:
        """The worker that is stuck, of several the one that was the first, and its silence in
        seconds. `now` is CLOCK_MONOTONIC in nanoseconds, `health` of `Engine.worker_health`."""
        stuck = [
            (now - sign, worker)
            for worker, (sign, _busy, cpu) in enumerate(health)
            if self._is_stuck(worker, sign, cpu, now)
        ]
        if not stuck:
            return None
        silence, worker = max(stuck)
        return worker, silence / _NANOSECONDS

    def _is_stuck(self, worker: int, sign: int, cpu: int, now: int) -> bool:
        look = self._looks.get(worker)
        if look is None or look.sign != sign:
            self._looks[worker] = _Look(sign, cpu, cpu)
            return False
        look.silent += 1
        look.still = look.still + 1 if cpu == look.cpu else 0
        look.cpu = cpu
        if not sign or (now - sign) / _NANOSECONDS <= STUCK_SECONDS:
            return False
        ran = (cpu - look.cpu_at_sign) / _NANOSECONDS
        return (
            (look.still * LOOK_SECONDS > 1.0 and not self._can_run(worker))
            or ran > STUCK_SECONDS
            or look.silent * LOOK_SECONDS > LONGEST_SECONDS
        )


def watch_workers(server: Server, link: Link) -> threading.Thread:
    """Ends this process when one of its packet loops is stuck: a thread that hangs in the kernel
    can't be ended by itself, and another process takes over.

    Tells the supervisor at each look that this process is alive.
    """
    thread = threading.Thread(
        target=_watch, args=(server, link), name="rtpfanout-watch", daemon=True
    )
    thread.start()
    return thread


def _watch(server: Server, link: Link) -> None:
    workers = StuckWorkers(server.worker_can_run)
    while True:
        time.sleep(LOOK_SECONDS)
        link.tell("alive")
        if not server.is_alive:  # ended, by itself or because it was told to
            continue
        stuck = workers.look(time.monotonic_ns(), server.engine.worker_health())
        if stuck is not None:
            _end_stuck(server, *stuck)


def _end_stuck(server: Server, worker: int, seconds: float) -> None:
    if server.is_alive:
        with contextlib.suppress(Exception):
            _log.critical(
                "packet loop is stuck, this process ends", worker=worker, seconds=round(seconds, 1)
            )
        os._exit(EXIT_STUCK)
