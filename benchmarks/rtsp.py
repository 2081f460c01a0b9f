"""RTSP clients come and go: what does a pilot of the same session notice?

    python benchmarks/rtsp.py --clients 50 --rounds 6 --seconds 10

A session of 420 packets a second in frames of 14, one pilot by the API, and beside it by turns:
nobody (`none`), as many plain subscribers (`plain`), or RTSP clients, each of which connects,
describes, plays for half a second to two, and comes again, by UDP (`udp`) or over its connection
(`tcp`); `stuck` are clients that play over their connection and never read. Latency is from the
send of the source to the kernel's time stamp at the pilot's socket. Prints a JSON object for each
kind: medians over the rounds in microseconds, ratios of each round's own p99 to those of `none` and
`plain`, the CPU time of the server's threads in percent of one CPU, and how often clients came. On
a machine that is busy with something else only the CPU times tell anything.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from rtsp_client import RtspClient
from rtsp_scene import PCMU, Scene, scene_of
from support import address_of, udp_socket

from rtpfanout.api import session_pb2
from rtpfanout.model import Address
from rtpfanout.traffic import rtp

KINDS = ("none", "plain", "udp", "tcp", "stuck")
SSRC = 7
NAME = "rover-7/front"
FRAME_PACKETS, FRAMES_PER_SECOND, PAYLOAD_BYTES = 14, 30, 1188
_STAMP = struct.Struct("!Q")
_TIMESPEC = struct.Struct("@ll")
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=10, help="of each kind in each round")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--play", help=argparse.SUPPRESS)  # a process of clients
    parser.add_argument("--door", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.play:
        return play(given)
    found: dict[str, list[list[float]]] = {kind: [] for kind in given.kinds}
    visits: dict[str, int] = dict.fromkeys(given.kinds, 0)
    spent = {kind: Counter[str]() for kind in given.kinds}
    with scene_of() as scene, Flight(scene) as flight:
        for _ in range(given.rounds):
            for kind in given.kinds:
                with beside(kind, scene, given) as others:
                    before = cpu_seconds(scene.server.pid)
                    found[kind].append(sorted(flight.latencies(given.seconds)))
                    spent[kind] += cpu_seconds(scene.server.pid) - before
                visits[kind] += others.visits
    for kind, rounds in found.items():
        seconds = given.rounds * given.seconds
        cpu = {name: round(100 * value / seconds, 1) for name, value in spent[kind].items()}
        more = {"cpu_percent": cpu, "visits": visits[kind]}
        print(json.dumps(result_of(kind, rounds, found) | more), flush=True)
    return 0


def cpu_seconds(pid: int) -> Counter[str]:
    """Of a process, by thread (proc_pid_stat(5)): the packet path's, and all others, Python's."""
    found: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            name, _, rest = (task / "stat").read_text().partition("(")[2].rpartition(") ")
            ticks = sum(map(int, rest.split()[11:13]))
            kind = "packet path" if name.startswith("rtp-worker") else "python"
            found[kind] += ticks / os.sysconf("SC_CLK_TCK")  # type: ignore[assignment]
    return found


def result_of(
    kind: str, rounds: list[list[float]], found: dict[str, list[list[float]]]
) -> dict[str, Any]:
    """In microseconds."""
    result: dict[str, Any] = {"kind": kind, "packets": sum(map(len, rounds))}
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        result[name] = round(statistics.median(at(each, share) for each in rounds), 1)
    for base in ("none", "plain"):
        if base in found and base != kind:
            pairs = zip(rounds, found[base], strict=True)
            ratios = [at(each, 0.99) / at(other, 0.99) for each, other in pairs]
            result[f"p99_of_{base}"] = round(statistics.median(ratios), 3)
    return result


def at(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


class Flight:
    """The source and the pilot."""

    def __init__(self, scene: Scene) -> None:
        self._source, self._pilot = udp_socket(), udp_socket()
        self._pilot.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._to = scene.server.ingest_target
        self._sequence = 0
        request = session_pb2.CreateSessionRequest(
            source_address=address_of(self._source), ssrc=SSRC, media_type="video", name=NAME
        )
        request.encoding.name, request.encoding.payload_type = "PCMU", PCMU
        request.media_type = "audio"
        session_id = scene.server.stub.CreateSession(request).session_id
        scene.server.stub.AddSubscriber(
            session_pb2.AddSubscriberRequest(
                session_id=session_id,
                subscriber_address=address_of(self._pilot),
                subscriber_class="pilot",
            )
        )

    def __enter__(self) -> Flight:
        self.latencies(1)
        return self

    def __exit__(self, *_error: object) -> None:
        self._source.close()
        self._pilot.close()

    def latencies(self, seconds: float) -> list[float]:
        """Of each packet, in microseconds."""
        came: list[float] = []
        reader = threading.Thread(target=self._receive, args=(came, seconds))
        reader.start()
        began, frame = time.monotonic(), 0
        while time.monotonic() - began < seconds:
            frame += 1
            for _ in range(FRAME_PACKETS):
                self._sequence += 1
                payload = _STAMP.pack(time.time_ns()).ljust(PAYLOAD_BYTES, b"-")
                packet = rtp.build(
                    payload, ssrc=SSRC, sequence=self._sequence & 0xFFFF, payload_type=PCMU,
                    timestamp=self._sequence // FRAME_PACKETS * 3000 & 0xFFFFFFFF,
                )  # fmt: skip
                self._source.sendto(packet, self._to)
            time.sleep(max(0.0, began + frame / FRAMES_PER_SECOND - time.monotonic()))
        reader.join()
        return came

    def _receive(self, came: list[float], seconds: float) -> None:
        self._pilot.settimeout(0.2)
        until = time.monotonic() + seconds + 0.2
        while time.monotonic() < until:
            try:
                data, ancillary, *_ = self._pilot.recvmsg(2048, socket.CMSG_SPACE(_TIMESPEC.size))
            except TimeoutError:
                continue
            whole, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
            sent = _STAMP.unpack_from(data, 12)[0]
            came.append((whole * 10**9 + nanoseconds - sent) / 1000)


class beside:  # noqa: N801  (read as a word)
    """Others, for the length of a `with`; `visits` is how often one came to play."""

    def __init__(self, kind: str, scene: Scene, given: argparse.Namespace) -> None:
        self.visits = 0
        self._kind, self._scene, self._number = kind, scene, given.clients
        self._sockets: list[socket.socket] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> beside:
        if self._kind == "plain":
            for _ in range(self._number):
                self._sockets.append(udp_socket(receive_buffer=4096))
                self._scene.server.add(NAME, address_of(self._sockets[-1]))
        elif self._kind != "none":
            command = [sys.executable, __file__, "--play", self._kind, "--clients"]
            self._process = subprocess.Popen(
                [*command, str(self._number), "--door", str(self._scene.door)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            time.sleep(3)
        return self

    def __exit__(self, *_error: object) -> None:
        for sock in self._sockets:
            self._scene.server.remove(NAME, address_of(sock))
            sock.close()
        if self._process:
            told, _ = self._process.communicate("", 60)
            self.visits = int(told)
            self._scene.await_subscribers(NAME, 1)


def play(given: argparse.Namespace) -> int:
    """A process of clients, until its standard input ends; they hurry for nobody."""
    os.nice(19)
    ended, visits = threading.Event(), [0] * given.clients

    def client(number: int) -> None:
        chance = random.Random(number)
        ended.wait(chance.uniform(0, 2))
        while not ended.is_set():
            with udp_socket(receive_buffer=4096) as rtp_socket:
                visit(Address.parse(given.door), given.play, rtp_socket, chance, ended)
            visits[number] += 1

    threads = [threading.Thread(target=client, args=(n,)) for n in range(given.clients)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    for thread in threads:
        thread.join()
    print(sum(visits))
    return 0


def visit(
    door: Address, kind: str, sock: socket.socket, chance: random.Random, ended: threading.Event
) -> None:
    """One client's, from the connection to its end."""
    port = sock.getsockname()[1]
    over = "RTP/AVP/TCP;interleaved=0-1" if kind != "udp" else f"RTP/AVP;client_port={port}-{port}"
    with RtspClient(door, buffer=65_536) as client:
        client.ask("DESCRIBE", NAME)
        client.set_up(NAME, over)
        client.ask("PLAY", NAME)
        stay = 3600.0 if kind == "stuck" else chance.uniform(0.5, 2)
        if kind != "tcp":
            ended.wait(stay)
            return
        until = time.monotonic() + stay
        client.sock.settimeout(0.2)
        while time.monotonic() < until and not ended.is_set():
            with contextlib.suppress(TimeoutError):
                client.sock.recv(1 << 20)


if __name__ == "__main__":
    sys.exit(main())
