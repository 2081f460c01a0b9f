"""Pages of metrics: made in slices, once for all who want one, and given up when nobody does."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING

from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

Piece = bytes
"""A part of a page, in order; an empty one is a place to let others work."""

SLICE_SECONDS = 0.001
SHARE = 0.2
"""Of the event loop's time, for a page that is asked for without end."""
CREDIT_SECONDS = 0.1
"""Of making that is had before that share is kept to."""
REUSED_FOR = 20
"""Times what its making took: a small page is always new."""
KEPT_BYTES = 32 * 2**20
"""Of pages that readers are still at; beyond it the next ones get the last page that was made."""
_EOF = b"# EOF\n"


class Made:
    """A page as it is sent."""

    __slots__ = ("__weakref__", "at", "cost", "pieces", "size")

    def __init__(self, pieces: list[Piece], cost: float) -> None:
        self.pieces = pieces
        self.size = sum(map(len, pieces))
        self.cost = cost
        self.at = time.monotonic()


class Kitchen:
    """Where a page is made, in either format: one at a time, with a share of the event loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._spent = 0.0
        self._since = time.monotonic()

    async def make(self, pieces: Iterator[Piece], wanted: Callable[[], bool]) -> Made | None:
        """None when it is not `wanted` any more."""
        async with self._lock:
            await self._rest()
            found: list[Piece] = []
            cost = 0.0
            while wanted():
                began = time.perf_counter()
                ended = _slice(pieces, found, began + SLICE_SECONDS)
                took = time.perf_counter() - began
                cost += took
                self._spent += took
                if ended:
                    return Made(found, cost)
                await asyncio.sleep(took)
            return None

    async def _rest(self) -> None:
        now = time.monotonic()
        self._spent = max(0.0, self._spent - SHARE * (now - self._since))
        self._since = now
        if self._spent > CREDIT_SECONDS:
            await asyncio.sleep((self._spent - CREDIT_SECONDS) / SHARE)


class Page:
    """One page, for any number of askers.

    Who asks gets a page that was begun after he asked, or, within `reuse_secs` and REUSED_FOR
    times what it took, the last one.
    """

    def __init__(self, make: Callable[[], Iterator[Piece]], kitchen: Kitchen, reuse: float) -> None:
        """`reuse` in seconds."""
        self._make = make
        self._kitchen = kitchen
        self._reuse = reuse
        self._last: Made | None = None
        self._alive: weakref.WeakSet[Made] = weakref.WeakSet()
        self._askers: list[asyncio.Future[Made]] = []
        self._making: asyncio.Task[None] | None = None

    async def get(self) -> Made:
        """Cancelled, nothing is made for this asker any more."""
        if self._last and self._is_good(self._last):
            return self._last
        asker = asyncio.get_running_loop().create_future()
        self._askers.append(asker)
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._serve())
        made: Made = await asker
        return made

    def _is_good(self, made: Made) -> bool:
        if time.monotonic() - made.at < min(self._reuse, REUSED_FOR * made.cost):
            return True
        return sum(page.size for page in self._alive) > KEPT_BYTES

    async def _serve(self) -> None:
        while self._askers:
            askers, self._askers = self._askers, []
            try:
                made = await self._kitchen.make(self._make(), _waits(askers))
            except Exception as error:
                for asker in askers:
                    if not asker.done():
                        asker.set_exception(error)
                continue
            if made is None:
                continue
            if self._reuse:
                self._last = made
                self._alive.add(made)
            for asker in askers:
                if not asker.done():
                    asker.set_result(made)


def _waits(askers: list[asyncio.Future[Made]]) -> Callable[[], bool]:
    return lambda: any(not asker.done() for asker in askers)


def _slice(pieces: Iterator[Piece], found: list[Piece], until: float) -> bool:
    """Whether that was the last."""
    while (piece := next(pieces, None)) is not None:
        if piece:
            found.append(piece)
        if time.perf_counter() >= until:
            return False
    return True


def registry_page(registry: CollectorRegistry) -> Callable[[bool], Iterator[Piece]]:
    """What `registry` has, family by family."""

    def make(is_openmetrics: bool) -> Iterator[Piece]:
        encode = openmetrics.generate_latest if is_openmetrics else exposition.generate_latest
        for family in registry.collect():
            only = SimpleNamespace(
                collect=lambda one=family: [one]
            )  # as the encoders want a registry
            yield encode(only).removesuffix(_EOF)
        if is_openmetrics:
            yield _EOF

    return make
