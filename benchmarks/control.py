"""Runs beside the server, in its namespace: makes sessions by gRPC and reads its metrics.

One JSON command a line on stdin, one JSON answer a line on stdout:
  {"create": {"source": "ip:port", "first_ssrc": n, "sessions": n, "subscribers": ["ip:port", ...]}}
  {"counters": true}
  {"last_copy": true}           of the first session, in us
  {"sent": true}                copies sent, of each session
  {"probe": seconds}
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import grpc

from rtpfanout.api import session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CALLS_IN_FLIGHT = 64
SAMPLE = re.compile(r"^(?P<name>[a-z0-9_]+)(?:\{[^}]*\})? (?P<value>\S+)", re.MULTILINE)


def pipelined(call: Callable[..., Any], requests: Iterable[Any]) -> list[Any]:
    """The answers to `requests`, in order, with CALLS_IN_FLIGHT of them under way."""
    futures: list[Any] = []
    for request in requests:
        if len(futures) >= CALLS_IN_FLIGHT:
            futures[-CALLS_IN_FLIGHT].result()
        futures.append(call.future(request, timeout=30))  # type: ignore[attr-defined]
    return [future.result() for future in futures]


def create(stub: Any, order: dict[str, Any]) -> dict[str, Any]:
    start = time.perf_counter()
    sessions = pipelined(
        stub.CreateSession,
        (
            session_pb2.CreateSessionRequest(
                source_address=order["source"], ssrc=order["first_ssrc"] + i, media_type="video"
            )
            for i in range(order["sessions"])
        ),
    )
    pipelined(
        stub.AddSubscriber,
        (
            session_pb2.AddSubscriberRequest(
                session_id=session.session_id, subscriber_address=address
            )
            for session in sessions
            for address in order["subscribers"]
        ),
    )
    return {"seconds": time.perf_counter() - start}


def probe(stub: Any, seconds: float) -> dict[str, Any]:
    """Calls one after the other, 4 rounds a second: how long each took, in ms."""
    session = stub.ListSessions(session_pb2.ListSessionsRequest(limit=1)).sessions[0].session_id
    spare = {"session_id": session, "subscriber_address": "10.201.2.2:9"}
    calls = (
        (stub.GetSession, session_pb2.GetSessionRequest(session_id=session)),
        (stub.GetSessionStats, session_pb2.GetSessionStatsRequest(session_id=session)),
        (stub.ListSessions, session_pb2.ListSessionsRequest()),
        (stub.AddSubscriber, session_pb2.AddSubscriberRequest(**spare)),
        (stub.RemoveSubscriber, session_pb2.RemoveSubscriberRequest(**spare)),
    )
    took: dict[str, list[float]] = {}
    refused = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for call, request in calls:
            start = time.perf_counter()
            try:
                call(request, timeout=30)
            except grpc.RpcError as error:  # a passed high-water mark is an answer, too
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND):
                    raise
                refused += 1
            name = type(request).__name__.removesuffix("Request")
            took.setdefault(name, []).append(1000 * (time.perf_counter() - start))
        time.sleep(0.2)
    return {
        "refused": refused,
        **spread([each for some in took.values() for each in some]),
        "by_call": {name: spread(some) for name, some in took.items()},
    }


def spread(milliseconds: list[float]) -> dict[str, float]:
    """How they are distributed."""
    ordered = sorted(milliseconds)
    return {
        "calls": len(ordered),
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[int(len(ordered) * 0.99)],
        "max_ms": ordered[-1],
    }


def last_copy(stub: Any) -> dict[str, float]:
    """How long the first session's last subscribers waited, since it began."""
    session = stub.ListSessions(session_pb2.ListSessionsRequest(limit=1)).sessions[0].session_id
    stats = stub.GetSessionStats(session_pb2.GetSessionStatsRequest(session_id=session))
    summary = stats.last_copy_latency
    return {"p50_us": 1e6 * summary.p50_seconds, "p99_us": 1e6 * summary.p99_seconds}


def sent(stub: Any) -> dict[str, int]:
    """Copies of each of up to 1,000 sessions, by id."""
    sessions = stub.ListSessions(session_pb2.ListSessionsRequest(limit=1000)).sessions
    requests = [session_pb2.GetSessionStatsRequest(session_id=s.session_id) for s in sessions]
    answers = pipelined(stub.GetSessionStats, requests)
    return {
        request.session_id: answer.packets_sent
        for request, answer in zip(requests, answers, strict=True)
    }


def counters(metrics: str) -> dict[str, float]:
    """Every sample summed over its labels, by name."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    sums: dict[str, float] = {}
    for sample in SAMPLE.finditer(text):
        sums[sample["name"]] = sums.get(sample["name"], 0.0) + float(sample["value"])
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grpc", required=True)
    parser.add_argument("--metrics", required=True)
    options = parser.parse_args()
    with grpc.insecure_channel(options.grpc) as channel:
        grpc.channel_ready_future(channel).result(timeout=20)
        stub = session_pb2_grpc.SessionServiceStub(channel)
        print(json.dumps({"ready": True}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            if "create" in order:
                answer = create(stub, order["create"])
            elif "probe" in order:
                answer = probe(stub, order["probe"])
            elif "last_copy" in order:
                answer = last_copy(stub)
            elif "sent" in order:
                answer = sent(stub)
            else:
                answer = counters(options.metrics)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
