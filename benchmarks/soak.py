#!/usr/bin/env python3
"""Hours of ordinary life: packets, sessions and subscribers that come and go, calls and scrapes.

    python benchmarks/soak.py --minutes 60

Everything is on loopback. First the log of changes that WatchSessions reads is filled, which by
itself would take an hour and 30 MiB. Prints a JSON line each minute, and at the end the slopes of
resident memory and descriptors after the warm-up, with the accounting identities.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import grpc
from control import counters, pipelined

from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc
from rtpfanout.sessions import changes
from rtpfanout.traffic import rtp

WARM_UP_SHARE = 0.25
SAMPLE_S = 5.0
SESSIONS_AT_ONCE = 200


def start(state: str, workers: int) -> tuple[subprocess.Popen[str], dict[str, str]]:
    command = [
        *(sys.executable, "-m", "rtpfanout", "serve", "--log-format", "json"),
        *("--bind-address", "127.0.0.1:0", "--grpc-bind-address", "127.0.0.1:0"),
        *("--metrics-bind-address", "127.0.0.1:0", "--set", f"store.path={state}"),
        *("--workers", str(workers)),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        entry = json.loads(line)
        if entry["event"] == "ready":
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return process, entry
    sys.exit("the server did not start")


def family(pid: int) -> list[int]:
    """The process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def resident_bytes(pid: int) -> int:
    return sum(
        1024 * int(line.split()[1])
        for each in family(pid)
        for line in Path(f"/proc/{each}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )


def descriptors(pid: int) -> int:
    return sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in family(pid))


def slope_per_hour(points: list[tuple[float, float]]) -> float:
    """Least squares over (seconds, value)."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


class Traffic(threading.Thread):
    """Frames of packets of every session, and from strangers, at an even pace."""

    def __init__(self, ingress: str, source: socket.socket, rate: float) -> None:
        super().__init__(daemon=True)
        host, port = ingress.rsplit(":", 1)
        self.target = (host, int(port))
        self.source = source
        self.rate = rate
        self.ssrcs: list[int] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        stranger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        due = time.monotonic()
        for sequence in itertools.count():
            ssrcs = self.ssrcs
            if self.stopping.is_set():
                return
            for ssrc in random.sample(ssrcs, min(len(ssrcs), 14)):
                packet = rtp.build(bytes(1100), ssrc=ssrc, sequence=sequence % 65536, timestamp=0)
                self.source.sendto(packet, self.target)
                if sequence % 10 == 0:
                    stranger.sendto(packet, self.target)
                    stranger.sendto(random.randbytes(40), self.target)
            due += 14 / self.rate
            time.sleep(max(0.0, due - time.monotonic()))


class Churn(threading.Thread):
    """Sessions and subscribers come and go; leases run out; what exists is listed."""

    def __init__(self, stub: Any, source: str, traffic: Traffic, rate: float, size: int) -> None:
        super().__init__(daemon=True)
        self.stub, self.source, self.traffic, self.rate, self.size = (
            stub, source, traffic, rate, size,
        )  # fmt: skip
        self.calls = self.errors = 0
        self.sessions: dict[int, str] = {}
        self.stopping = threading.Event()

    def run(self) -> None:
        numbers = itertools.count(1)
        while not self.stopping.is_set():
            try:
                self.step(next(numbers))
            except grpc.RpcError as error:
                self.errors += 1
                print(error, file=sys.stderr)
            self.calls += 1
            time.sleep(random.expovariate(self.rate))

    def step(self, number: int) -> None:
        if len(self.sessions) < self.size:
            answer = self.stub.CreateSession(
                pb.CreateSessionRequest(
                    source_address=self.source,
                    ssrc=number,
                    media_type="video",
                    labels={"n": str(number)},
                    request_id=str(number),
                )
            )
            self.sessions[number] = answer.session_id
        elif random.random() < 0.1:
            ssrc = random.choice(list(self.sessions))
            self.stub.DeleteSession(pb.DeleteSessionRequest(session_id=self.sessions.pop(ssrc)))
        else:
            session_id = random.choice(list(self.sessions.values()))
            address = f"127.0.0.{random.randrange(2, 250)}:{random.randrange(20000, 20100)}"
            self.stub.AddSubscriber(
                pb.AddSubscriberRequest(
                    session_id=session_id,
                    subscriber_address=address,
                    ttl_secs=random.choice([0, 5, 60]),
                )
            )
            if random.random() < 0.7:
                self.stub.BatchRemoveSubscribers(
                    pb.BatchRemoveSubscribersRequest(
                        session_id=session_id, subscriber_addresses=[address]
                    )
                )
            self.stub.GetSessionStats(pb.GetSessionStatsRequest(session_id=session_id))
        self.traffic.ssrcs = list(self.sessions)


def fill_log(stub: Any) -> None:
    """As many changes as WatchSessions can look back on, none smaller than those that follow."""
    for _ in range(changes.KEPT // 2 // SESSIONS_AT_ONCE + 1):
        made = pipelined(
            stub.CreateSession,
            (
                pb.CreateSessionRequest(
                    source_address="127.0.0.1:9",
                    ssrc=number,
                    media_type="video",
                    labels={"n": str(number)},
                )
                for number in range(SESSIONS_AT_ONCE)
            ),
        )
        pipelined(
            stub.DeleteSession,
            (pb.DeleteSessionRequest(session_id=session.session_id) for session in made),
        )


def identities(sums: dict[str, float]) -> bool:
    return (
        sums["rtp_packets_received_total"]
        == sums["rtpfanout_packets_forwarded_total"] + sums["rtpfanout_packets_dropped_total"]
        and sums["rtpfanout_copies_attempted_total"]
        == sums["rtp_packets_sent_total"] + sums["rtpfanout_send_failures_total"]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--packets", type=float, default=1000, help="per second")
    parser.add_argument("--calls", type=float, default=20, help="per second")
    parser.add_argument("--sessions", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        process, ready = start(str(Path(directory, "state.db")), options.workers)
        try:
            return watch(process, ready, options)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def watch(
    process: subprocess.Popen[str], ready: dict[str, str], options: argparse.Namespace
) -> int:
    source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    source.bind(("127.0.0.1", 0))
    channel = grpc.insecure_channel(ready["grpc_bind_address"])
    stub = session_pb2_grpc.SessionServiceStub(channel)
    traffic = Traffic(ready["bind_address"], source, options.packets)
    address = f"127.0.0.1:{source.getsockname()[1]}"
    churn = Churn(stub, address, traffic, options.calls, options.sessions)
    fill_log(stub)
    traffic.start()
    churn.start()
    began = time.monotonic()
    seconds = 60 * options.minutes
    memory: list[tuple[float, float]] = []
    files: list[tuple[float, float]] = []
    while (now := time.monotonic() - began) < seconds and process.poll() is None:
        if now > WARM_UP_SHARE * seconds:
            memory.append((now, resident_bytes(process.pid) / 2**20))
            files.append((now, descriptors(process.pid)))
        urllib.request.urlopen(
            f"http://{ready['metrics_bind_address']}/metrics/sessions", timeout=30
        ).read()
        if int(now) % 60 < SAMPLE_S and memory:
            line = {"minute": int(now // 60), "mib": memory[-1][1], "files": files[-1][1]}
            print(json.dumps(line), flush=True)
        time.sleep(SAMPLE_S)
    churn.stopping.set()
    churn.join()
    traffic.stopping.set()
    traffic.join()
    time.sleep(1)
    sums = counters(ready["metrics_bind_address"])
    figures = {
        "alive": process.poll() is None,
        "minutes": options.minutes,
        "calls": churn.calls,
        "call_errors": churn.errors,
        "mib": memory[-1][1],
        "mib_per_hour": slope_per_hour(memory),
        "files_per_hour": slope_per_hour(files),
        "received": sums["rtp_packets_received_total"],
        "sent": sums["rtp_packets_sent_total"],
        "kernel_drops": sums["rtpfanout_kernel_receive_drops_total"],
        "identities": identities(sums),
    }
    print(json.dumps(figures, indent=1))
    return 0 if figures["identities"] and figures["alive"] else 1


if __name__ == "__main__":
    sys.exit(main())
