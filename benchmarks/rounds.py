"""One round of one contender: offer packets, look at clocks and counters, do the sums."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contenders import BIN, Contender, Tool
from lab import Lab, LabError

if TYPE_CHECKING:
    import argparse

FIRST_SSRC = 0x1000
WARM_UP_S = 0.3
MAX_QUEUED_COPIES = 200_000  # bounds the time to drain after a flat-out round
QUIET_CPUS, QUIET_LOOK_S = 0.2, 0.3
TICKS = os.sysconf("SC_CLK_TCK")


def balances(delta: dict[str, int], subscribers: int) -> bool:
    """Every packet received was forwarded or dropped, every copy of those forwarded sent or
    refused. A contender without a gate forwards all it receives."""
    forwarded = delta.get("forwarded", delta["received"])
    return (
        delta["received"] == forwarded + delta.get("dropped", 0)
        and delta["sent"] + delta["failed"] == forwarded * subscribers
    )


@dataclass(frozen=True)
class Cell:
    subscribers: int
    burst: int
    sessions: int
    size: int

    @property
    def queue(self) -> int:
        return max(128, min(4096, MAX_QUEUED_COPIES // self.subscribers))


@dataclass
class Sample:
    at: float
    copies: int
    system_cpu_s: float
    process_cpu_s: float


def busy_cpu_seconds() -> float:
    """All CPUs' time other than idle, I/O wait and steal, since boot (proc_stat(5))."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    user, nice, system, _idle, _iowait, irq, softirq = fields[:7]
    return (user + nice + system + irq + softirq) / TICKS


class Bench:
    """One lab and its receivers; runs rounds of one contender at a time."""

    def __init__(self, lab: Lab, options: argparse.Namespace) -> None:
        self.lab = lab
        self.options = options

    def generator(
        self, cell: Cell, contender: Contender, rate: float, seconds: float, *, gso: bool
    ) -> Tool:
        argv = [str(BIN / "rtpgen"), "--to", contender.ingress]
        argv += ["--from", self.lab.addresses.source, "--ssrc", str(FIRST_SSRC)]
        argv += ["--sessions", str(cell.sessions), "--burst", str(cell.burst)]
        argv += ["--size", str(cell.size), "--rate", str(rate), "--duration", str(seconds)]
        merged = gso and contender.takes_gso and cell.burst > 1
        argv += ["--gso"] if merged else []
        return Tool(self.lab, "generator", argv, self.options.generator_cpus)

    def receiver(self, cell: Cell) -> Tool:
        argv = [str(BIN / "rtpcount"), "--bind", self.lab.addresses.first_subscriber, "--verify"]
        argv += ["--count", str(cell.subscribers)]
        argv += ["--by-address"] if self.lab.addresses.by_address else []
        tool = Tool(self.lab, "subscribers", argv, self.options.generator_cpus)
        tool.line()
        return tool

    def copies(self, cell: Cell, contender: Contender) -> int:
        if self.lab.counts_copies:
            return self.lab.copies(cell.size)
        return contender.counters()["sent"]

    def sample(self, cell: Cell, contender: Contender) -> Sample:
        """Copies last, next to the clock: asking for them takes milliseconds."""
        process, system = contender.cpu_seconds(), busy_cpu_seconds()
        start = time.monotonic()
        copies = self.copies(cell, contender)
        return Sample((start + time.monotonic()) / 2, copies, system, process)

    def settled(self, cell: Cell, contender: Contender) -> tuple[dict[str, int], int]:
        """Counters and copies once nothing is under way any more: exact from then on.

        Three equal looks, since a contender that lost its CPU to others stands still as well.
        """
        deadline = time.monotonic() + 60
        looks: list[tuple[dict[str, int], int]] = []
        while time.monotonic() < deadline:
            looks.append((contender.counters(), self.copies(cell, contender)))
            if len(looks) >= 3 and looks[-1] == looks[-2] == looks[-3]:
                return looks[-1]
            time.sleep(0.15)
        raise LabError(f"{contender.name} is still sending a minute after the generator ended")

    def throughput(self, cell: Cell, contender: Contender, rate: float) -> dict[str, Any]:
        """One round: offer `rate` packets/s (0: flat out) and measure within it."""
        window = self.options.duration
        baseline = self.wait_for_quiet()
        counters_before, copies_before = self.settled(cell, contender)
        tool = self.generator(
            cell, contender, rate, WARM_UP_S + window + 0.3, gso=self.options.ingress_gso
        )
        try:
            time.sleep(WARM_UP_S)
            first = self.sample(cell, contender)
            time.sleep(window)
            last = self.sample(cell, contender)
            generated = json.loads(tool.line(window + 10))
        finally:
            tool.stop()
        counters_after, copies_after = self.settled(cell, contender)
        counted = copies_after - copies_before
        delta = {name: counters_after[name] - counters_before[name] for name in counters_after}
        seconds, copies = last.at - first.at, last.copies - first.copies
        process_cpu = last.process_cpu_s - first.process_cpu_s
        system_cpu = last.system_cpu_s - first.system_cpu_s - baseline * seconds
        return {
            "copies_per_s": copies / seconds,
            "copies_per_process_cpu_s": copies / process_cpu if process_cpu else 0.0,
            # Others' load cannot be told from ours, so there is no figure on a busy machine, nor in
            # a window that is hardly longer than the ticks that are counted.
            "copies_per_system_cpu_s": (
                copies / system_cpu if baseline < QUIET_CPUS and system_cpu > 0 else None
            ),
            "process_cpus": process_cpu / seconds,
            "system_cpus": system_cpu / seconds,
            "idle_cpus_before": baseline,
            "seconds": seconds,
            "copies_per_send": delta["sent"] / delta["sends"] if delta.get("sends") else None,
            "offered": generated,
            "counters": delta,
            "counted_copies": counted,
            "exact": counted == delta["sent"] and balances(delta, cell.subscribers),
            "saturated": delta["received"] < generated["sent"] * 0.98,
        }

    def latency(self, cell: Cell, contender: Contender, rate: float) -> dict[str, Any]:
        """One round at `rate` packets/s, delivered to rtpcount."""
        receiver = self.receiver(cell)
        output = ""
        try:
            self.wait_for_quiet()
            before = contender.counters()
            # Bursts leave packet by packet, as a camera sends them.
            tool = self.generator(cell, contender, rate, self.options.duration, gso=False)
            try:
                generated = json.loads(tool.line(self.options.duration + 10))
            finally:
                tool.stop()
            time.sleep(0.3)
            after = contender.counters()
        finally:
            output = receiver.stop()
        seen = json.loads(output.splitlines()[-1])
        sent = after["sent"] - before["sent"]
        return {
            "offered": generated,
            "sent": sent,
            "received_by_subscribers": seen,
            "exact": seen["packets"] == sent == generated["sent"] * cell.subscribers
            and seen["altered"] == 0,
        }

    def wait_for_quiet(self) -> float:
        """CPUs that others keep busy just now; waits a while for them to be few."""
        deadline = time.monotonic() + self.options.patience
        while True:
            start, before = time.monotonic(), busy_cpu_seconds()
            time.sleep(QUIET_LOOK_S)
            busy = (busy_cpu_seconds() - before) / (time.monotonic() - start)
            if busy < QUIET_CPUS or time.monotonic() >= deadline:
                return busy

    def capacity(self, cell: Cell, contender: Contender) -> float:
        """Packets per second the contender handles flat out; a short look."""
        with_window = 0.5
        tool = self.generator(cell, contender, 0, with_window + 0.2, gso=self.options.ingress_gso)
        try:
            time.sleep(0.15)
            first = self.sample(cell, contender)
            time.sleep(with_window)
            last = self.sample(cell, contender)
            tool.line(10)
        finally:
            tool.stop()
        self.settled(cell, contender)
        return (last.copies - first.copies) / (last.at - first.at) / cell.subscribers
