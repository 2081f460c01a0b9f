"""A few threads for what waits for the store, behind queues of bounded length."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from queue import SimpleQueue
from typing import TYPE_CHECKING

import structlog

from rtpfanout.seldom import Seldom

if TYPE_CHECKING:
    Task = Callable[[], None]

_log = structlog.stdlib.get_logger(__name__)


class Work:
    """Tasks with the same key run one after the other, in order; others beside them."""

    def __init__(self, threads: int = 32, depth: int = 2048) -> None:
        """`depth` is how many tasks can wait in all."""
        self._depth = depth
        self._waiting = 0
        self._faults = Seldom(10)
        self._lock = threading.Lock()
        self._queues: list[SimpleQueue[Task | None]] = [SimpleQueue() for _ in range(threads)]
        self._threads: list[threading.Thread] = []

    def submit(self, key: Hashable, task: Task) -> bool:
        """False when too many wait: the task is not taken then."""
        with self._lock:
            if self._waiting >= self._depth:
                return False
            self._waiting += 1
            if not self._threads:
                self._start()
            self._queues[hash(key) % len(self._queues)].put(task)
        return True

    def stop(self) -> None:
        """Returns when the tasks taken so far are done."""
        with self._lock:
            threads, self._threads = self._threads, []
        for queue, _ in zip(self._queues, threads, strict=False):
            queue.put(None)
        for thread in threads:
            thread.join()

    def _start(self) -> None:
        self._threads = [
            threading.Thread(target=self._run, args=(queue,), name="rtpfanout-doorman", daemon=True)
            for queue in self._queues
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, queue: SimpleQueue[Task | None]) -> None:
        while (task := queue.get()) is not None:
            try:
                task()
            except Exception:
                self._faults.write(_log.exception, "a control datagram was not carried out")
            with self._lock:
                self._waiting -= 1
