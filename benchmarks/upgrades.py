"""Upgrades under load, many times: what was lost, doubled or out of order?

    python benchmarks/upgrades.py --upgrades 100              50,000 copies a second
    python benchmarks/upgrades.py --upgrades 10 --rate 500

rtpgen's numbered packets go through a server on loopback to rtpcount, which judges each
subscriber's packets by themselves. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from contenders import BIN
from kills import quantiles
from run import build_tools
from support import ServerProcess, server_environment

from rtpfanout.supervisor import statefile

SOURCE, FIRST_SUBSCRIBER = "127.0.1.1:40000", "127.0.1.2:40000"
SSRC = 0x1000
UPGRADE_SECONDS = 60


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrades", type=int, default=10)
    parser.add_argument("--rate", type=float, default=2000, help="packets a second")
    parser.add_argument("-s", "--subscribers", type=int, default=25)
    parser.add_argument("-b", "--burst", type=int, default=14)
    given = parser.parse_args()
    build_tools()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["RUNTIME_DIRECTORY"] = directory
        result = run(given, Path(directory))
    print(json.dumps(result, indent=1))
    return 0 if result["upgraded"] == given.upgrades and result["exact"] else 1


def run(given: argparse.Namespace, directory: Path) -> dict[str, Any]:
    server = ServerProcess(store__path=str(directory / "store.db"), session_timeout_secs=0)
    try:
        return upgrade_all(given, server)
    finally:
        server.stop()


def upgrade_all(given: argparse.Namespace, server: ServerProcess) -> dict[str, Any]:
    """The whole run. Generator and counter end by themselves, at the latest after an hour."""
    host, port = FIRST_SUBSCRIBER.split(":")
    server.create(SOURCE, SSRC, *(f"{host}:{int(port) + i}" for i in range(given.subscribers)))
    counter = _tool("rtpcount", "--bind", FIRST_SUBSCRIBER, "--verify", "--limit", "3600",
                    "--count", str(given.subscribers))  # fmt: skip
    assert counter.stdout is not None
    counter.stdout.readline()
    generator = _tool("rtpgen", "--to", str(server.ingest), "--from", SOURCE, "--duration", "3600",
                      "--ssrc", str(SSRC), "--burst", str(given.burst), "--size", "1200",
                      "--rate", str(given.rate))  # fmt: skip
    took, failures = [], []
    begin = time.monotonic()
    pids = {_server_pid(server)}
    for _ in range(given.upgrades):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "rtpfanout", "upgrade", "--pid", str(server.process.pid)],
            env=server_environment({}),
            capture_output=True,
            text=True,
            timeout=UPGRADE_SECONDS,
            check=False,
        )
        took.append(time.monotonic() - start)
        failures += [done.stderr] if done.returncode else []
        pids.add(_server_pid(server))
    seconds = time.monotonic() - begin
    sent = _ended(generator)["sent"]
    time.sleep(1)
    seen = _ended(counter)
    return {
        "upgraded": len(pids) - 1,
        "failures": failures[:3],
        "seconds_each": quantiles(took),
        "copies_per_s": round(seen["packets"] / seconds),
        "packets_sent": sent,
        "copies_missing": sent * given.subscribers - seen["packets"],
        **{name: seen[name] for name in ("packets", "lost", "duplicates", "reordered", "altered")},
        "exact": seen["packets"] == sent * given.subscribers
        and not any(seen[name] for name in ("lost", "duplicates", "reordered", "altered")),
    }


def _server_pid(server: ServerProcess) -> int:
    state = statefile.read(server.process.pid)
    assert state
    return state.server_pid


def _tool(name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([BIN / name, *arguments], stdout=subprocess.PIPE, text=True)


def _ended(tool: subprocess.Popen[str]) -> dict[str, Any]:
    """Its last line, after SIGTERM."""
    tool.terminate()
    output = tool.communicate(timeout=30)[0]
    last: dict[str, Any] = json.loads(output.splitlines()[-1])
    return last


if __name__ == "__main__":
    sys.exit(main())
