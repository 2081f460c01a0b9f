"""Packets for a connection that may be slow: whole frames go or are left out, and are counted.

No sockets here. A decoder is worse off with half a frame than without it; and what is not written
takes no memory, however long nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rtpfanout.rtsp.wire import frame_head

QUEUE_BYTES = 1 << 20
"""Ahead of a client, beyond what its socket holds: no frame is begun any more."""
MOST_QUEUES = 2
"""As often that, and one that was begun is not ended either."""

_LEAST_RTP_BYTES = 12
_RTCP_TYPES = range(192, 224)
"""The second byte, where RTP and RTCP come to one port (RFC 5761 section 4)."""
_FRAME_OF = slice(4, 12)
"""Timestamp and SSRC: what packets of a frame have in common (RFC 3550 section 5.1)."""


@dataclass(slots=True)
class Dropped:
    """What was left out."""

    frames: int = 0
    packets: int = 0


class Outlet:
    """Of one track. `channels` are those of RTP and RTCP."""

    def __init__(
        self, channels: tuple[int, int], dropped: Dropped, queue_bytes: int = QUEUE_BYTES
    ) -> None:
        self._channels = channels
        self._queue_bytes = queue_bytes
        self._most_bytes = MOST_QUEUES * queue_bytes
        self._dropped = dropped
        self._frame = b""
        self._is_dropping = False

    def write(self, packets: Iterable[bytes], queued: int) -> bytes:
        """What to write of these to a connection that has `queued` bytes to write already."""
        out = bytearray()
        for packet in packets:
            is_rtcp = is_rtcp_packet(packet)
            if self._passes(packet, queued + len(out), is_rtcp=is_rtcp):
                out += frame_head(self._channels[is_rtcp], len(packet)) + packet
            else:
                self._dropped.packets += 1
        return bytes(out)

    def _passes(self, packet: bytes, queued: int, *, is_rtcp: bool) -> bool:
        if is_rtcp:
            return queued < self._most_bytes
        if len(packet) < _LEAST_RTP_BYTES:
            return False
        frame = packet[_FRAME_OF]
        if frame != self._frame:
            self._frame = frame
            self._is_dropping = queued >= self._queue_bytes
            self._dropped.frames += self._is_dropping
        elif queued >= self._most_bytes and not self._is_dropping:
            self._is_dropping = True
            self._dropped.frames += 1
        return not self._is_dropping


def is_rtcp_packet(packet: bytes) -> bool:
    """Whether what came to a port of both is RTCP."""
    return len(packet) >= 2 and packet[0] >> 6 == 2 and packet[1] in _RTCP_TYPES


def split(data: bytes | memoryview, segment: int) -> list[bytes]:
    """What UDP_GRO has put together; `segment` 0: nothing."""
    size = segment or len(data) or 1
    return [bytes(data[at : at + size]) for at in range(0, len(data), size)]
