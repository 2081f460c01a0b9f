#!/usr/bin/env python3
"""Ten times more than the server can send, for a minute: goodput, the control API, the way back.

Fairness is Jain's index over the sessions' copies, which all offer the same.

    python benchmarks/overload.py                    # 8 sessions of 100 subscribers
    python benchmarks/overload.py --seconds 10 --factor 3

Peak goodput is the best of a few rates in the same run. JSON on stdout. Needs root.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from contenders import Rtpfanout
from rounds import FIRST_SSRC, Bench, Cell
from run import lab_of_its_own, last_cpus

LOOK_S = 0.25


class Run:
    """One server in one lab, and what reaches the subscribers' interface."""

    def __init__(self, bench: Bench, cell: Cell, server: Rtpfanout) -> None:
        self.bench, self.cell, self.server = bench, cell, server

    def goodput(self, rate: float, seconds: float) -> float:
        """Copies per second while `rate` packets per second are offered."""
        tool = self.bench.generator(self.cell, self.server, rate, seconds + 1.5, gso=True)
        try:
            time.sleep(1)
            start, before = time.monotonic(), self.bench.lab.copies(self.cell.size)
            time.sleep(seconds)
            copies = self.bench.lab.copies(self.cell.size) - before
            return copies / (time.monotonic() - start)
        finally:
            tool.line(seconds + 10)
            tool.stop()

    def recovery(self, rate: float) -> float:
        """Seconds until 95 % of `rate` arrives again, offered from now on."""
        tool = self.bench.generator(self.cell, self.server, rate, 12, gso=True)
        wanted = 0.95 * rate * self.cell.subscribers
        start = time.monotonic()
        try:
            while time.monotonic() - start < 10:
                before, began = self.bench.lab.copies(self.cell.size), time.monotonic()
                time.sleep(LOOK_S)
                copies = self.bench.lab.copies(self.cell.size) - before
                if copies / (time.monotonic() - began) >= wanted:
                    return began - start
            return 10.0
        finally:
            tool.stop()

    def resident_mib(self) -> float:
        pid = self.server.tool.process.pid
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def measure(run: Run, options: argparse.Namespace) -> dict[str, Any]:
    capacity = run.bench.capacity(run.cell, run.server)
    peak = max(run.goodput(capacity * share, 3) for share in (0.7, 0.85, 1.0, 1.2))
    calm = run.server.control.ask({"probe": 5})
    resident = run.resident_mib()
    probed: dict[str, Any] = {}
    prober = threading.Thread(
        target=lambda: probed.update(run.server.control.ask({"probe": options.seconds - 1}))
    )
    time.sleep(3)
    rate = options.factor * peak / run.cell.subscribers
    threading.Timer(1.0, prober.start).start()
    before = run.server.control.ask({"sent": True})
    overloaded = run.goodput(rate, options.seconds)
    prober.join()
    after = run.server.control.ask({"sent": True})
    shares = [after[session] - before[session] for session in after]
    back = run.recovery(0.7 * peak / run.cell.subscribers)
    counters = run.bench.settled(run.cell, run.server)[0]
    return {
        "offered_packets_per_s": rate,
        "peak_copies_per_s": peak,
        "overloaded_copies_per_s": overloaded,
        "goodput_ratio": overloaded / peak,
        "fairness": sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)),
        "recovery_s": back,
        "control_calm": calm,
        "control_overloaded": probed,
        "resident_growth_mib": run.resident_mib() - resident,
        "counters": counters,
        "identities": counters["received"] == counters["forwarded"] + counters["dropped"]
        and counters["attempted"] == counters["sent"] + counters["failed"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("-s", "--subscribers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--offload", action="store_true", help="GSO passes the egress link whole")
    parser.add_argument("--nice", type=int, default=0)
    options = parser.parse_args()
    lab = lab_of_its_own(options)
    cell = Cell(options.subscribers, 14, options.sessions, 1200)
    server = Rtpfanout(lab, last_cpus(options.workers), options.generator_cpus, options.workers)
    try:
        lab.open()
        server.start(
            first_ssrc=FIRST_SSRC,
            sessions=cell.sessions,
            subscribers=cell.subscribers,
            queue=cell.queue,
        )
        figures = measure(Run(Bench(lab, options), cell, server), options)
    finally:
        server.stop()
        lab.close()
    print(json.dumps(figures, indent=1))
    return 0 if figures["identities"] else 1


if __name__ == "__main__":
    sys.exit(main())
