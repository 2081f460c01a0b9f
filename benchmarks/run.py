#!/usr/bin/env python3
"""Throughput and latency of rtpfanout beside bare C loops and peers, in one run.

    python benchmarks/run.py --quick                    # the cells that matter most
    python benchmarks/run.py -s 100 -b 14               # one cell
    python benchmarks/run.py --everyday                 # 1,000 sessions beside one
    python benchmarks/run.py --quick --measure latency  # time from send to arrival

Contenders take turns, round by round, so that noise hits all of them. See README.md.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import math
import os
import platform
import signal
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from contenders import BIN, CONTENDERS, HERE, Contender
from inkernel import IN_KERNEL
from lab import Lab, LabError, LoopbackLab, NamespaceLab
from plot import plot
from rounds import FIRST_SSRC, Bench, Cell
from table import LATENCY_COLUMNS, THROUGHPUT_COLUMNS, print_row, summarise

CONTENDERS.update(IN_KERNEL)
OVERLOAD = 2.0  # offered packets, relative to what the fastest contender can handle
PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("quick", "throughput"): {
        "subscribers": [100],
        "burst": [1, 14],
        "offload": "both",
        "contenders": [name for name in CONTENDERS if name != "gsoloop-ssrc"],  # of many sessions
        "patience": 1.0,
    },
    ("everyday", "throughput"): {
        "subscribers": [10],
        "burst": [14],
        "sessions": [1, 1000],
        "offload": "both",
        "contenders": ["gsoloop", "gsoloop-ssrc", "engine", "rtpfanout"],
    },
    ("full", "throughput"): {
        "subscribers": [1, 10, 100, 1000],
        "burst": [1, 14, 50],
        "offload": "both",
        "contenders": list(CONTENDERS),
        "workers": [1, 2],
    },
    ("quick", "latency"): {
        "subscribers": [100],
        "burst": [14],
        "offload": "both",
        "contenders": ["plainloop", "rtpfanout", "gstreamer"],
        "rate": 420.0,
        "duration": 10.0,
    },
    ("full", "latency"): {
        "subscribers": [1, 10, 100, 1000],
        "burst": [14],
        "offload": "both",
        "contenders": list(CONTENDERS),
        "workers": [1, 2],
        "rate": 420.0,
        "duration": 20.0,
    },
}


def build_tools() -> None:
    BIN.mkdir(exist_ok=True)
    for name in ("gsoloop", "plainloop", "rtpcount", "rtpgen"):
        source, binary = HERE / "tools" / f"{name}.c", BIN / name
        newest = max(each.stat().st_mtime for each in (source, *source.parent.glob("*.h")))
        if not binary.exists() or binary.stat().st_mtime < newest:
            command = ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", str(source), "-lm"]
            subprocess.run([*command, "-o", str(binary)], check=True)


def new_contenders(lab: Lab, options: argparse.Namespace) -> dict[str, Contender]:
    """By label; those that take workers once for each number of them."""
    contenders: dict[str, Contender] = {}
    for name in options.contenders:
        kind = CONTENDERS[name]
        for workers in options.workers if kind.takes_workers else [1]:
            label = name if workers == 1 else f"{name} x{workers}"
            label = label if label not in contenders else f"{label}#{len(contenders) + 1}"
            cpus = options.server_cpus or last_cpus(workers)
            contenders[label] = kind(lab, cpus, options.generator_cpus, workers)
    return contenders


def last_cpus(count: int) -> str:
    return ",".join(map(str, sorted(os.sched_getaffinity(0))[-count:]))


def measure_cell(bench: Bench, cell: Cell, options: argparse.Namespace) -> dict[str, Any]:
    contenders = new_contenders(bench.lab, options)
    with ExitStack() as stack:
        for contender in contenders.values():
            stack.callback(contender.stop)
            contender.packet_size = cell.size
            contender.start(
                first_ssrc=FIRST_SSRC,
                sessions=cell.sessions,
                subscribers=cell.subscribers,
                queue=cell.queue,
            )
        capacities: dict[str, float] = {}
        if options.rate is None:
            with receiving(bench, cell, options):
                capacities = {
                    label: bench.capacity(cell, each)
                    for label, each in contenders.items()
                    if math.isinf(each.most_copies_per_s)
                }
        rounds: dict[str, list[dict[str, Any]]] = {label: [] for label in contenders}
        rate = offered_rate(options, capacities)
        for _ in range(options.rounds):
            for label, contender in contenders.items():
                offered = min(rate, contender.most_copies_per_s / cell.subscribers)
                if options.measure == "latency":
                    rounds[label].append(bench.latency(cell, contender, offered))
                else:
                    with receiving(bench, cell, options):
                        rounds[label].append(bench.throughput(cell, contender, offered))
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
        return min(capacities.values()) / 2 if capacities else 420.0
    return max(capacities.values(), default=1000.0) * OVERLOAD


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
    presets = parser.add_mutually_exclusive_group()
    for name, what in (
        ("quick", "the cells that matter most, all contenders"),
        ("everyday", "1,000 sessions x 10 subscribers beside one"),
        ("full", "every cell, all contenders"),
    ):
        presets.add_argument(
            f"--{name}",
            dest="preset",
            action="store_const",
            const=name,
            help=f"{what}, both offloads; other options change it",
        )
    add("--measure", choices=("throughput", "latency"), default="throughput")
    add("-s", "--subscribers", type=int, nargs="+", default=[1, 10, 100, 1000])
    add("-b", "--burst", type=int, nargs="+", default=[1, 14, 50], help="packets per frame")
    add("-w", "--workers", type=int, nargs="+", default=[1], help="of engine and rtpfanout")
    add("--sessions", type=int, nargs="+", default=[1], help="each has all of the subscribers")
    add("--size", type=int, default=1200, help="bytes of an RTP packet (28 to 1472)")
    add("--duration", type=float, default=1.5, help="seconds measured per round")
    add("--rounds", type=int, default=3)
    add("--patience", type=float, default=6.0, help="seconds to wait for others to be quiet")
    add("--rate", type=float, help="packets/s offered; default: 2 x the fastest contender's")
    add(
        "--contenders", nargs="+", choices=CONTENDERS, default=["plainloop", "gsoloop", "rtpfanout"]
    )
    add("--offload", choices=("on", "off", "both"), default="off")
    add("--deliver", action="store_true", help="to a counting receiver instead of an nft drop")
    add("--by-address", action="store_true", help="subscribers differ by address, not by port")
    add("--ingress-gso", action=argparse.BooleanOptionalAction, default=True)
    add("--loopback", action="store_true", help="do not use network namespaces")
    add("--server-cpus", help="taskset list for the contenders; default: the last, one a worker")
    first_cpu = str(min(os.sched_getaffinity(0)))
    add("--generator-cpus", default=first_cpu, help="taskset list for generator and receiver")
    add("--nice", type=int, default=0, help="of all that is started; below 0 on a busy machine")
    add("--output", type=Path, help="the JSON; default: benchmarks/results/<time>.json")
    chosen = parser.parse_args()
    parser.set_defaults(**PRESETS.get((chosen.preset, chosen.measure), {}))
    return parser.parse_args()


def without_the_missing(contenders: list[str]) -> list[str]:
    for name in contenders:
        reason = CONTENDERS[name].missing()
        if reason is not None:
            print(f"run.py: without {name}: {reason}", file=sys.stderr)
    return [name for name in contenders if CONTENDERS[name].missing() is None]


def make_lab(options: argparse.Namespace, offload: str) -> Lab:
    if os.geteuid() == 0 and not options.loopback:
        return NamespaceLab(
            deliver=options.deliver or options.measure == "latency",
            segmentation_offload=offload == "on",
            by_address=options.by_address,
            receiver_cpus=options.generator_cpus,
            nice=options.nice,
        )
    if os.geteuid() != 0:
        print("run.py: network namespaces need root; falling back to loopback", file=sys.stderr)
    options.deliver = True
    return LoopbackLab(options.nice)


def lab_of_its_own(options: argparse.Namespace) -> NamespaceLab:
    """For another benchmark that uses Bench: a lab that drops what arrives, with `offload` and
    `nice` of the options, which get what Bench reads of them."""
    options.generator_cpus = str(min(os.sched_getaffinity(0)))
    options.patience = 6.0
    options.ingress_gso = True
    build_tools()
    (HERE / "results").mkdir(exist_ok=True)
    return NamespaceLab(
        deliver=False,
        segmentation_offload=options.offload,
        by_address=False,
        receiver_cpus=options.generator_cpus,
        nice=options.nice,
    )


def measure(options: argparse.Namespace, offload: str, document: dict[str, Any]) -> None:
    """All cells in one lab; rows are printed and kept as they come."""
    lab = make_lab(options, offload)
    columns = LATENCY_COLUMNS if options.measure == "latency" else THROUGHPUT_COLUMNS
    document["place"] = lab.label
    print(f"\n{lab.label}; GSO passes the egress link whole: {offload}")
    print_row(columns, None)
    try:
        lab.open()
        for sessions, subscribers, burst in itertools.product(
            options.sessions, options.subscribers, options.burst
        ):
            cell = Cell(subscribers, burst, sessions, options.size)
            result = {"offload": offload, **measure_cell(Bench(lab, options), cell, options)}
            document["cells"].append(result)
            for row in summarise(result, options.measure):
                document["table"].append(row)
                print_row(columns, row)
    finally:
        lab.close()


def write(document: dict[str, Any], options: argparse.Namespace) -> None:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    output: Path = options.output or HERE / "results" / f"{stamp}.json"
    output.write_text(json.dumps(document, indent=1) + "\n")
    picture = output.with_suffix(".svg")
    picture.write_text(plot(document["table"], options.measure))
    print(f"wrote {output} and {picture}", file=sys.stderr)


def main() -> int:
    options = parse_arguments()
    options.contenders = without_the_missing(options.contenders)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that `finally` cleans up
    build_tools()
    (HERE / "results").mkdir(exist_ok=True)
    arguments = {key: str(value) for key, value in vars(options).items()}
    document: dict[str, Any] = {
        "machine": machine(),
        "arguments": arguments,
        "table": [],
        "cells": [],
    }
    print(f"{document['machine']['cpu']}, Linux {document['machine']['kernel']}")
    try:
        for offload in ("off", "on") if options.offload == "both" else (options.offload,):
            measure(options, offload, document)
    except LabError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 1
    finally:
        if document["table"]:  # what was measured is kept, whatever ended the run
            write(document, options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
