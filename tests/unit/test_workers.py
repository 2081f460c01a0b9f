"""The threads of the packet path."""

from __future__ import annotations

import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from procs import worker_threads
from structlog.testing import capture_logs
from support import eventually

from rtpfanout._fastpath import Engine, open_in_hand
from rtpfanout.errors import StartError
from rtpfanout.model import MOST_WORKERS, Address
from rtpfanout.workers import (
    APART_SECONDS,
    LONGEST_APART_SECONDS,
    Pinning,
    Workers,
    check_cpus,
    cpus_of,
    worker_count,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def engine_of(workers: int, busy_poll_us: int = 0) -> Engine:
    return Engine(
        Address.parse("127.0.0.1:0"),
        max_sessions=1,
        max_subscribers=1,
        receive_queue_packets=64,
        workers=workers,
        busy_poll_us=busy_poll_us,
    )


@contextmanager
def running(
    count: int, cpus: Sequence[int] = (), busy_poll_us: int = 0
) -> Iterator[tuple[Workers, threading.Event]]:
    ended = threading.Event()
    workers = Workers(engine_of(count, busy_poll_us), count, cpus, ended.set)
    workers.start()
    try:
        yield workers, ended
    finally:
        workers.stop()


def test_the_engine_takes_as_many_workers_as_can_be_configured_and_no_more() -> None:
    os.close(open_in_hand(MOST_WORKERS))
    with pytest.raises(OSError, match="Invalid argument"):
        open_in_hand(MOST_WORKERS + 1)


def tasks() -> dict[str, set[int]]:
    """The CPUs of each thread of this process named like a worker."""
    return {name: os.sched_getaffinity(task) for name, task in worker_threads(os.getpid()).items()}


def test_each_has_a_name_that_the_kernel_shows() -> None:
    with running(3) as (workers, ended):
        names = {f"rtp-worker-{index}" for index in range(3)}
        eventually(lambda: set(tasks()), lambda found: found == names, "three named threads")
        assert {"rtpfanout-worker-2"} < {thread.name for thread in threading.enumerate()}
        assert workers.are_alive
        assert not ended.is_set()
    assert not workers.are_alive
    assert not workers.failed
    assert ended.is_set()


def test_each_is_pinned_from_the_front_again() -> None:
    cpus = sorted(os.sched_getaffinity(0))[-2:]
    expected = {f"rtp-worker-{index}": {cpus[index % len(cpus)]} for index in range(3)}
    with running(3, cpus):
        eventually(tasks, lambda found: found == expected, f"{expected}")
    assert os.sched_getaffinity(0) >= set(cpus)


def test_the_death_of_one_is_told() -> None:
    with capture_logs() as log, running(2, [8191]) as (workers, ended):
        assert ended.wait(30)
        eventually(lambda: workers.failed, bool, "the failure")
        assert not workers.are_alive
    assert {entry["event"] for entry in log} == {"packet loop failed"}


def test_a_loop_that_returns_by_itself_is_a_failure() -> None:
    ended = threading.Event()
    engine = engine_of(1)
    workers = Workers(engine, 1, (), ended.set)
    with capture_logs() as log:
        workers.start()
        time.sleep(0.05)
        engine.stop()
        assert ended.wait(30)
    assert workers.failed
    assert log[0]["event"] == "packet loop returned without being told to"


def test_as_many_as_there_are_cpus_unless_told() -> None:
    assert worker_count(0) == min(64, len(os.sched_getaffinity(0)))
    assert worker_count(7) == 7


def test_each_has_a_cpu_of_its_own_where_there_is_one_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {7, 3, 5})
    assert list(cpus_of(0, ())) == [3, 5, 7]
    assert list(cpus_of(3, ())) == []
    assert list(cpus_of(0, (5,))) == [5]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3})
    assert list(cpus_of(0, ())) == []


def test_a_cpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    available = sorted(os.sched_getaffinity(0))
    check_cpus(available)
    with pytest.raises(StartError) as error:
        check_cpus([available[0], 8191])
    assert error.value.field == "worker_cpus"
    assert "CPU 8191" in error.value.message
    assert ", ".join(map(str, available)) in error.value.message


def test_one_that_polls_can_run_and_one_that_sleeps_can_not() -> None:
    with running(2) as (workers, _ended):
        eventually(lambda: workers.can_run(1), lambda can: not can, "a worker asleep")
    with running(1, busy_poll_us=60_000_000) as (workers, _ended):
        eventually(lambda: workers.can_run(0), bool, "a worker that polls")
    eventually(lambda: workers.can_run(0), lambda can: not can, "a worker that has ended")


SECOND = 10**9


def test_workers_leave_crowded_cpus_and_come_back() -> None:
    pinning, now, waited = Pinning(), 1.0, 7 * SECOND
    assert not pinning.look(0.0, (0, waited))  # what was before the first look means nothing
    waited += SECOND // 3
    assert not pinning.look(now, (0, waited))
    assert pinning.pinned
    apart = APART_SECONDS
    for _ in range(10):
        now += 1
        waited += SECOND
        assert pinning.look(now, (0, waited))
        assert not pinning.pinned
        assert not pinning.look(now + apart - 1, (0, waited))
        now += apart
        assert pinning.look(now, (0, waited))
        assert pinning.pinned
        apart = min(2 * apart, LONGEST_APART_SECONDS)


def test_after_an_hour_of_peace_workers_are_apart_for_a_minute_again() -> None:
    pinning = Pinning(_pause=LONGEST_APART_SECONDS)
    now = LONGEST_APART_SECONDS + 10
    pinning.look(now - 1, (0,))
    assert pinning.look(now, (SECOND,))
    assert pinning.look(now + APART_SECONDS, (SECOND,))


def test_without_figures_nothing_changes() -> None:
    pinning = Pinning()
    assert [pinning.look(now, ()) for now in range(100)] == [False] * 100


def test_workers_that_wait_for_their_cpus_may_use_all(monkeypatch: pytest.MonkeyPatch) -> None:
    available = os.sched_getaffinity(0)
    first = min(available)
    ended = threading.Event()
    workers = Workers(engine_of(2), 2, [first], ended.set, may_leave=True)
    waited = iter([(0, 0), (0, 10**15)])
    monkeypatch.setattr(workers, "_waited", lambda: next(waited))
    workers.start()
    try:
        eventually(lambda: list(tasks().values()), lambda cpus: cpus == [{first}] * 2, "pinned")
        workers.look_at_cpus()
        workers.look_at_cpus()
        assert list(tasks().values()) == [available] * 2
    finally:
        workers.stop()
