#!/usr/bin/env python3
"""Throughput and latency of rtpfanout beside a bare recvmmsg/sendmmsg loop, in one run.

    python benchmarks/run.py                            # the whole table, about five minutes
    python benchmarks/run.py -s 100 -b 14               # one cell
    python benchmarks/run.py --measure latency -s 100   # time from send to arrival

Contenders take turns, round by round, so that noise hits all of them. See README.md.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from contenders import BIN, CONTENDERS, HERE, Contender, Tool
from lab import Lab, LabError, LoopbackLab, NamespaceLab

FIRST_SSRC = 0x1000
WARM_UP_S = 0.3
OVERLOAD = 2.0  # offered packets, relative to what the fastest contender can handle
MAX_QUEUED_COPIES = 200_000  # bounds the time to drain after a flat-out round
QUIET_CPUS, QUIET_TRIES = 0.2, 20
TICKS = os.sysconf("SC_CLK_TCK")


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


def build_tools() -> None:
    BIN.mkdir(exist_ok=True)
    for source in sorted(HERE.glob("*.c")):
        binary = BIN / source.stem
        newest = max(source.stat().st_mtime, (HERE / "bench.h").stat().st_mtime)
        if not binary.exists() or binary.stat().st_mtime < newest:
            command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", str(source), "-lm"]
            subprocess.run([*command, "-o", str(binary)], check=True)


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
        argv += ["--gso"] if gso and cell.burst > 1 else []
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
        system_cpu = last.system_cpu_s - first.system_cpu_s - baseline * seconds
        return {
            "copies_per_s": copies / seconds,
            "copies_per_process_cpu_s": copies / (last.process_cpu_s - first.process_cpu_s),
            # Others' load cannot be told from ours, so there is no figure on a busy machine.
            "copies_per_system_cpu_s": copies / system_cpu if baseline < QUIET_CPUS else None,
            "process_cpus": (last.process_cpu_s - first.process_cpu_s) / seconds,
            "system_cpus": system_cpu / seconds,
            "idle_cpus_before": baseline,
            "seconds": seconds,
            "offered": generated,
            "counters": delta,
            "counted_copies": counted,
            "exact": counted == delta["sent"]
            and delta["sent"] + delta["failed"] == delta["received"] * cell.subscribers,
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
        for _ in range(QUIET_TRIES):
            start, before = time.monotonic(), busy_cpu_seconds()
            time.sleep(0.3)
            busy = (busy_cpu_seconds() - before) / (time.monotonic() - start)
            if busy < QUIET_CPUS:
                break
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


def measure_cell(bench: Bench, cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    contenders: dict[str, Contender] = {}
    with ExitStack() as stack:
        for number, name in enumerate(options.contenders):
            contender = CONTENDERS[name](bench.lab, options.server_cpus, options.generator_cpus)
            label = name if name not in contenders else f"{name}#{number + 1}"
            contenders[label] = contender
            stack.callback(contender.stop)
            contender.start(
                first_ssrc=FIRST_SSRC,
                sessions=cell.sessions,
                subscribers=cell.subscribers,
                queue=cell.queue,
            )
        with receiving(bench, cell, options):
            capacities = {label: bench.capacity(cell, each) for label, each in contenders.items()}
        rounds: dict[str, list[dict[str, Any]]] = {label: [] for label in contenders}
        rate = offered_rate(options, capacities)
        for _ in range(options.rounds):
            for label, contender in contenders.items():
                if options.measure == "latency":
                    rounds[label].append(bench.latency(cell, contender, rate))
                else:
                    with receiving(bench, cell, options):
                        rounds[label].append(bench.throughput(cell, contender, rate))
    return {"cell": asdict(cell), "rate": rate, "capacities": capacities, "rounds": rounds}


def receiving(bench: Bench, cell: Cell, options: argparse.Namespace) -> ExitStack:
    """A counting receiver while within, where copies are delivered and not dropped."""
    stack = ExitStack()
    if options.deliver or options.measure == "latency":
        stack.callback(bench.receiver(cell).stop)
    return stack


def offered_rate(options: argparse.Namespace, capacities: dict[str, float]) -> float:
    if options.rate is not None:
        return float(options.rate)
    if options.measure == "latency":
        return min(capacities.values()) / 2
    return max(capacities.values()) * OVERLOAD


def summarise(result: dict[str, Any], measure: str) -> list[dict[str, Any]]:
    """One row per contender; ratios are medians of the per-round ratios to the first one."""
    rows = []
    base = next(iter(result["rounds"].values()))
    for label, rounds in result["rounds"].items():
        row: dict[str, Any] = {
            "subscribers": result["cell"]["subscribers"],
            "burst": result["cell"]["burst"],
            "sessions": result["cell"]["sessions"],
            "contender": label,
            "exact": all(each["exact"] for each in rounds),
        }
        if measure == "latency":
            row["rate"] = result["rate"]
            for which in ("every_copy", "last_copy"):
                for q in ("p50_us", "p99_us", "p999_us"):
                    values = [each["received_by_subscribers"][which][q] for each in rounds]
                    row[f"{which}_{q}"] = statistics.median(values)
            row["lost"] = sum(each["received_by_subscribers"]["lost"] for each in rounds)
        else:
            for key in ("copies_per_s", "copies_per_process_cpu_s", "copies_per_system_cpu_s"):
                row.update(spread_and_ratio(key, rounds, base))
            row["saturated"] = all(each["saturated"] for each in rounds)
            row["noise_cpus"] = max(each["idle_cpus_before"] for each in rounds)
        rows.append(row)
    return rows


def spread_and_ratio(
    key: str, rounds: list[dict[str, Any]], base: list[dict[str, Any]]
) -> dict[str, float | None]:
    pairs = [
        (each[key], other[key])
        for each, other in zip(rounds, base, strict=True)
        if each[key] is not None and other[key] is not None
    ]
    if not pairs:
        return {key: None, f"{key}_spread": None, f"{key}_ratio": None}
    values = [value for value, _ in pairs]
    median = statistics.median(values)
    return {
        key: median,
        f"{key}_spread": (max(values) - min(values)) / median,
        f"{key}_ratio": statistics.median(value / other for value, other in pairs),
    }


THROUGHPUT_COLUMNS = {
    "subscribers": "subs",
    "burst": "burst",
    "contender": "contender",
    "copies_per_s": "copies/s",
    "copies_per_s_spread": "spread",
    "copies_per_s_ratio": "ratio",
    "copies_per_process_cpu_s": "/process CPU s",
    "copies_per_process_cpu_s_ratio": "ratio ",
    "copies_per_system_cpu_s": "/system CPU s",
    "copies_per_system_cpu_s_ratio": "ratio  ",
    "exact": "exact",
    "saturated": "saturated",
    "noise_cpus": "noise CPUs",
}
LATENCY_COLUMNS = {
    "subscribers": "subs",
    "burst": "burst",
    "contender": "contender",
    "rate": "packets/s",
    "every_copy_p50_us": "p50 us",
    "every_copy_p99_us": "p99 us",
    "every_copy_p999_us": "p99.9 us",
    "last_copy_p50_us": "last copy p50",
    "last_copy_p99_us": "p99 us ",
    "last_copy_p999_us": "p99.9 us ",
    "lost": "lost",
    "exact": "exact",
}


def shown(key: str, value: object) -> str:
    if value is None:
        return "n/a"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        if key.endswith("_ratio"):
            return f"{value:.3f}"
        if key == "noise_cpus":
            return f"{value:.2f}"
        if key.endswith("_spread"):
            return f"{value:.1%}"
        return f"{value:,.0f}"
    return str(value)


def print_row(columns: dict[str, str], row: dict[str, Any] | None) -> None:
    cells = []
    for key, title in columns.items():
        text = title.strip() if row is None else shown(key, row[key])
        width = max(len(title.strip()), 11 if "copies" in key and "ratio" not in key else 6)
        cells.append(text.ljust(11) if key == "contender" else text.rjust(width))
    print("  ".join(cells), flush=True)


def machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    revision = subprocess.run(
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "kernel": platform.release(),
        "cpu": model,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "revision": revision.stdout.strip(),
    }


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    last_cpu = max(os.sched_getaffinity(0))
    first_cpu = min(os.sched_getaffinity(0))
    add("--measure", choices=("throughput", "latency"), default="throughput")
    add("-s", "--subscribers", type=int, nargs="+", default=[1, 10, 100, 1000])
    add("-b", "--burst", type=int, nargs="+", default=[1, 14, 50], help="packets per frame")
    add("--sessions", type=int, default=1, help="each has all of the subscribers")
    add("--size", type=int, default=1200, help="bytes of an RTP packet (28 to 1472)")
    add("--duration", type=float, default=1.5, help="seconds measured per round")
    add("--rounds", type=int, default=3)
    add("--rate", type=float, help="packets/s offered; default: 2 x the fastest contender's")
    add("--contenders", nargs="+", choices=CONTENDERS, default=["plainloop", "rtpfanout"])
    add("--offload", choices=("on", "off"), default="off")
    add("--deliver", action="store_true", help="to a counting receiver instead of an nft drop")
    add("--by-address", action="store_true", help="subscribers differ by address, not by port")
    add("--ingress-gso", action=argparse.BooleanOptionalAction, default=True)
    add("--loopback", action="store_true", help="do not use network namespaces")
    add("--server-cpus", default=str(last_cpu), help="taskset list for the contenders")
    add("--generator-cpus", default=str(first_cpu), help="taskset list for generator and receiver")
    add("--output", type=Path, help="the JSON; default: benchmarks/results/<time>.json")
    return parser.parse_args()


def make_lab(options: argparse.Namespace) -> Lab:
    if os.geteuid() == 0 and not options.loopback:
        return NamespaceLab(
            deliver=options.deliver or options.measure == "latency",
            segmentation_offload=options.offload == "on",
            by_address=options.by_address,
        )
    if os.geteuid() != 0:
        print("run.py: network namespaces need root; falling back to loopback", file=sys.stderr)
    options.deliver = True
    return LoopbackLab()


def main() -> int:
    options = parse_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `finally` cleans up
    build_tools()
    (HERE / "results").mkdir(exist_ok=True)
    lab = make_lab(options)
    columns = LATENCY_COLUMNS if options.measure == "latency" else THROUGHPUT_COLUMNS
    results, rows = [], []
    host = machine()
    print(f"{lab.label}; GSO passes the egress link whole: {options.offload}; {host['cpu']}")
    print_row(columns, None)
    try:
        lab.open()
        for subscribers, burst in itertools.product(options.subscribers, options.burst):
            cell = Cell(subscribers, burst, options.sessions, options.size)
            results.append(measure_cell(Bench(lab, options), cell, options))
            for row in summarise(results[-1], options.measure):
                rows.append(row)
                print_row(columns, row)
    except LabError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    finally:
        lab.close()
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    output = options.output or HERE / "results" / f"{stamp}.json"
    arguments = {key: str(value) for key, value in vars(options).items()}
    document = {
        "machine": host,
        "place": lab.label,
        "arguments": arguments,
        "table": rows,
        "cells": results,
    }
    output.write_text(json.dumps(document, indent=1) + "\n")
    print(f"wrote {output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
