"""An engine that runs in this process, and the exactness of its numbers once it rests."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from support import eventually, unmet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout._fastpath import Engine


def requires_steering(engine: Engine) -> None:
    """Skip, or with RTPFANOUT_REQUIRE_ALL=1 fail, unless each worker receives."""
    if engine.sockets.receiving_workers < engine.workers:
        unmet("needs a kernel that steers packets by source address")


def engine_identities(engine: Engine) -> None:
    """Assert DESIGN section 6 on an engine, once it has come to rest."""
    _assert_identities(eventually(engine.stats, _holds, "the identities of DESIGN section 6"))


def _sum(counters: dict[str, int], prefix: str) -> int:
    return sum(value for name, value in counters.items() if name.startswith(prefix))


def _holds(c: dict[str, int]) -> bool:
    return all(left == right for left, right in _sums(c))


def _sums(c: dict[str, int]) -> list[tuple[int, int]]:
    return [
        (c["packets_received"], c["packets_forwarded"] + _sum(c, "dropped_")),
        (c["copies_attempted"], c["packets_sent"] + _sum(c, "failed_")),
        (c["dropped_rtcp"], _sum(c, "rtcp_taken_") + _sum(c, "rtcp_dropped_")),
    ]


def _assert_identities(c: dict[str, int]) -> None:
    for left, right in _sums(c):
        assert left == right, c


@contextlib.contextmanager
def running_engine(engine: Engine, workers: int = 1) -> Iterator[Engine]:
    """Each worker's packet loop in a thread; at the end the identities must hold."""
    threads = [threading.Thread(target=engine.run, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    try:
        yield engine
    finally:
        engine.stop()
        for thread in threads:
            thread.join()
    engine_identities(engine)
