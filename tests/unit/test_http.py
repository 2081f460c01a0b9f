"""The parts that keep strangers from taking what others need: without a server around them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from rtpfanout import acceptor as accepting
from rtpfanout.acceptor import Acceptor
from rtpfanout.crowd import SHARE, Claim, Crowd, origin_of
from rtpfanout.http import pages
from rtpfanout.http.pages import Kitchen, Page
from rtpfanout.http.turnstile import AT_A_TIME, Turnstile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOTS = 1000


class Connection:
    """One that remembers whether it was ended."""

    def __init__(self, origin: str, claim: Claim = Claim.NEVER_ASKED) -> None:
        self.origin = origin
        self.claim = claim
        self.ended = False

    def end(self) -> None:
        self.ended = True


def crowd_of(most: int) -> tuple[Crowd, list[None]]:
    """And one entry for each connection that had to make room."""
    ended: list[None] = []
    return Crowd(most, lambda: ended.append(None)), ended


def test_who_opens_many_ends_his_own_and_the_newest_stay() -> None:
    crowd, ended = crowd_of(40)
    honest = [Connection("10.0.0.1"), Connection("10.0.0.2")]
    many = [Connection("10.0.0.3") for _ in range(LOTS)]
    for one in (*honest, *many):
        crowd.came(one)
    assert not any(one.ended for one in honest)
    left = 40 // SHARE
    assert [one.ended for one in many] == [True] * (LOTS - left) + [False] * left
    assert len(crowd) == left + 2
    assert len(ended) == LOTS - left


def test_many_networks_together_leave_room_for_the_next() -> None:
    crowd, _ = crowd_of(8)
    for n in range(LOTS):
        newcomer = Connection(f"10.0.{n >> 8}.{n & 255}")
        crowd.came(newcomer)
        assert not newcomer.ended
        assert len(crowd) <= 8


def test_who_never_asked_goes_first_and_who_is_answered_last() -> None:
    crowd, _ = crowd_of(4)
    answered, idle, silent = (
        Connection("10.0.0.1", claim)
        for claim in (Claim.BEING_ANSWERED, Claim.IDLE, Claim.NEVER_ASKED)
    )
    for one in (answered, idle, silent):
        crowd.came(one)
    gone = []
    for n in range(4):
        crowd.came(Connection(f"10.0.1.{n}", Claim.BEING_ANSWERED))
        gone.append((answered.ended, idle.ended, silent.ended))
    assert gone == [
        (False, False, False),
        (False, False, True),
        (False, True, True),
        (True, True, True),
    ]


def test_who_asks_may_have_more_than_a_share_while_there_is_room() -> None:
    """A gateway with many callers behind it."""
    crowd, ended = crowd_of(4 * SHARE)
    gateway = [Connection("10.0.0.1", Claim.IDLE) for _ in range(4 * SHARE - 1)]
    for one in gateway:
        crowd.came(one)
    assert not ended
    honest = [Connection("10.0.0.2") for _ in range(3)]
    for one in honest:
        crowd.came(one)
    assert [one.ended for one in gateway[:3]] == [True, True, False]
    assert not any(one.ended for one in honest)


def test_who_has_gone_takes_no_room() -> None:
    crowd, ended = crowd_of(SHARE)
    for _ in range(LOTS):
        one = Connection("10.0.0.1")
        crowd.came(one)
        crowd.gone(one)
        crowd.gone(one)
    assert len(crowd) == len(ended) == 0


@pytest.mark.parametrize(
    ("peer", "origin"),
    [
        (("192.0.2.1", 1000), "192.0.2.1"),
        (("::ffff:192.0.2.1", 1000, 0, 0), "192.0.2.1"),
        (("2001:db8:1:2:3:4:5:6", 1000, 0, 0), "2001:db8:1:2::/64"),
        (("fe80::1%eth0", 1000, 0, 2), "fe80::/64"),
        (None, ""),
        ("", ""),
    ],
)
def test_an_origin_is_what_one_stranger_has(peer: object, origin: str) -> None:
    assert origin_of(peer) == origin


class Greeter(asyncio.Protocol):
    """Says a byte to who connects."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"!")


@pytest.fixture
def exhausted() -> Iterator[Callable[[], None]]:
    """Takes all descriptors that are left; the limits are lowered for it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []

    def exhaust() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (os.dup(0) + 20, before[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))

    yield exhaust
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for fd in taken:
        os.close(fd)


def test_without_a_descriptor_some_are_answered_and_the_log_gets_one_line(
    exhausted: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = []
    monkeypatch.setattr(accepting._log, "error", lambda event, **more: lines.append((event, more)))
    monkeypatch.setattr(accepting, "RETRY_SECONDS", 0.001)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            callers = [socket.socket() for _ in range(accepting.SPARE_DESCRIPTORS + 1)]
            acceptor = Acceptor(listener, crowd_of(100)[0], Greeter, "metrics_bind_address")
            exhausted()
            for caller in callers:
                caller.setblocking(False)
                await loop.sock_connect(caller, listener.getsockname())
            for caller in callers[:-1]:
                assert await asyncio.wait_for(loop.sock_recv(caller, 1), 30) == b"!"
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(callers[-1], 1), 0.1)
            for caller in callers[:-1]:
                caller.close()
            assert await asyncio.wait_for(loop.sock_recv(callers[-1], 1), 30) == b"!"
            callers[-1].close()
            acceptor.close()

    asyncio.run(run())
    ((event, more),) = lines
    assert event == "connections can't be accepted"
    assert more["reason"] == "Too many open files"


def test_others_come_to_their_work_between_turns() -> None:
    async def run() -> list[int]:
        turnstile, through, seen = Turnstile(), 0, []

        async def ask() -> None:
            nonlocal through
            await turnstile.turn()
            through += 1

        asking = [asyncio.create_task(ask()) for _ in range(10 * AT_A_TIME)]
        asking[0].cancel()
        while through < len(asking) - 1:
            await asyncio.sleep(0)
            seen.append(through)
        await asyncio.gather(*asking, return_exceptions=True)
        return seen

    seen = asyncio.run(run())
    assert all(after - before <= AT_A_TIME for before, after in itertools.pairwise(seen))


class Maker:
    """Makes pages of `pieces` pieces, each with the number of the making."""

    def __init__(self, pieces: int = 3) -> None:
        self.begun = self.ended = 0
        self.at_work = self.most_at_work = 0
        self._pieces = pieces

    def __call__(self) -> Iterator[bytes]:
        self.begun += 1
        number = self.begun
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            for _ in range(self._pieces):
                yield b""
                yield b"%d " % number
        finally:
            self.at_work -= 1
        self.ended += 1


def text(made: pages.Made) -> bytes:
    return b"".join(made.pieces)


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """One piece each."""
    monkeypatch.setattr(pages, "SLICE_SECONDS", 1e-9)


@pytest.mark.usefixtures("small_slices")
def test_a_page_is_made_once_for_all_who_ask_meanwhile_and_after_they_asked() -> None:
    async def run() -> None:
        maker = Maker()
        page = Page(maker, Kitchen(), reuse=0)
        first = [asyncio.create_task(page.get()) for _ in range(50)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert maker.begun == 1
        later = [asyncio.create_task(page.get()) for _ in range(50)]
        assert {text(made) for made in await asyncio.gather(*first)} == {b"1 1 1 "}
        assert {text(made) for made in await asyncio.gather(*later)} == {b"2 2 2 "}
        assert maker.most_at_work == 1
        assert maker.ended == 2

    asyncio.run(run())


def test_a_costly_page_is_good_for_others_and_a_cheap_one_always_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run(reuse: float) -> list[bytes]:
        page = Page(Maker(), Kitchen(), reuse)
        return [text(await page.get()) for _ in range(3)]

    monkeypatch.setattr(pages, "REUSED_FOR", 1e9)  # all are costly
    assert asyncio.run(run(3600)) == [b"1 1 1 "] * 3
    monkeypatch.setattr(pages, "REUSED_FOR", 0)
    assert asyncio.run(run(3600)) == [b"1 1 1 ", b"2 2 2 ", b"3 3 3 "]


@pytest.mark.usefixtures("small_slices")
def test_a_page_nobody_waits_for_is_given_up() -> None:
    async def run() -> None:
        maker = Maker(pieces=100_000_000)
        page = Page(maker, Kitchen(), reuse=0)
        askers = [asyncio.create_task(page.get()) for _ in range(5)]
        while not maker.at_work:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        for asker in askers:
            asker.cancel()
        while maker.at_work:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert maker.ended == 0

    asyncio.run(asyncio.wait_for(run(), 60))


def test_slow_readers_hold_a_bounded_number_of_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "REUSED_FOR", 0)
    monkeypatch.setattr(pages, "KEPT_BYTES", 20)  # a page has six

    async def run() -> set[bytes]:
        page = Page(Maker(), Kitchen(), reuse=3600)
        return {text(made) for made in [await page.get() for _ in range(100)]}

    assert len(asyncio.run(run())) == 4


def test_a_page_that_cannot_be_made_hurts_those_who_asked_and_nobody_after() -> None:
    async def run() -> None:
        broken = True

        def make() -> Iterator[bytes]:
            if broken:
                raise RuntimeError("a fault in a collector")
            yield b"fine"

        page = Page(make, Kitchen(), reuse=0)
        with pytest.raises(RuntimeError, match="a fault in a collector"):
            await page.get()
        broken = False
        assert text(await page.get()) == b"fine"

    asyncio.run(run())
