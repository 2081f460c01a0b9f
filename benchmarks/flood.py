"""A flood of junk control datagrams: what do members, newcomers and packets lose by it?

    python benchmarks/flood.py --rate 400000 --seconds 30

Members that renew a lease of 10 s, receivers that join anew one after the other, and a paced
session beside junk of one kind after the other (`--kinds`), from eight ports of another address, as
fast as `--rate` says. `hello` is forged in the name of receivers that want to consent, one after
the other.
Prints one JSON object for each kind.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from contenders import BIN
from datagram_support import Forger, token_of
from flow import Flow
from run import build_tools
from support import ServerProcess, udp_socket

from rtpfanout import signed
from rtpfanout.api import session_pb2
from rtpfanout.model import Address
from rtpfanout.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable

    from scrape import Metrics

SSRC = 1
MEMBERS = 40
KINDS = ("malformed", "join", "stamped", "cookie", "move", "hello")
STRANGER = "127.0.0.5:0"


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=400_000, help="datagrams a second; 0: any")
    parser.add_argument("--seconds", type=float, default=30, help="of each kind")
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--gso", action="store_true", help="the kernel hands over 64 at a time")
    given = parser.parse_args()
    build_tools()
    lost = 0
    for kind in given.kinds:
        result = run(given, kind)
        print(json.dumps(result), flush=True)
        lost += result["leases_expired"] + result["media_missing"]
    return 1 if lost else 0


def junk(kind: str, token: signed.Token) -> bytes:
    """What nobody has signed, of a kind."""
    nonce = b"nonce..."
    forged = signed.Token(token.claims, bytes(32))
    packed = token.claims.packed
    unheard_of = signed.Claims.unpack(packed[:16] + bytes(8) + packed[24:])
    now = time.time_ns() // 1_000_000
    return {
        "malformed": signed.MAGIC + bytes(60),
        "join": signed.build_join(signed.Token(unheard_of, bytes(32)), nonce=nonce),
        "stamped": signed.build_join(forged, nonce=nonce),
        "cookie": signed.build_join(forged, nonce=nonce, cookie=os.urandom(24)),
        "move": signed.build_move(bytes(32), ssrc=SSRC, counter=1, time_ms=now),
    }[kind]


class Members:
    """In a thread of their own."""

    def __init__(self, server: ServerProcess, session: str, count: int = MEMBERS) -> None:
        self._receivers = [
            Receiver(server.ingest, token_of(server, session, lease_secs=10)) for _ in range(count)
        ]
        for receiver in self._receivers:
            receiver.join(30)

    def keep(self, ended: threading.Event) -> None:
        while not ended.is_set():
            for receiver in self._receivers:
                while receiver.receive(0.0) is not None:
                    pass
            time.sleep(0.02)


def newcomers(
    come: Callable[[], Receiver], ended: threading.Event, took: list[float], stuck: list[int]
) -> None:
    """One after the other."""
    while not ended.is_set():
        with come() as receiver:
            begin = time.monotonic()
            try:
                receiver.join(20)
                took.append(time.monotonic() - begin)
            except Exception:  # counted
                stuck.append(1)
        time.sleep(0.05)


def run(given: argparse.Namespace, kind: str) -> dict[str, Any]:
    """One kind of junk."""
    server = ServerProcess(store__path=":memory:", session_timeout_secs=0)
    try:
        with Flow(ssrc=SSRC) as flow:
            return beside(given, kind, server, flow)
    finally:
        server.stop()


def beside(
    given: argparse.Namespace, kind: str, server: ServerProcess, flow: Flow
) -> dict[str, Any]:
    """The flood and who is there."""
    request = session_pb2.CreateSessionRequest(
        source_address=flow.source, ssrc=SSRC, media_type="video", move_key=b"k" * 32
    )
    session = server.stub.CreateSession(request).session_id
    server.add(session, flow.viewer)
    asks = session_pb2.CreateSessionRequest(
        source_address=flow.source, ssrc=SSRC + 1, media_type="video", consent="echo"
    )
    asking = server.stub.CreateSession(asks).session_id
    token = signed.Token.parse(token_of(server, session))
    members, ended = Members(server, session), threading.Event()
    took: list[float] = []
    stuck: list[int] = []
    forged_as: list[tuple[str, int]] = []

    def joins() -> Receiver:
        return Receiver(server.ingest, token_of(server, session))

    def consents() -> Receiver:
        with udp_socket() as free:
            host, port = free.getsockname()
        server.add(asking, f"{host}:{port}")
        forged_as[:] = [(host, port)]
        time.sleep(0.2)
        return Receiver(server.ingest, bind=Address.parse(f"{host}:{port}"))

    come = consents if kind == "hello" else joins
    threads = [
        threading.Thread(target=members.keep, args=(ended,)),
        threading.Thread(target=newcomers, args=(come, ended, took, stuck)),
    ]
    before = server.metrics()
    flow.start(server.ingest)
    for thread in threads:
        thread.start()
    sent, seconds = flood(given, kind, server, token, forged_as)
    ended.set()
    for thread in threads:
        thread.join()
    flow.finish()
    return {
        "kind": kind,
        "sent_per_second": round(sent / seconds),
        "media_sent": len(flow.sent_at),
        "media_missing": len(flow.missing),
        **waited(took, stuck),
        **counted(before, server.settled(), seconds),
    }


def waited(took: list[float], stuck: list[int]) -> dict[str, Any]:
    """How long newcomers took."""
    return {
        "newcomers": len(took),
        "newcomers_stuck": len(stuck),
        "newcomer_median_secs": round(statistics.median(took), 3) if took else None,
        "newcomer_slowest_secs": round(max(took), 3) if took else None,
    }


def counted(before: Metrics, after: Metrics, seconds: float) -> dict[str, Any]:
    """What the server says of it."""
    cpu_secs = after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]
    return {
        "lost_in_the_queue": int(after["rtpfanout_kernel_receive_drops_total"]),
        "leases_expired": int(after["rtpfanout_leases_expired_total"]),
        "server_cpus": round(cpu_secs / seconds, 2),
        "dropped": after.dropped(),
    }


def flood(
    given: argparse.Namespace,
    kind: str,
    server: ServerProcess,
    token: signed.Token,
    forged_as: list[tuple[str, int]],
) -> tuple[int, float]:
    """How many datagrams were sent, in what time."""
    if kind == "hello":
        return forge(given, server, forged_as)
    command = [BIN / "rtpgen", "--to", str(server.ingest), "--from", STRANGER]
    command += ["--sessions", "8", "--port-per-session", "--burst", "64"]
    command += ["--rate", str(given.rate), "--duration", str(given.seconds)]
    command += ["--payload", junk(kind, token).hex(), *(["--gso"] if given.gso else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    told = json.loads(done.stdout)
    return int(told["sent"]), float(told["seconds"])


def forge(
    given: argparse.Namespace, server: ServerProcess, forged_as: list[tuple[str, int]]
) -> tuple[int, float]:
    """HELLOs in the name of who wants to consent at the moment, as fast as one thread can."""
    forger = Forger(server.ingest)
    begin = time.monotonic()
    sent = 0
    while time.monotonic() < begin + given.seconds:
        for address in list(forged_as):
            for _ in range(50):
                forger.send(address, signed.build_hello(os.urandom(8)))
            sent += 50
        if given.rate:
            time.sleep(max(0.0, begin + sent / given.rate - time.monotonic()))
    forger.close()
    return sent, time.monotonic() - begin


if __name__ == "__main__":
    sys.exit(main())
