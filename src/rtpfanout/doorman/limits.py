"""How much may be verified and answered, in bounded memory whoever asks."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.model import Address


class AddressBuckets:
    """A bucket for each address, in a table of fixed size.

    Addresses that share a slot share its rate. Python's hash of an address is keyed per
    process, so nobody chooses with whom.
    """

    def __init__(self, per_second: float, burst: float, slots: int = 1 << 16) -> None:
        self._per_second = per_second
        self._burst = burst
        self._mask = slots - 1
        self._left = array("d", [burst]) * slots
        self._at = array("d", [0.0]) * slots

    def take(self, address: Address, now: float) -> bool:
        """False when this address asks for more than its rate."""
        slot = hash(address) & self._mask
        left = self._left[slot] + (now - self._at[slot]) * self._per_second
        left = min(self._burst, left)
        self._at[slot] = now
        if left < 1.0:
            self._left[slot] = left
            return False
        self._left[slot] = left - 1.0
        return True
