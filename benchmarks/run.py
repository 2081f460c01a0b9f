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


def build_tools() -> None:
    BIN.mkdir(exist_ok=True)
    for source in sorted(HERE.glob("*.c")):
        binary = BIN / source.stem
        newest = max(source.stat().st_mtime, (HERE / "bench.h").stat().st_mtime)
        if not binary.exists() or binary.stat().st_mtime < newest:
            command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", str(source), "-lm"]
            subprocess.run([*command, "-o", str(binary)], check=True)


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
