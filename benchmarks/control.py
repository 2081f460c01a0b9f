"""Runs beside the server, in its namespace: makes sessions by gRPC and reads its metrics.

One JSON command a line on stdin, one JSON answer a line on stdout:
  {"create": {"source": "ip:port", "first_ssrc": n, "sessions": n, "subscribers": ["ip:port", ...]}}
  {"counters": true}
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
            answer = (
                create(stub, order["create"]) if "create" in order else counters(options.metrics)
            )
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
