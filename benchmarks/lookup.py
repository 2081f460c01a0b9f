#!/usr/bin/env python3
"""What finding a packet's session costs among 10,000 sessions, beside 10 in the same run.

    python benchmarks/lookup.py
    python benchmarks/lookup.py --nice -10 --cpu 1

`hit` and `miss` are lookups of packets of random sessions and of strangers, `gate` is all that
decides whether a packet gets in: nanoseconds a packet, caches warm, the mean of `--keys` hash keys
and the best of `--rounds` for each; the medians of `--repeats` such runs (lookup.c). JSON.
Needs a C compiler, neither root nor the extension.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CORE = HERE.parent / "src" / "rtpfanout" / "_fastpath" / "core"


def build(program: Path) -> None:
    """Of the tool of that name, with the core, as setup.py compiles it."""
    command = ["cc", "-std=gnu11", "-O2", "-D_GNU_SOURCE", "-Wall", "-Wextra"]
    folders = [CORE, *CORE.glob("*/"), HERE.parent / "tests/core"]
    command += ["-Wno-missing-field-initializers", *(f"-I{folder}" for folder in folders)]
    command += [str(HERE / "tools" / f"{program.name}.c"), *sorted(map(str, CORE.rglob("*.c")))]
    command += ["-pthread", "-o", str(program)]
    subprocess.run(command, check=True)


def summary(runs: list[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians over the runs; of the ratios, the runs' own, also the extremes."""
    kinds: dict[str, Any] = {}
    for kind in runs[0]:
        ratios = [run[kind]["ratio"] for run in runs]
        medians = {
            name: round(statistics.median(run[kind][name] for run in runs), 3)
            for name in runs[0][kind]
        }
        kinds[kind] = {**medians, "least": min(ratios), "most": max(ratios)}
    return kinds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=32, help="hash keys, each with its tables")
    parser.add_argument("--rounds", type=int, default=20, help="of each table; the best counts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", type=int, help="to run on; else the last one")
    parser.add_argument("--nice", type=int, default=0)
    options = parser.parse_args()
    cpu = max(os.sched_getaffinity(0)) if options.cpu is None else options.cpu
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "lookup")
        build(program)
        command = ["nice", "-n", str(options.nice), "taskset", "-c", str(cpu), str(program)]
        command += [str(options.keys), str(options.rounds)]
        runs = [
            json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            for _ in range(options.repeats)
        ]
    print(json.dumps(summary(runs), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
