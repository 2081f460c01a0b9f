#!/usr/bin/env python3
"""A session with many subscribers: until the last of them is served, by one worker and by two.

    python benchmarks/wide.py                    # 1,000 subscribers, 420 packets/s, frames of 14
    python benchmarks/wide.py --offload --rounds 3

Servers take turns in one lab, a new one each round. The time is the server's own: from the
kernel's receive time stamp to the return of the send of the last copy, so no receiver takes CPU
from a worker. JSON on stdout. Needs root.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from contextlib import ExitStack
from typing import Any

from contenders import Rtpfanout
from rounds import FIRST_SSRC, Bench, Cell, balances
from run import lab_of_its_own, last_cpus


def measure(bench: Bench, cell: Cell, workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """One round; packets come one by one, as a camera sends them."""
    server = Rtpfanout(bench.lab, last_cpus(workers), options.generator_cpus, workers)
    copies = bench.lab.copies(cell.size)
    try:
        server.start(
            first_ssrc=FIRST_SSRC, sessions=1, subscribers=cell.subscribers, queue=cell.queue
        )
        bench.wait_for_quiet()
        tool = bench.generator(cell, server, options.rate, options.duration, gso=False)
        sent = json.loads(tool.line(options.duration + 10))["sent"]
        tool.stop()
        counters, copies_after = bench.settled(cell, server)
        return {
            **server.last_copy(),
            "exact": copies_after - copies == counters["sent"] == sent * cell.subscribers
            and balances(counters, cell.subscribers),
        }
    finally:
        server.stop()


def summary(rounds: dict[int, list[dict[str, Any]]]) -> dict[str, Any]:
    """Medians by number of workers; ratios are medians of the rounds' own to the first."""
    first = next(iter(rounds.values()))
    return {
        f"workers={workers}": {
            **{key: statistics.median(each[key] for each in some) for key in ("p50_us", "p99_us")},
            "p99_ratio": statistics.median(
                each["p99_us"] / other["p99_us"] for each, other in zip(some, first, strict=True)
            ),
            "exact": all(each["exact"] for each in some),
        }
        for workers, some in rounds.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-s", "--subscribers", type=int, default=1000)
    parser.add_argument("-b", "--burst", type=int, default=14)
    parser.add_argument("--rate", type=float, default=420, help="packets/s")
    parser.add_argument("--duration", type=float, default=8, help="seconds of a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--offload", action="store_true", help="GSO passes the egress link whole")
    parser.add_argument("--nice", type=int, default=0)
    options = parser.parse_args()
    lab = lab_of_its_own(options)
    cell = Cell(options.subscribers, options.burst, 1, 1200)
    rounds: dict[int, list[dict[str, Any]]] = {workers: [] for workers in options.workers}
    with ExitStack() as stack:
        stack.callback(lab.close)
        lab.open()
        for _ in range(options.rounds):
            for workers, some in rounds.items():
                some.append(measure(Bench(lab, options), cell, workers, options))
    print(json.dumps(summary(rounds), indent=1))
    return 0 if all(each["exact"] for some in rounds.values() for each in some) else 1


if __name__ == "__main__":
    sys.exit(main())
