#!/usr/bin/env python3
"""The largest state: a server filled over gRPC, what that takes, costs to look at, and to restore.

    python benchmarks/scale.py                      # 10,000 sessions of 1,000 subscribers
    python benchmarks/scale.py -n 200 -s 1000
    python benchmarks/scale.py --one-by-one         # AddSubscriber instead of the batch call

Client and server share the machine. The table goes to stdout as JSON with -o json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from control import pipelined

from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc
from rtpfanout.store import MEMORY

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = 1000


@dataclass
class Figures:
    sessions: int
    subscribers: int
    create_s: float
    add_s: float
    setup_s: float
    us_per_subscriber: float
    server_cpu_s: float
    client_cpu_s: float
    empty_mib: float
    resident_mib: float
    bytes_per_subscriber: float
    metrics_s: float
    session_metrics_s: float
    list_page_s: float
    stop_s: float = 0.0
    restore_s: float = 0.0  # from the start of another server on that store to its last line, ready


class Server:
    """`rtpfanout serve` with room for what is asked."""

    def __init__(self, options: argparse.Namespace) -> None:
        command = [
            *(sys.executable, "-m", "rtpfanout", "serve", "--log-format", "json"),
            *("--bind-address", "127.0.0.1:0", "--grpc-bind-address", "127.0.0.1:0"),
            *("--metrics-bind-address", "127.0.0.1:0", "--set", "session_timeout_secs=0"),
            *("--set", f"store.path={options.store}", "--set", "enable_supervisor=false"),
            *("--max-sessions", str(options.sessions)),
            *("--max-fanout-per-session", str(options.subscribers)),
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            entry = json.loads(line)
            if entry["event"] == "ready":
                break
        else:
            sys.exit("the server did not start")
        # What nobody reads would block the server once the pipe is full.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.grpc, self.metrics = entry["grpc_bind_address"], entry["metrics_bind_address"]

    def stop(self) -> float:
        """Seconds from SIGTERM to the end."""
        start = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return time.perf_counter() - start

    def resident_bytes(self) -> int:
        """VmRSS of proc_pid_status(5)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert match
        return int(match[1]) * 1024

    def cpu_seconds(self) -> float:
        """User and system time of all threads, from proc_pid_stat(5)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def scrape_seconds(self, page: str) -> float:
        start = time.perf_counter()
        with urllib.request.urlopen(f"http://{self.metrics}{page}", timeout=300) as answer:
            answer.read()
        return time.perf_counter() - start


@contextmanager
def running(options: argparse.Namespace) -> Iterator[Server]:
    server = Server(options)
    try:
        yield server
    finally:
        server.stop()


def create_sessions(stub: Any, count: int) -> list[str]:
    requests = (
        pb.CreateSessionRequest(source_address="127.0.0.1:5000", ssrc=n, media_type="video")
        for n in range(count)
    )
    return [answer.session_id for answer in pipelined(stub.CreateSession, requests)]


def addresses_of(session: int, count: int, distinct: bool) -> list[str]:
    """On hosts of their own, 10.0.0.0/8 through, or the same hosts for all sessions."""
    first = session * count if distinct else 0
    return [
        f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}:{6000 + session % 50_000}"
        for n in range(first, first + count)
    ]


def add_subscribers(stub: Any, ids: list[str], options: argparse.Namespace) -> None:
    def batches() -> Iterator[pb.BatchAddSubscribersRequest]:
        for number, session_id in enumerate(ids):
            addresses = addresses_of(number, options.subscribers, options.distinct)
            for start in range(0, len(addresses), BATCH):
                some = addresses[start : start + BATCH]
                yield pb.BatchAddSubscribersRequest(
                    session_id=session_id, subscriber_addresses=some
                )

    def singles() -> Iterator[pb.AddSubscriberRequest]:
        for number, session_id in enumerate(ids):
            for address in addresses_of(number, options.subscribers, options.distinct):
                yield pb.AddSubscriberRequest(session_id=session_id, subscriber_address=address)

    if options.one_by_one:
        pipelined(stub.AddSubscriber, singles())
    else:
        answers = pipelined(stub.BatchAddSubscribers, batches())
        assert sum(answer.added for answer in answers) == len(ids) * options.subscribers


def measured(server: Server, options: argparse.Namespace) -> Figures:
    empty, cpu = server.resident_bytes(), server.cpu_seconds()
    own_cpu, start = time.process_time(), time.perf_counter()
    with grpc.insecure_channel(server.grpc, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = session_pb2_grpc.SessionServiceStub(channel)
        ids = create_sessions(stub, options.sessions)
        created = time.perf_counter()
        add_subscribers(stub, ids, options)
        done = time.perf_counter()
        resident, cpu = server.resident_bytes(), server.cpu_seconds() - cpu
        own_cpu = time.process_time() - own_cpu
        page_start = time.perf_counter()
        stub.ListSubscribers(pb.ListSubscribersRequest(session_id=ids[-1], limit=1000))
        page = time.perf_counter() - page_start
    total = options.sessions * options.subscribers
    return Figures(
        sessions=options.sessions,
        subscribers=total,
        create_s=created - start,
        add_s=done - created,
        setup_s=done - start,
        us_per_subscriber=(done - created) / total * 1e6,
        server_cpu_s=cpu,
        client_cpu_s=own_cpu,
        empty_mib=empty / 2**20,
        resident_mib=resident / 2**20,
        bytes_per_subscriber=(resident - empty) / total,
        metrics_s=server.scrape_seconds("/metrics"),
        session_metrics_s=server.scrape_seconds("/metrics/sessions"),
        list_page_s=page,
    )


def restored(options: argparse.Namespace, before: Figures) -> float:
    """Seconds until a server has all of it again."""
    start = time.perf_counter()
    with running(options) as server:
        seconds = time.perf_counter() - start
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=300) as answer:
            page = answer.read().decode()
    for name, count in (
        ("active_sessions", before.sessions),
        ("total_subscribers", before.subscribers),
    ):
        value = re.search(rf"^{name} (\S+)$", page, re.MULTILINE)
        if not value or float(value[1]) != count:
            sys.exit(f"{name} is not {count} after the restart")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--sessions", type=int, default=10_000)
    parser.add_argument("-s", "--subscribers", type=int, default=1_000, help="of each session")
    parser.add_argument("--distinct", action="store_true", help="no host subscribes twice")
    parser.add_argument("--one-by-one", action="store_true", help="without the batch call")
    parser.add_argument("--store", help=f"its file, or {MEMORY}; default: one of its own")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        options.store = options.store or f"{directory}/store.db"
        with running(options) as server:
            measurements = measured(server, options)
            measurements.stop_s = server.stop()
        if options.store != MEMORY:
            measurements.restore_s = restored(options, measurements)
    figures = asdict(measurements)
    if options.output == "json":
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        print(f"{name:<22}{value if isinstance(value, int) else format(value, '.3f'):>14}")


if __name__ == "__main__":
    main()
