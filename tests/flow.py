"""A paced stream of numbered packets through a server, and who notices each that is missing."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from support import address_of, rtp_packet, udp_socket

if TYPE_CHECKING:
    from types import TracebackType

    from rtpfanout.model import Address

_HEADER_BYTES = 12
_STAMP = struct.Struct("@ll")
_SO_TIMESTAMPNS = 35
_REST_SECONDS = 2.0


@dataclass
class Flow:
    """Use with `with`; `finish` ends the sending and waits for what is under way.

    `sent_at` has the time.monotonic() of each number, `got` (number, time) as the kernel had them:
    how busy this process is makes no gap.
    """

    ssrc: int = 1
    per_second: int = 500
    sent_at: list[float] = field(default_factory=list)
    got: list[tuple[int, float]] = field(default_factory=list)
    unsent: int = 0

    def __enter__(self) -> Self:
        self._source, self._viewer = udp_socket("127.0.0.1"), udp_socket("127.0.0.1")
        self._viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self._viewer.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self._viewer.settimeout(_REST_SECONDS)
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        return self

    @property
    def source(self) -> str:
        """Of the session."""
        return address_of(self._source)

    @property
    def viewer(self) -> str:
        """Its subscriber."""
        return address_of(self._viewer)

    def start(self, ingest: Address) -> None:
        """From here on packets are sent to `ingest`."""
        to = (str(ingest.ip), ingest.port)
        for target in (lambda: self._send(to), self._receive):
            self._threads.append(threading.Thread(target=target))
            self._threads[-1].start()

    def finish(self) -> None:
        """Returns when nothing has come for a while."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    @property
    def numbers(self) -> list[int]:
        """What came, in the order it came."""
        return [number for number, _ in self.got]

    @property
    def first_arrivals(self) -> list[int]:
        """The same, without what had come before."""
        return list(dict.fromkeys(self.numbers))

    @property
    def doubled(self) -> list[int]:
        """What came more than once."""
        return sorted(number for number, times in Counter(self.numbers).items() if times > 1)

    @property
    def missing(self) -> list[int]:
        """What was sent and never came."""
        return sorted(set(range(len(self.sent_at))) - set(self.numbers))

    def gap_around(self, moment: float) -> float:
        """Seconds between the last packet before `moment` and the first one after."""
        before = max((at for _, at in self.got if at <= moment), default=moment)
        after = min((at for _, at in self.got if at > moment), default=float("inf"))
        return after - before

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.finish()
        self._source.close()
        self._viewer.close()

    def _send(self, to: tuple[str, int]) -> None:
        begin = time.monotonic()
        while not self._ended.is_set():
            number = len(self.sent_at)
            self._ended.wait(max(0.0, begin + number / self.per_second - time.monotonic()))
            self.sent_at.append(time.monotonic())
            payload = number.to_bytes(8, "big")
            self._source.sendto(rtp_packet(self.ssrc, number & 0xFFFF, payload), to)

    def _receive(self) -> None:
        offset = time.time() - time.monotonic()
        while True:
            try:
                packet, control, *_ = self._viewer.recvmsg(100, socket.CMSG_SPACE(_STAMP.size))
            except TimeoutError:
                if self._ended.is_set():
                    return
                continue
            number = int.from_bytes(packet[_HEADER_BYTES:], "big")
            seconds, nanoseconds = _STAMP.unpack(control[0][2])
            self.got.append((number, seconds + nanoseconds / 1e9 - offset))
