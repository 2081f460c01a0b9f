"""The synthetic RTP source of `send` and `demo`."""

import enum
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from rtpfanout.traffic import rtp

MIN_SIZE = rtp.MIN_HEADER + rtp.STAMP_SIZE
MAX_SIZE = 65_507
"""UDP payload over IPv4: 65,535 less the IP and UDP headers."""

Due = tuple[float, Callable[[], bytes]]
"""When a packet is due, in seconds from the start, and how to make it then."""

_PATTERN_PERIOD = 1 << 16
_PATTERN = random.Random(0).randbytes(_PATTERN_PERIOD) * 2  # noqa: S311 (a test pattern)


class Codec(enum.StrEnum):
    """What a real encoder can make."""

    H264 = "h264"
    H265 = "h265"
    VP8 = "vp8"
    OPUS = "opus"


@dataclass(frozen=True, slots=True)
class Stream:
    """What is asked of a real encoder; `size` is the longest packet, RTP header included."""

    codec: Codec
    ssrc: int
    payload_type: int
    frame_rate: float
    size: int


@dataclass(frozen=True)
class TestSource:
    """Frames of `burst` packets of `size` bytes, `frame_rate` times a second.

    `size` is the UDP payload, RTP header included. The first sequence number and
    time stamp are random, as RFC 3550 section 5.1 asks.
    """

    __test__ = False  # not a pytest class

    ssrc: int
    frame_rate: float
    burst: int
    size: int
    payload_type: int = 96
    first_sequence: int = field(default_factory=lambda: random.getrandbits(16))
    first_timestamp: int = field(default_factory=lambda: random.getrandbits(32))

    def packet(self, index: int, sent_ns: int) -> bytes:
        """The packet number `index`, stamped with its send time."""
        frame, place = divmod(index, self.burst)
        start = index * 7919 % _PATTERN_PERIOD
        pattern = _PATTERN[start : start + self.size - MIN_SIZE]
        return rtp.build(
            rtp.pack_stamp(rtp.Stamp(sent_ns, index)) + pattern,
            ssrc=self.ssrc,
            sequence=self.first_sequence + index,
            timestamp=self.first_timestamp + round(frame * rtp.CLOCK_RATE / self.frame_rate),
            payload_type=self.payload_type,
            marker=place == self.burst - 1,
        )

    def packets(self) -> Iterator[Due]:
        """All packets for ever; each is stamped when it is made."""
        for index in count():
            yield index // self.burst / self.frame_rate, partial(self._packet_now, index)

    def _packet_now(self, index: int) -> bytes:
        return self.packet(index, time.time_ns())
