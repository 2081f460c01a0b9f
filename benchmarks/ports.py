#!/usr/bin/env python3
"""What 1,000 ports of sessions' own cost: an idle engine, a busy one, and one that is fed by them.

    python benchmarks/ports.py
    python benchmarks/ports.py --nice -10 --rounds 15 --burst 1

`idle`: CPU time of a second without packets, ticks and statistics of a server included. `main`: a
packet of 1,000 sessions at the main port; `beside`: the same, with as many other sessions at ports
of their own where nothing comes; `fed`: the same packets, each session's to its own port. They are
queued before the worker begins, so it has all it can do; `paced` come at `--rate`. The time is CPU
time of its thread, and copies end in front of an interface without carrier, whole. Kinds take
turns; the ratios are medians of the rounds' own. JSON. Needs root, `unshare` and `ip`.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

from rtpfanout import _fastpath
from rtpfanout._fastpath import Engine
from rtpfanout.model import Address

SOURCE = "10.0.0.1"
UDP_SEGMENT = 103
LENGTH = 1200


class Bench:
    """An engine with one worker in this process, and who sends to it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sender.bind((SOURCE, 0))

    def engine(self) -> Engine:
        return Engine(
            Address.parse(f"{SOURCE}:0"),
            max_sessions=10_000,
            max_subscribers=100,
            receive_queue_packets=4
            * self.options.sessions
            * self.options.bursts
            * self.options.burst,
        )

    def session(self, engine: Engine, number: int, *, own: bool) -> Address:
        """With its subscribers; where it is fed."""
        source = Address.parse(f"{SOURCE}:{self.sender.getsockname()[1]}")
        now = time.monotonic_ns()
        handle = engine.add_session(source, number, now, at_own_port=own)
        names = [f"10.1.{number % 250}.{i + 1}:9" for i in range(self.options.subscribers)]
        engine.add_subscribers(handle, b"".join(Address.parse(name).record for name in names), now)
        if not own:
            return engine.bound
        sockets = [_fastpath.open_socket(Address(engine.bound.ip, 0), 4096) for _ in range(2)]
        engine.give_ports(handle, *sockets)
        with socket.socket(fileno=sockets[0]) as rtp:
            port = rtp.getsockname()[1]
        os.close(sockets[1])
        return Address(engine.bound.ip, port)

    def send(self, number: int, to: Address) -> None:
        packet = bytes([0x80, 96]) + bytes(6) + number.to_bytes(4) + bytes(LENGTH - 12)
        size = LENGTH.to_bytes(2, sys.byteorder)
        control = [(socket.IPPROTO_UDP, UDP_SEGMENT, size)] if self.options.burst > 1 else []
        self.sender.sendmsg([packet * self.options.burst], control, 0, to.sockaddr)

    def busy(self, kind: str) -> float:
        """Nanoseconds of CPU a packet."""
        engine = self.engine()
        sessions = self.options.sessions
        places = [self.session(engine, i, own=kind == "fed") for i in range(sessions)]
        if kind == "beside":
            for i in range(sessions):
                self.session(engine, sessions + i, own=True)
        loop = threading.Thread(target=engine.run)
        for _ in range(self.options.bursts):
            for number, place in enumerate(places):
                self.send(number, place)
        total = self.options.bursts * self.options.burst * sessions
        loop.start()
        deadline = time.monotonic() + 60
        while engine.stats()["packets_forwarded"] < total:
            if time.monotonic() > deadline:
                raise SystemExit(f"{kind}: {engine.stats()}")
            time.sleep(0.002)
        ((_, _, cpu_ns),) = engine.worker_health()
        engine.stop()
        loop.join()
        return float(cpu_ns / total)

    def paced(self, kind: str) -> float:
        """Nanoseconds of CPU a packet, where the worker sleeps between bursts."""
        engine, options = self.engine(), self.options
        places = [self.session(engine, i, own=kind == "fed") for i in range(options.sessions)]
        loop = threading.Thread(target=engine.run)
        loop.start()
        began, sent = time.monotonic(), 0
        while (now := time.monotonic() - began) < 2:
            for _ in range(int(now * options.rate) - sent):
                self.send(sent % options.sessions, places[sent % options.sessions])
                sent += 1
            time.sleep(0.0003)
        time.sleep(0.1)
        ((_, _, cpu_ns),) = engine.worker_health()
        engine.stop()
        loop.join()
        return float(cpu_ns / sent / options.burst)

    def idle(self, kind: str) -> float:
        """Microseconds of CPU a second."""
        engine = self.engine()
        if kind != "none":
            for i in range(self.options.sessions):
                self.session(engine, i, own=True)
        loop = threading.Thread(target=engine.run)
        loop.start()
        time.sleep(0.5)
        before = time.process_time_ns()
        for _ in range(self.options.seconds):
            time.sleep(1)
            engine.tick(time.monotonic_ns(), 0)
            engine.stats()
        spent = time.process_time_ns() - before
        engine.stop()
        loop.join()
        return spent / 1000 / self.options.seconds


def summary(rounds: list[dict[str, float]], base: str) -> dict[str, Any]:
    """Medians, and the medians of the ratios to `base`."""
    found: dict[str, Any] = {}
    for kind in rounds[0]:
        ratios = [each[kind] / each[base] for each in rounds]
        found[kind] = {
            "median": round(statistics.median(each[kind] for each in rounds), 1),
            "ratio": round(statistics.median(ratios), 4),
            "least": round(min(ratios), 4),
            "most": round(max(ratios), 4),
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1000, help="and so many ports")
    parser.add_argument("-s", "--subscribers", type=int, default=10)
    parser.add_argument("-b", "--burst", type=int, default=14)
    parser.add_argument("--bursts", type=int, default=1, help="of each session in a round")
    parser.add_argument("--rate", type=float, default=3000, help="bursts/s of the paced rounds")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=5, help="of idling, in each of 3 rounds")
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.inside:
        return subprocess.call(["unshare", "-n", sys.executable, *sys.argv, "--inside"])
    os.nice(options.nice)
    for command in (
        "ip link set lo up",
        f"ip address add {SOURCE}/32 dev lo",
        "ip tuntap add sink mode tun",
        "ip link set sink up",
        "ip route add 10.1.0.0/16 dev sink",
    ):
        subprocess.run(command.split(), check=True)
    bench = Bench(options)
    busy = []
    for _ in range(options.rounds + 1):
        busy.append({kind: bench.busy(kind) for kind in ("main", "beside", "fed")})
    paced = [{kind: bench.paced(kind) for kind in ("main", "fed")} for _ in range(options.rounds)]
    idle = [{kind: bench.idle(kind) for kind in ("none", "ports")} for _ in range(3)]
    result = {
        "ns_a_packet": summary(busy[1:], "main"),
        "paced_ns_a_packet": summary(paced, "main"),
        "idle_us_a_second": summary(idle, "none"),
    }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
