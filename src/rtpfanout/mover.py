"""A source that tells the server its new address, signed, until the server confirms.

Without input or output, as `receiver.Membership`: the datagrams have to leave by the
socket that RTP leaves by, for the server takes their source address.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rtpfanout import signed
from rtpfanout.errors import of_denial
from rtpfanout.signed import Answer, Reason

if TYPE_CHECKING:
    from rtpfanout.errors import RtpFanoutError

FIRST_RETRY_SECS = 0.1
LONGEST_RETRY_SECS = 2.0

_TEXTS = {
    Reason.EXPIRED: "the server refused the move",
    Reason.LIMIT: "the server refused the move",
    Reason.NO_SESSION: "the session is gone, or several have this SSRC and move key",
    Reason.UNAVAILABLE: "the server cannot store the move at the moment",
    Reason.ADDRESS: "the server does not take this address as the session's source",
}


class Mover:
    """Say `move`; then send what `poll` returns and hand it what comes, until `is_done`.

    Every try is signed anew with a greater counter: microseconds of Unix time, so that it
    grows over restarts too. The clock may be 30 s off the server's at the most.
    """

    def __init__(self, key: bytes, ssrc: int, *, unix_ns: Callable[[], int] = time.time_ns) -> None:
        """Raises ValueError unless the key has 16 to 64 bytes."""
        if len(key) not in signed.MOVE_KEY_BYTES:
            raise ValueError(f"a move key has 16 to 64 bytes, not {len(key)}")
        self.is_done = True
        self.error: RtpFanoutError | None = None
        self._key = key
        self._ssrc = ssrc
        self._unix_ns = unix_ns
        self._counter = 0
        self._first_counter = 0
        self._next = 0.0
        self._retry_secs = FIRST_RETRY_SECS

    def move(self, now: float) -> None:
        """The address has changed, or may have: the next `poll` tells the server."""
        self.is_done = False
        self.error = None
        self._next = now
        self._retry_secs = FIRST_RETRY_SECS
        self._first_counter = self._counter + 1

    def poll(self, now: float) -> bytes | None:
        """What is to be sent at `now` (monotonic seconds), if anything."""
        if self.is_done or now < self._next:
            return None
        self._next = now + self._retry_secs
        self._retry_secs = min(2 * self._retry_secs, LONGEST_RETRY_SECS)
        unix_ns = self._unix_ns()
        self._counter = max(self._counter + 1, unix_ns // 1000)
        return signed.build_move(
            self._key, ssrc=self._ssrc, counter=self._counter, time_ms=unix_ns // 1_000_000
        )

    def receive(self, data: bytes) -> bool:
        """True if it was the server's answer to a try of this move."""
        if self.is_done:
            return False
        try:
            answer = Answer.parse(data)
        except ValueError:
            return False
        counter = int.from_bytes(answer.nonce)
        if not self._first_counter <= counter <= self._counter:
            return False
        if not answer.is_signed_with(self._key):
            return False
        # What can't be stored now is tried on.
        self.is_done = answer.reason is not Reason.UNAVAILABLE
        self.error = None
        if answer.reason is not None:
            self.error = of_denial(answer.reason.name)(_TEXTS[answer.reason])
        return True
