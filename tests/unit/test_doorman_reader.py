"""The doorman's reader and its work: in turns, bounded, and ended by closing."""

from __future__ import annotations

import asyncio
import os
import threading
import time

from doorman_scene import FakeEngine

from rtpfanout.doorman.reader import BUSY_BATCH, Reader
from rtpfanout.doorman.work import Work


def test_work_is_bounded_and_in_order_by_key():
    work = Work(threads=2, depth=50)
    done = []
    gate = threading.Event()
    assert work.submit(0, gate.wait)
    for n in range(49):
        assert work.submit(0, lambda n=n: done.append(n))
    assert not work.submit(0, lambda: done.append("too many"))
    gate.set()
    work.stop()
    assert done == list(range(49))
    assert work.submit(0, lambda: done.append("again")), "there is room again"
    work.stop()
    assert done[-1] == "again"


async def _read(engine, handle, put, seconds=0.0):
    reader = Reader(engine.fd, engine.notices, handle, asyncio.get_running_loop())
    await put()
    await asyncio.sleep(seconds)
    reader.close()


def test_the_reader_takes_all_notices_and_lets_calls_in_between():
    engine = FakeEngine(os.eventfd(0, os.EFD_NONBLOCK))
    seen, ticks = [], []

    def handle(notice):
        seen.append(notice)
        time.sleep(0.0001)

    async def put():
        for start in range(0, 4 * BUSY_BATCH, BUSY_BATCH):
            engine.waiting += range(start, start + BUSY_BATCH)
            os.eventfd_write(engine.fd, 1)
            while len(seen) < start + BUSY_BATCH:
                await asyncio.sleep(0)
                ticks.append(len(seen))

    begin = time.perf_counter()
    asyncio.run(_read(engine, handle, put))
    took = time.perf_counter() - begin
    os.close(engine.fd)
    assert seen == list(range(4 * BUSY_BATCH))
    assert any(0 < n % BUSY_BATCH < BUSY_BATCH for n in ticks), "calls got their turn"
    assert took > 3 * 2 * BUSY_BATCH * 0.0001, "it rests after large batches"


def test_a_reader_may_rest_after_large_batches_only():
    engine = FakeEngine(os.eventfd(0, os.EFD_NONBLOCK))
    seen = []

    async def batches(size, rests_after):
        loop = asyncio.get_running_loop()
        rests = []
        real = loop.call_later
        loop.call_later = lambda delay, *rest: (rests.append(delay), real(delay, *rest))[1]
        reader = Reader(engine.fd, engine.notices, seen.append, loop, rests_after=rests_after)
        engine.waiting = list(range(size))
        os.eventfd_write(engine.fd, 1)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(seen) == size
        reader.close()
        seen.clear()
        return len(rests)

    assert asyncio.run(batches(BUSY_BATCH - 1, BUSY_BATCH)) == 0
    assert asyncio.run(batches(BUSY_BATCH, BUSY_BATCH)) == 1
    assert asyncio.run(batches(1, 1)) == 1
    os.close(engine.fd)


def test_a_closed_reader_handles_nothing_more():
    engine = FakeEngine(os.eventfd(0, os.EFD_NONBLOCK))
    seen = []

    async def main():
        reader = Reader(engine.fd, engine.notices, seen.append, asyncio.get_running_loop())
        engine.waiting = list(range(300))
        os.eventfd_write(engine.fd, 1)
        for _ in range(1000):
            await asyncio.sleep(0)
            if seen:
                break
        reader.close()
        count = len(seen)
        await asyncio.sleep(0.05)
        assert len(seen) == count

    asyncio.run(main())
    os.close(engine.fd)
