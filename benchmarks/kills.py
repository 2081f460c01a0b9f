"""kill -9 at random moments, many times, under traffic and calls; what was lost?

    python benchmarks/kills.py --kills 1000                 the server process
    python benchmarks/kills.py --kills 200 --everything     supervisor and server at once

An oracle has every acknowledged call: sessions and subscribers that were created or removed. After
each kill the server must know exactly these; a call without an answer may or may not have
happened. Numbered packets flow all the while (not with --everything, where the sockets go, too).
Prints one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import grpc
import httpx
from flow import Flow
from support import START_SECONDS, ServerProcess, eventually

from rtpfanout.api import session_pb2
from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from collections.abc import Callable

CALL_SECONDS = 5.0
MOST_SESSIONS = 200  # of the oracle's: it reads each after a kill
CROWD = "127.3."


class Oracle:
    """Calls one by one, and what must be and what may be after them."""

    def __init__(self, server: ServerProcess, seed: int) -> None:
        self.server = server
        self.acknowledged = 0
        self.unanswered = 0
        self._random = random.Random(seed)
        self._sessions: dict[str, set[str]] = {}  # id: subscribers
        self._doubtful: set[tuple[str, str]] = set()
        self._deleted: set[str] = set()
        self._number = 0
        self.crowd = 0
        self.watched = ""

    def call(self) -> None:
        """One random call; remembers the outcome."""
        stub = self.server.stub
        choice = self._random.random()
        self._number += 1
        if not self._sessions or (choice < 0.2 and len(self._sessions) < MOST_SESSIONS):
            request = session_pb2.CreateSessionRequest(
                source_address=f"127.1.{self._number >> 8 & 255}.{self._number & 255}:5000",
                ssrc=self._number,
                media_type="video",
                labels={"of": "oracle"},
            )
            answer = self._try(lambda: stub.CreateSession(request, timeout=CALL_SECONDS))
            if answer:
                self._sessions[answer.session_id] = set()
            return
        session = self._random.choice(sorted(self._sessions))
        subscribers = self._sessions[session]
        if choice < 0.3 and len(self._sessions) > 10:
            delete = session_pb2.DeleteSessionRequest(session_id=session)
            done = self._try(lambda: stub.DeleteSession(delete, timeout=CALL_SECONDS))
            del self._sessions[session]
            if done is not None:
                self._deleted.add(session)
        elif choice < 0.5 and subscribers:
            address = self._random.choice(sorted(subscribers))
            removal = session_pb2.RemoveSubscriberRequest(
                session_id=session, subscriber_address=address
            )
            done = self._try(lambda: stub.RemoveSubscriber(removal, timeout=CALL_SECONDS))
            subscribers.discard(address)
            if done is None:
                self._doubtful.add((session, address))
        else:
            address = f"127.2.{self._number >> 8 & 255}.{self._number & 255}:6000"
            addition = session_pb2.AddSubscriberRequest(
                session_id=session, subscriber_address=address
            )
            done = self._try(lambda: stub.AddSubscriber(addition, timeout=CALL_SECONDS))
            if done is None:
                self._doubtful.add((session, address))
            else:
                subscribers.add(address)

    def lost(self) -> list[str]:
        """What the server does not know although it said so, or knows although it is gone.

        What was in doubt is settled by this look.
        """
        found = self._read()
        wrong = [f"deleted session {session}" for session in self._deleted & set(found)]
        for session, subscribers in self._sessions.items():
            if session not in found:
                wrong.append(f"session {session}")
                continue
            for address in subscribers ^ found[session]:
                if (session, address) in self._doubtful:
                    continue
                wrong.append(f"subscriber {address} of {session}")
        self._sessions = found
        self._doubtful.clear()
        return wrong

    def _read(self) -> dict[str, set[str]]:
        stub = self.server.stub
        found: dict[str, set[str]] = {}
        cursor = ""
        while True:
            page = stub.ListSessions(
                session_pb2.ListSessionsRequest(
                    limit=1000, cursor=cursor, label_selector="of=oracle"
                )
            )
            for session in page.sessions:
                request = session_pb2.ListSubscribersRequest(
                    session_id=session.session_id, limit=1000
                )
                found[session.session_id] = {
                    entry.subscriber_address for entry in stub.ListSubscribers(request).subscribers
                }
            cursor = page.next_cursor
            if not cursor:
                break
        total = eventually(self._active_sessions, lambda n: n >= 0, "metrics again")
        self.crowd = int(total) - len(found) - bool(self.watched)
        return found

    def _active_sessions(self) -> float:
        try:
            return self.server.metrics()["active_sessions"]
        except httpx.TransportError:  # calls are taken a little before
            return -1

    def _try(self, call: Callable[[], object]) -> object:
        try:
            answer = call()
        except grpc.RpcError:
            self.unanswered += 1
            return None
        self.acknowledged += 1
        return answer


def main() -> None:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=0, help="that exist beside the others")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["RUNTIME_DIRECTORY"] = directory
        result = run(given, Path(directory))
    print(json.dumps(result, indent=1))
    sys.exit(1 if result["calls_lost"] else 0)


def run(given: argparse.Namespace, directory: Path) -> dict[str, object]:
    with contextlib.ExitStack() as stack:
        return strike_all(given, directory, stack)


def strike_all(
    given: argparse.Namespace, directory: Path, stack: contextlib.ExitStack
) -> dict[str, object]:
    """The whole run; `stack` ends what is left of it."""
    settings: dict[str, object] = {
        "store__path": str(directory / "store.db"),
        "max_sessions": given.sessions + 10_000,
    }
    server = ServerProcess(**settings, session_timeout_secs=0)
    if given.everything:  # the same ports again
        settings |= {
            "bind_address": server.ingest,
            "grpc_bind_address": server.grpc,
            "metrics_bind_address": server.metrics_address,
        }
    oracle = Oracle(server, given.seed)
    stack.callback(lambda: oracle.server.stop())  # whichever it is then
    moments: list[float] = []
    lost: list[str] = []
    restarts: list[float] = []
    chance = random.Random(given.seed)
    ends = time.monotonic() + given.seconds
    for number in range(given.sessions):
        server.create(f"{CROWD}{number >> 8}.{number & 255}:5000", 7, "127.0.0.4:6000")
    oracle.lost()
    with Flow() as flow:
        if not given.everything:
            oracle.watched = server.create(flow.source, 1, flow.viewer)
            flow.start(server.ingest)
        while len(moments) < given.kills and time.monotonic() < ends:
            # The supervisor may pause before it replaces a younger one.
            delay = (0 if given.everything else 1) + 0.3 * chance.random()
            moment, killed = strike(oracle, delay, everything=given.everything)
            moments.append(moment)
            if given.everything:
                server.process.wait()
                while statefile.start_of(killed):  # it still has the port
                    time.sleep(0.001)
                server.stop()
                server = oracle.server = ServerProcess(**settings, session_timeout_secs=0)
            else:
                _replaced(server, killed)
            connect_anew(server)
            restarts.append(time.monotonic() - moments[-1])
            lost += oracle.lost()
            if oracle.crowd != given.sessions:
                lost.append(f"{given.sessions - oracle.crowd} of the crowd")
        time.sleep(0.5)
        flow.finish()
    result: dict[str, object] = {
        "kills": len(moments),
        "calls_acknowledged": oracle.acknowledged,
        "calls_unanswered": oracle.unanswered,
        "calls_lost": len(lost),
        "first_lost": lost[:5],
        "calls_again_after_secs": quantiles(restarts),
    }
    if not given.everything:
        result |= of_packets(flow, moments)
    return result


def strike(oracle: Oracle, delay: float, *, everything: bool) -> tuple[float, int]:
    """kill -9 amid calls; when, and to which process."""
    server = oracle.server
    killed: list[tuple[float, int]] = []

    def kill() -> None:
        time.sleep(delay)
        state = statefile.read(server.process.pid)
        assert state
        moment = time.monotonic()
        if everything:
            server.process.kill()
        os.kill(state.server_pid, signal.SIGKILL)
        killed.append((moment, state.server_pid))

    killer = threading.Thread(target=kill)
    killer.start()
    while killer.is_alive():
        oracle.call()
    return killed[0]


def connect_anew(server: ServerProcess) -> None:
    """By a channel that hasn't failed yet: one that has waits longer and longer."""
    server.channel.close()
    server.channel = grpc.insecure_channel(
        str(server.grpc),
        options=[
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_reconnect_backoff_ms", 50),
            ("grpc.initial_reconnect_backoff_ms", 50),
        ],
    )
    try:
        grpc.channel_ready_future(server.channel).result(START_SECONDS)
    except grpc.FutureTimeoutError:
        sys.exit(f"no calls are taken any more: {server.log[-5:]} {server.other_lines[-5:]}")
    server.stub = type(server.stub)(server.channel)


def of_packets(flow: Flow, moments: list[float]) -> dict[str, object]:
    """What became of those that flowed while the server was killed at these moments."""
    return {
        "packets_sent": len(flow.sent_at),
        "packets_lost": len(flow.missing),
        "lost_before_kill_ms": before_kill(flow, flow.missing, moments),
        "packets_doubled": len(flow.doubled),
        "doubled_before_kill_ms": before_kill(flow, flow.doubled, moments),
        "out_of_order": sum(a > b for a, b in pairwise(flow.first_arrivals)),
        "gap_secs": quantiles([flow.gap_around(moment) for moment in moments]),
    }


def before_kill(flow: Flow, numbers: list[int], moments: list[float]) -> list[float]:
    """For the first of these packets: how long after each was sent a server was killed."""
    return [
        round(min((m - at for m in moments if m >= at), default=-1) * 1e3, 2)
        for at in (flow.sent_at[number] for number in numbers[:20])
    ]


def _replaced(server: ServerProcess, old: int) -> None:
    """Returns when there is another server process: the dying one may still take connections."""
    while True:
        state = statefile.read(server.process.pid)
        if state and state.server_pid != old and statefile.start_of(state.server_pid):
            return
        time.sleep(0.001)


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        name: round(ordered[min(len(ordered) - 1, int(part * len(ordered)))], 4)
        for name, part in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
    }


if __name__ == "__main__":
    main()
