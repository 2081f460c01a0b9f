"""A worker that hangs, alone: the rest of its process lives, and another one takes its place."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from flow import Flow
from held import held
from procs import worker_threads
from support import SETTLE_SECONDS, ServerProcess, eventually, requires_root, udp_socket

from rtpfanout.api import session_pb2
from rtpfanout.supervisor.watching import EXIT_STUCK, STUCK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORKERS = 2
FLOWS = 16
"""Enough that the kernel gives some to each worker, but for one time in 30,000."""
IN_HAND_SECONDS = 0.5
"""How long before its worker was held, or ended, a packet may have been sent that was in hand
then, so that it may come twice: a turn is far shorter, but the machine may be busy."""
HOG = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.setpriority(os.PRIO_PROCESS, 0, -20)
while True:
    pass
"""


def last_logged(server: ServerProcess, event: str, count: int) -> dict[str, object]:
    """The entry of that name that makes them `count`."""
    return eventually(
        lambda: [entry for entry in list(server.log) if entry["event"] == event],
        lambda entries: len(entries) >= count,
        f"'{event}' is logged {count} times",
    )[count - 1]


def session_ids(server: ServerProcess) -> set[str]:
    listed = server.stub.ListSessions(session_pb2.ListSessionsRequest(limit=1000))
    return {session.session_id for session in listed.sessions}


@pytest.mark.parametrize("worker", range(WORKERS))
def test_a_worker_that_hangs(
    worker: int,
    start_server: Callable[..., ServerProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[..., None],
) -> None:
    requires_root()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    server = start_server(store__path=str(tmp_path / "store.db"), workers=WORKERS)
    first = server.pid
    with ExitStack() as stack:
        flows = [stack.enter_context(Flow(ssrc=n, per_second=50)) for n in range(FLOWS)]
        acknowledged = {server.create(flow.source, flow.ssrc, flow.viewer) for flow in flows}
        for flow in flows:
            flow.start(server.ingest)
        for flow in flows:
            eventually(lambda flow=flow: len(flow.got), bool, "packets flow")
        with held(worker_threads(first)[f"rtp-worker-{worker}"]):
            held_at = time.monotonic()
            # The control plane and the other workers are not held.
            acknowledged.add(server.create("127.0.0.2:5000", 7))
            stuck = last_logged(server, "packet loop is stuck, this process ends", 1)
            ended_at = time.monotonic()
            ready = last_logged(server, "ready", 2)
        ready_at = time.monotonic()
        assert stuck["worker"] == worker
        ended = last_logged(server, "server process ended, another one starts", 1)
        assert (ended["server_pid"], ended["pause_seconds"]) == (first, 0)
        assert str(EXIT_STUCK) in str(ended["reason"])
        assert ready["pid"] != first
        for flow in flows:
            eventually(lambda flow=flow: flow.got[-1][1], lambda at: at > ready_at, "flows again")
        with ThreadPoolExecutor(FLOWS) as pool:  # each waits until nothing comes any more
            list(pool.map(Flow.finish, flows))

    while_held = (held_at + IN_HAND_SECONDS, ended_at - IN_HAND_SECONDS)
    assert while_held[0] < while_held[1], "no time to see the others being served"
    served = [
        flow for flow in flows if any(while_held[0] < at < while_held[1] for _, at in flow.got)
    ]
    assert 0 < len(served) < FLOWS, "one worker was held, and the other was not"
    for flow in flows:
        assert flow.first_arrivals == list(range(len(flow.sent_at))), "lost, or out of order"
        for number in flow.doubled:
            died_with = ended_at if flow in served else held_at
            assert abs(flow.sent_at[number] - died_with) < IN_HAND_SECONDS, "it was only queued"
    record_property("seconds until it was noticed", round(ended_at - held_at, 2))
    record_property("seconds until another was ready", round(ready_at - ended_at, 2))
    record_property("packets doubled", sum(len(flow.doubled) for flow in flows))

    grpc.channel_ready_future(server.channel).result(SETTLE_SECONDS)
    assert session_ids(server) == acknowledged
    server.pid = int(str(ready["pid"]))
    assert not Path(f"/proc/{first}").exists()
    os.kill(server.pid, 0)


@contextmanager
def starved(task: int) -> Iterator[None]:
    """It may run only while nobody else wants its CPU, which somebody always does."""
    cpu = min(os.sched_getaffinity(task))
    os.sched_setscheduler(task, os.SCHED_IDLE, os.sched_param(0))
    others = subprocess.Popen([sys.executable, "-c", HOG, str(cpu)])
    try:
        yield
    finally:
        others.kill()
        others.wait()
        with suppress(ProcessLookupError):
            os.sched_setscheduler(task, os.SCHED_OTHER, os.sched_param(0))


@pytest.mark.timeout(300)
def test_a_worker_that_gets_no_cpu_is_not_stuck(start_server: Callable[..., ServerProcess]) -> None:
    """As beside a program of a higher priority: another server would fare no better."""
    requires_root()
    server = start_server(workers=1, worker_cpus=[min(os.sched_getaffinity(0))])
    task = worker_threads(server.pid)["rtp-worker-0"]
    silent_since, still = time.monotonic(), ran(task)
    with starved(task), udp_socket() as source:
        # The kernel gives it the share that its weight is worth, and holds what it has not used
        # against the others: so it gets as much to do as takes all of each moment it is given.
        deadline = time.monotonic() + 5 * SETTLE_SECONDS
        while time.monotonic() - silent_since < STUCK_SECONDS + 1.5:
            assert time.monotonic() < deadline, "it can't be kept from running here"
            for _ in range(2000):
                source.sendto(b"?", ("127.0.0.1", server.ingest.port))
            time.sleep(0.1)
            if (now := ran(task)) != still:
                silent_since, still = time.monotonic(), now
    events = [entry["event"] for entry in list(server.log)]
    assert "packet loop is stuck, this process ends" not in events
    assert worker_threads(server.pid)["rtp-worker-0"] == task


def ran(task: int) -> str:
    """How long it has run, how long it has waited for that, and how often."""
    return Path(f"/proc/{task}/schedstat").read_text()
