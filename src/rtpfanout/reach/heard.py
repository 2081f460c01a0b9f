"""Of which addresses ICMP errors came, and since when, in a table with bounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.model import Address, IPAddress
    from rtpfanout.reach.icmp import IcmpError, Told

MOST_ONCE = 1024
MOST_AGAIN = 4096
STALE_SECS = 30.0
"""Without another for so long, while copies leave, it is over. A host with many such ports says so
once a second for all of them together (icmp_ratelimit of icmp(7))."""


@dataclass(slots=True)
class Heard:
    """The last one of an address; seconds of CLOCK_MONOTONIC."""

    told: Told
    by: IPAddress
    first: float
    last: float


class HeardErrors:
    """By the address that copies left to.

    One of which only one error came makes room for newcomers, so who forges them for addresses that
    he makes up pushes out none that goes on being heard.
    """

    def __init__(self) -> None:
        self._once: dict[Address, Heard] = {}
        self._again: dict[Address, Heard] = {}

    def note(self, error: IcmpError, now: float) -> None:
        """It has come."""
        to = error.destination
        before = self._again.pop(to, None) or self._once.pop(to, None)
        if before is None or now - before.last > STALE_SECS:
            _put(self._once, to, Heard(error.told, error.by, now, now), MOST_ONCE)
        else:
            heard = Heard(error.told, error.by, before.first, now)
            _put(self._again, to, heard, MOST_AGAIN)

    def find(self, to: Address) -> Heard | None:
        """What was heard last."""
        return self._again.get(to) or self._once.get(to)

    def again(self, now: float) -> dict[Address, Heard]:
        """Of which errors go on coming."""
        return {to: heard for to, heard in self._again.items() if now - heard.last <= STALE_SECS}

    def __len__(self) -> int:
        return len(self._once) + len(self._again)


def _put(table: dict[Address, Heard], to: Address, heard: Heard, most: int) -> None:
    """In the place of the one that was heard of longest ago, where all are taken."""
    if len(table) >= most:
        del table[next(iter(table))]
    table[to] = heard
