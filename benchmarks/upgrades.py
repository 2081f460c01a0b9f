"""Upgrades under load, many times: what was lost, doubled or out of order?

    python benchmarks/upgrades.py --upgrades 100              50,000 copies a second
    python benchmarks/upgrades.py --upgrades 10 --rate 500
    python benchmarks/upgrades.py --refused 50                upgrades that fail, each before a kill

rtpgen's numbered packets go through a server on loopback to rtpcount, which judges each
subscriber's packets by themselves. Prints one JSON object.

With --refused the server runs a copy of the package that is broken before each upgrade, in turn at
different steps, and its server process is killed after each: what is lost, doubled, out of order
of 500 packets a second, and how long packets stay away after a kill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import httpx
from contenders import BIN
from flow import Flow
from kills import quantiles
from run import build_tools
from support import ServerProcess, eventually, server_environment

import rtpfanout
from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE, FIRST_SUBSCRIBER = "127.0.1.1:40000", "127.0.1.2:40000"
SSRC = 0x1000
UPGRADE_SECONDS = 60
LIVE_SECONDS = 1.0
"""A server that dies younger is replaced after a pause."""
FAULTS = (
    ("service/calls.py", "raise ImportError('stands for a dependency that is too old')"),
    ("supervisor/child.py", "def _die(*_): os.kill(os.getpid(), 9)\nServer.catch_up = _die"),
    (
        "supervisor/child.py",
        "async def _die(*_): os.kill(os.getpid(), 9)\nServer.start_serving = _die",
    ),
)
"""At the import; before packets are handed over; after that, and before it is ready."""


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrades", type=int, default=10)
    parser.add_argument("--rate", type=float, default=2000, help="packets a second")
    parser.add_argument("-s", "--subscribers", type=int, default=25)
    parser.add_argument("-b", "--burst", type=int, default=14)
    parser.add_argument("--refused", type=int, default=0, metavar="N")
    given = parser.parse_args()
    if given.refused:
        with tempfile.TemporaryDirectory() as directory:
            os.environ["RUNTIME_DIRECTORY"] = directory
            result = refuse_all(given.refused, Path(directory))
        print(json.dumps(result, indent=1))
        return 0 if result["refused"] == given.refused and not result["packets_lost"] else 1
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
        done = _upgrade(server)
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


def refuse_all(count: int, directory: Path) -> dict[str, Any]:
    """Upgrades that fail, each followed by a kill of the server process."""
    installed = directory / "installed/rtpfanout"
    shutil.copytree(Path(rtpfanout.__file__).parent, installed)
    os.environ["PYTHONPATH"] = str(installed.parent)
    server = ServerProcess(store__path=str(directory / "store.db"), session_timeout_secs=0)
    del os.environ["PYTHONPATH"]
    took, moments, complaints = [], [], []
    try:
        with Flow() as flow:
            server.create(flow.source, SSRC, flow.viewer)
            flow.ssrc = SSRC
            flow.start(server.ingest)
            time.sleep(2 * LIVE_SECONDS)
            for number in range(count):
                with broken(installed, *FAULTS[number % len(FAULTS)]):
                    start = time.monotonic()
                    done = _upgrade(server)
                    took.append(time.monotonic() - start)
                    complaints += [done.stderr.strip()] * (done.returncode == 1)
                    _ready(server)
                    time.sleep(LIVE_SECONDS)
                    old = _server_pid(server)
                    moments.append(time.monotonic())
                    os.kill(old, signal.SIGKILL)
                    eventually(lambda: _server_pid(server), lambda pid, old=old: pid != old, "next")
                    _ready(server)
                    time.sleep(LIVE_SECONDS)
            flow.finish()
    finally:
        server.stop()
    return {
        "refused": len(complaints),
        "complaints": sorted(set(complaints)),
        "seconds_each": quantiles(took),
        "packets_sent": len(flow.sent_at),
        "packets_lost": len(flow.missing),
        "packets_doubled": len(flow.doubled),
        "out_of_order": sum(a > b for a, b in pairwise(flow.first_arrivals)),
        "gap_secs": quantiles([flow.gap_around(moment) for moment in moments]),
    }


@contextlib.contextmanager
def broken(installed: Path, name: str, fault: str) -> Iterator[None]:
    """One file of the package."""
    path = installed / name
    text = path.read_text()
    path.write_text(f"{text}\n{fault}\n")
    try:
        yield
    finally:
        path.write_text(text)


def _ready(server: ServerProcess) -> None:
    def answer() -> int:
        with contextlib.suppress(httpx.TransportError):
            return server.http("/readyz").status_code
        return 0

    eventually(answer, lambda code: code == 200, "ready")


def _upgrade(server: ServerProcess) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "rtpfanout", "upgrade", "--pid", str(server.process.pid)],
        env=server_environment({}),
        capture_output=True,
        text=True,
        timeout=UPGRADE_SECONDS,
        check=False,
    )


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
