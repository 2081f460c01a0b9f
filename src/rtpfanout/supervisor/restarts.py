"""How soon a server that died is followed by another."""

from __future__ import annotations

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before the fourth restart in a row, doubling; AT_ONCE of them are at once."""
AT_ONCE = 3
HEALTHY_SECONDS = 1.0
"""A server that was ready and lived so long is replaced at once, whatever was before."""


class Restarts:
    """Counts those in a row."""

    def __init__(self) -> None:
        self._in_a_row = 0

    def pause(self, was_ready: bool, lived: float) -> float:
        """Seconds before the next one; the last was ready or not, and lived for `lived` seconds."""
        healthy = was_ready and lived >= HEALTHY_SECONDS
        self._in_a_row = 1 if healthy else self._in_a_row + 1
        if self._in_a_row <= AT_ONCE:
            return 0.0
        return min(FIRST_PAUSE * 2.0 ** min(self._in_a_row - AT_ONCE - 1, 16), LONGEST_PAUSE)
