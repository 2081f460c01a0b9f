"""TopSessions: one pass over all sessions for all who look within a second."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout import convert
from rtpfanout.api import session_pb2 as pb
from rtpfanout.errors import InvalidArgumentError
from rtpfanout.model import shown
from rtpfanout.sessions import label_selector_of, matches, page_size
from rtpfanout.sessions.ranking import ATTENTION, LEAST_FIRST, SORTS, STATES, Choice, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.sessions import Glance, Overview

FRESH_SECONDS = 0.9
LONGEST_WORDS = 256
_AT_A_TIME = 128  # so that the event loop is held for a millisecond or two


@dataclass(eq=False)
class Top:
    """For one event loop."""

    overview: Overview

    def __post_init__(self) -> None:
        self._lock = asyncio.Lock()
        self._glances: Sequence[Glance] = ()
        self._read_at = -FRESH_SECONDS

    async def answer(self, request: pb.TopSessionsRequest) -> pb.TopSessionsResponse:
        """Raises InvalidArgumentError."""
        selector = label_selector_of(request.label_selector)
        choice, order_by, limit = _choice(request), _order(request), page_size(request.limit)
        total = attention = subscribers = 0
        bitrate = 0.0
        found: list[Glance] = []
        for number, glance in enumerate(await self._fresh(), 1):
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
            if selector and not matches(glance.labels, selector):
                continue
            total += 1
            attention += state_of(glance) in ATTENTION
            bitrate += glance.figures.bitrate_bps if glance.figures else 0
            subscribers += glance.subscribers
            if choice.holds(glance):
                found.append(glance)
        found.sort(key=SORTS[order_by], reverse=request.reverse is (order_by in LEAST_FIRST))
        return pb.TopSessionsResponse(
            sessions=map(convert.figures_message, found[:limit]),
            total=total,
            matched=len(found),
            attention=attention,
            bitrate_bps=bitrate,
            subscribers=subscribers,
        )

    async def _fresh(self) -> Sequence[Glance]:
        async with self._lock:
            if time.monotonic() - self._read_at >= FRESH_SECONDS:
                found = []
                for glance in self.overview.glances():
                    found.append(glance)
                    if len(found) % _AT_A_TIME == 0:
                        await asyncio.sleep(0)
                self._glances, self._read_at = found, time.monotonic()
                asyncio.get_running_loop().call_later(10 * FRESH_SECONDS, self._forget)
            return self._glances

    def _forget(self) -> None:
        """Nobody has looked lately."""
        if time.monotonic() - self._read_at >= 5 * FRESH_SECONDS:
            self._glances, self._read_at = (), -FRESH_SECONDS


def _choice(request: pb.TopSessionsRequest) -> Choice:
    if len(request.words) > LONGEST_WORDS:
        raise InvalidArgumentError(
            f"{len(request.words)} characters, and {LONGEST_WORDS} at the most", field="words"
        )
    if request.state not in STATES:
        states = ", ".join(filter(None, STATES))
        raise InvalidArgumentError(
            f"{shown(request.state)} is no state; there are {states}", field="state"
        )
    return Choice(tuple(request.words.casefold().split()), request.state)


def _order(request: pb.TopSessionsRequest) -> str:
    order_by = request.order_by or "state"
    if order_by not in SORTS:
        raise InvalidArgumentError(
            f"{shown(order_by)} is no order; there are {', '.join(SORTS)}", field="order_by"
        )
    return order_by
