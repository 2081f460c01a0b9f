"""Turns in the event loop: however many ask at a time, the others come to their work between."""

from __future__ import annotations

import asyncio
from collections import deque

AT_A_TIME = 4


class Turnstile:
    """Lets AT_A_TIME through for each round of the event loop, first come, first served."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._turns = False

    async def turn(self) -> None:
        """Returns when it is this one's turn."""
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._turns:
            self._turns = True
            loop.call_soon(self._let_through)
        await turn

    def _let_through(self) -> None:
        through = 0
        while self._waiting and through < AT_A_TIME:
            turn = self._waiting.popleft()
            if not turn.done():  # who has gone holds up nobody
                turn.set_result(None)
                through += 1
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._let_through)
        else:
            self._turns = False
