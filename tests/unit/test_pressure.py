"""Samples of the engine and the process, also where there is nothing left to take them with."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rtpfanout import descriptors, pressure
from rtpfanout._fastpath import Engine
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterator


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def engine() -> Engine:
    return Engine(
        Address.parse("127.0.0.1:0"), max_sessions=1, max_subscribers=1, receive_queue_packets=64
    )


@pytest.fixture
def limits_as_they_were() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_sample_takes_no_descriptor(engine: Engine, limits_as_they_were: tuple[int, int]) -> None:
    sampling = pressure.Pressure(engine)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits_as_they_were[1]))
        with pytest.raises(OSError, match="Too many open files"):
            os.open("/proc/self/statm", os.O_RDONLY)
        sample = sampling.sample()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits_as_they_were)
    assert sample.memory_bytes > 2**20


def test_where_the_kernel_tells_no_memory_there_are_samples(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "_STATM", Path("/proc/self/no-such-file"))
    assert pressure.Pressure(engine).sample().memory_bytes == 0


def test_a_sample_holds_one_descriptor_for_as_long_as_it_is_used(engine: Engine) -> None:
    before = open_files()
    sampling = pressure.Pressure(engine)
    assert open_files() == before + 1
    del sampling
    assert open_files() == before


def test_the_soft_limit_is_raised_to_the_hard_one(limits_as_they_were: tuple[int, int]) -> None:
    _, hard = limits_as_they_were
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard // 2, hard))
    descriptors.raise_limit()
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


@pytest.mark.parametrize("limit", [256, 1024, 20_000])
def test_connections_leave_descriptors_for_others(
    limit: int, limits_as_they_were: tuple[int, int]
) -> None:
    if limits_as_they_were[1] < limit:
        pytest.skip(f"no more than {limits_as_they_were[1]} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limits_as_they_were[1]))
    used = open_files()
    shares = descriptors.shares()
    assert shares.http >= descriptors._LEAST
    assert shares.api >= descriptors._LEAST
    assert used + shares.http + 2 * shares.api <= limit - (limit - used) // 5


def test_without_a_limit_there_is_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _which: unlimited)
    shares = descriptors.shares()
    assert shares.http == descriptors.MOST_HTTP_CONNECTIONS
    assert shares.api == descriptors.MOST_API_CONNECTIONS
