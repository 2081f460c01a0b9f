"""Do copies get to a subscriber? What the kernel, the network and the receiver itself tell.

Nothing is kept of a subscriber: who is asked about is looked up in the kernel's tables, and in a
bounded one of ICMP errors. It informs, and changes nothing of what is forwarded.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from rtpfanout.reach.heard import HeardErrors
from rtpfanout.reach.icmp import Listener
from rtpfanout.reach.judging import Asked, Reached, State, judge
from rtpfanout.reach.ways import Way, find_ways

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rtpfanout.model import Address, IPAddress

    Question = tuple[IPAddress, IPAddress | None]

__all__ = ["Asked", "Reach", "Reached", "State"]

KEPT_SECS = 1.0
"""What the kernel said is not asked again so soon."""
MOST_KEPT = 4096


class Reach:
    """Thread-safe. `ports` are those that copies leave from: what is heard of others is ignored."""

    def __init__(
        self, ports: Iterable[int], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Hears of the network namespace of this thread."""
        self._ports = frozenset(ports)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._errors = HeardErrors()
        self._ways: dict[Question, Way] = {}
        self._read_at = 0.0
        self._listener = Listener()

    @property
    def deafness(self) -> str:
        """Why ICMP errors are not heard of; empty: they are."""
        return self._listener.fault

    def listen(self) -> None:
        """Takes what has come, of which only so much waits; to be called now and then."""
        with self._lock:
            now = self._monotonic()
            for error in self._listener.take():
                if error.port in self._ports:
                    self._errors.note(error, now)

    def refused(self) -> dict[Address, str]:
        """Where copies go that somebody says by ICMP, again and again, that they don't get to; what
        it says."""
        with self._lock:
            errors = self._errors.again(self._monotonic())
            return {to: heard.told.value for to, heard in errors.items()}

    def of(self, asked: Sequence[Asked]) -> list[Reached]:
        """Of each, as it is now. A question to the kernel for each address that it was not asked of
        within the last second."""
        self.listen()
        with self._lock:
            now = self._monotonic()
            ways = self._look([(each.address.ip, each.source) for each in asked], now)
            return [
                judge(each, way, self._errors.find(each.address), self.deafness, now)
                for each, way in zip(asked, ways, strict=True)
            ]

    def _look(self, asked: Sequence[Question], now: float) -> list[Way]:
        if now - self._read_at >= KEPT_SECS or len(self._ways) > MOST_KEPT:
            self._ways.clear()
            self._read_at = now
        new = [each for each in dict.fromkeys(asked) if each not in self._ways]
        with contextlib.suppress(OSError):  # nothing is known then
            self._ways.update(zip(new, find_ways(new), strict=True))
        return [self._ways.get(each, Way()) for each in asked]

    def close(self) -> None:
        """Nothing is heard any more."""
        with self._lock:
            self._listener.close()
