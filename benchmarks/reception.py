#!/usr/bin/env python3
"""What it costs to note how packets are received: nanoseconds a packet, with and without.

    python benchmarks/reception.py
    python benchmarks/reception.py --nice -10 --cpu 1

The gate and what a worker does with an admitted packet, of `one` session and of 10,000 in random
order, in `bursts` of 14 and in `singles`; the best of `--rounds`, medians of `--repeats` such runs
(reception.c). JSON. Needs a C compiler, neither root nor the extension.
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

from lookup import build


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="of each; the best counts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpu", type=int, help="to run on; else the last one")
    parser.add_argument("--nice", type=int, default=0)
    options = parser.parse_args()
    cpu = max(os.sched_getaffinity(0)) if options.cpu is None else options.cpu
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory, "reception")
        build(program)
        command = ["nice", "-n", str(options.nice), "taskset", "-c", str(cpu), str(program)]
        runs = [
            json.loads(subprocess.check_output([*command, str(options.rounds)], text=True))
            for _ in range(options.repeats)
        ]
    medians = {
        cell: {
            name: round(statistics.median(run[cell][name] for run in runs), 2)
            for name in runs[0][cell]
        }
        for cell in runs[0]
    }
    print(json.dumps(medians, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
