"""Who works next, and how much of a connection streams may hold."""

from __future__ import annotations

import asyncio

import pytest

from rtpfanout.errors import LimitError
from rtpfanout.service.turns import STREAMS_PER_CONNECTION, Streams, Turns


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_connections_are_served_one_after_the_other() -> None:
    async def run() -> list[str]:
        turns, order = Turns(1), []

        async def call(connection: str, name: str) -> None:
            await turns.take(connection)
            order.append(name)

        await turns.take("somebody")
        calls = [asyncio.create_task(call("greedy", f"greedy {n}")) for n in range(4)]
        await settle()
        calls += [asyncio.create_task(call("modest", "modest"))]
        await settle()
        for _ in range(5):
            turns.give()
            await settle()
        await asyncio.gather(*calls)
        return order

    assert asyncio.run(run()) == ["greedy 0", "modest", "greedy 1", "greedy 2", "greedy 3"]


def test_there_are_never_more_at_work_than_turns() -> None:
    async def run() -> int:
        turns, working, most = Turns(3), 0, 0

        async def call(n: int) -> None:
            nonlocal working, most
            await turns.take(str(n % 4))
            working += 1
            most = max(most, working)
            await asyncio.sleep(0)
            working -= 1
            turns.give()

        await asyncio.gather(*(call(n) for n in range(100)))
        assert working == 0
        return most

    assert asyncio.run(run()) == 3


def test_who_gives_up_leaves_nothing_behind_and_loses_no_turn() -> None:
    async def run() -> None:
        turns = Turns(1)
        await turns.take("a")
        for n in range(50):
            waiting = [asyncio.create_task(turns.take(f"b{n}")) for _ in range(3)]
            await settle()
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        assert not turns._waiting
        late = asyncio.create_task(turns.take("c"))
        await settle()
        turns.give()  # its turn has come,
        late.cancel()  # and at this very moment it gives up
        await asyncio.gather(late, return_exceptions=True)
        await asyncio.wait_for(turns.take("d"), 5)

    asyncio.run(run())


def test_streams_are_bounded_for_each_connection() -> None:
    streams = Streams()
    held = [streams.one_more("ipv4:192.0.2.1:1000") for _ in range(STREAMS_PER_CONNECTION)]
    for one in held:
        one.__enter__()
    with pytest.raises(LimitError, match="another connection"):
        streams.one_more("ipv4:192.0.2.1:1000").__enter__()
    with streams.one_more("ipv4:192.0.2.1:1001"):
        pass
    held.pop().__exit__(None, None, None)
    with streams.one_more("ipv4:192.0.2.1:1000"):
        pass
    for one in held:
        one.__exit__(None, None, None)
    assert not streams._open


def test_callers_by_the_unix_socket_cannot_be_told_apart() -> None:
    streams = Streams()
    for _ in range(2 * STREAMS_PER_CONNECTION):
        streams.one_more("unix:").__enter__()
