"""Packets on their way when they are due, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

    from rtpfanout.model import Address
    from rtpfanout.traffic.moving import MovingSocket
    from rtpfanout.traffic.source import Due
    from rtpfanout.traffic.stopping import StopFlag

PROGRESS_SECONDS = 0.5


@dataclass
class Sent:
    """What a sender has done so far; `max_lag` is the latest behind schedule, seconds."""

    packets: int = 0
    bytes: int = 0
    failed: int = 0
    last_failure: str = ""
    seconds: float = 0.0
    max_lag: float = 0.0

    @property
    def rate(self) -> float:
        return self.packets / self.seconds if self.seconds else 0.0


class Sender:
    """Sends packets when they are due, by absolute deadlines so that no delay adds up."""

    def __init__(
        self,
        udp: socket.socket | MovingSocket,
        target: Address,
        packets: Iterator[Due],
        progress: Callable[[Sent], object] | None = None,
    ) -> None:
        """`progress` is told twice a second what was sent so far."""
        self.sent = Sent()
        self._udp = udp
        self._to = target.sockaddr
        self._packets = packets
        self._progress = progress
        self._next_progress = 0.0

    def run(self, stop: StopFlag, limit: int | None, duration: float | None) -> None:
        """Send until stopped, `limit` packets, `duration` seconds or the last packet."""
        begin = time.monotonic()
        for due, make in islice(self._packets, limit):
            if duration is not None and due >= duration:
                stop.sleep_until(begin + duration)
                break
            if not stop.sleep_until(begin + due):
                break
            now = time.monotonic()
            self.sent.max_lag = max(self.sent.max_lag, now - begin - due)
            self._send(make())
            self.sent.seconds = time.monotonic() - begin
            if self._progress and now >= self._next_progress:
                self._next_progress = now + PROGRESS_SECONDS
                self._progress(self.sent)
        self.sent.seconds = time.monotonic() - begin

    def _send(self, packet: bytes) -> None:
        try:
            self._udp.sendto(packet, self._to)
        except OSError as error:
            self.sent.failed += 1
            self.sent.last_failure = error.strerror or str(error)
        else:
            self.sent.packets += 1
            self.sent.bytes += len(packet)
