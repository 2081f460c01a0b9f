"""RTP packets as the test tools build and read them (layer 1, standard library only).

The packet path has its own parser in C; this one serves `rtpfanout send`,
`recv`, `demo` and the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MIN_HEADER = 12
CLOCK_RATE = 90_000
"""Hz of the RTP time stamp of video (RFC 3551 section 5)."""

_FIXED_HEADER = struct.Struct("!BBHII")
_EXTENSION_HEADER = struct.Struct("!HH")
_STAMP = struct.Struct("!8sqQ")
_STAMP_MAGIC = b"rtpfan/1"

STAMP_SIZE = _STAMP.size
"""Bytes at the start of a test packet's payload: magic, send time, index."""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One parsed RTP packet (RFC 3550 section 5.1); `payload` is without padding."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    csrcs: tuple[int, ...]
    extension: tuple[int, bytes] | None
    padding: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a test packet says of itself: CLOCK_REALTIME ns at sending, and its index."""

    sent_ns: int
    index: int


def build(
    payload: bytes,
    *,
    ssrc: int,
    sequence: int,
    timestamp: int,
    payload_type: int = 96,
    marker: bool = False,
    csrcs: tuple[int, ...] = (),
    extension: tuple[int, bytes] | None = None,
    padding: int = 0,
) -> bytes:
    """One RTP packet; `sequence` and `timestamp` wrap at 16 and 32 bits.

    `extension` is a 16-bit profile number and a multiple of four bytes; `padding`
    counts 0 to 255 bytes with the count itself. Raises ValueError otherwise.
    """
    if not 0 <= payload_type <= 127:
        raise ValueError(f"payload type {payload_type} is not 0 to 127")
    if len(csrcs) > 15:
        raise ValueError(f"{len(csrcs)} CSRCs, RTP has room for 15")
    if not 0 <= padding <= 255:
        raise ValueError(f"padding of {padding} bytes is not 0 to 255")
    first = 0x80 | (0x20 if padding else 0) | (0x10 if extension else 0) | len(csrcs)
    parts = [
        _FIXED_HEADER.pack(
            first,
            (0x80 if marker else 0) | payload_type,
            sequence & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            ssrc,
        ),
        struct.pack(f"!{len(csrcs)}I", *csrcs),
    ]
    if extension:
        profile, data = extension
        if len(data) % 4:
            raise ValueError(f"header extension of {len(data)} bytes is not a multiple of 4")
        parts += [_EXTENSION_HEADER.pack(profile, len(data) // 4), data]
    parts.append(payload)
    if padding:
        parts.append(bytes(padding - 1) + bytes([padding]))
    return b"".join(parts)


def parse(packet: bytes) -> RtpPacket:
    """Read one datagram. Raises ValueError saying why it is not an RTP packet."""
    if len(packet) < MIN_HEADER:
        raise ValueError(f"{len(packet)} bytes are less than an RTP header")
    first, second, sequence, timestamp, ssrc = _FIXED_HEADER.unpack_from(packet)
    if first >> 6 != 2:
        raise ValueError(f"RTP version {first >> 6} is not 2")
    # RFC 5761 section 4: packet types 192 to 223 are RTCP on a shared port.
    if 192 <= second <= 223:
        raise ValueError(f"RTCP packet of type {second}")
    start = MIN_HEADER + 4 * (first & 0x0F)
    if start > len(packet):
        raise ValueError("the CSRC list reaches beyond the packet")
    csrcs = struct.unpack_from(f"!{first & 0x0F}I", packet, MIN_HEADER)
    extension = None
    if first & 0x10:
        start, extension = _parse_extension(packet, start)
    padding = packet[-1] if first & 0x20 else 0
    if first & 0x20 and not 1 <= padding <= len(packet) - start:
        raise ValueError(f"padding count {padding} does not fit the packet")
    return RtpPacket(
        payload_type=second & 0x7F,
        marker=second >= 0x80,
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        csrcs=csrcs,
        extension=extension,
        padding=padding,
        payload=packet[start : len(packet) - padding],
    )


def _parse_extension(packet: bytes, start: int) -> tuple[int, tuple[int, bytes]]:
    data = start + _EXTENSION_HEADER.size
    if data > len(packet):
        raise ValueError("the header extension reaches beyond the packet")
    profile, words = _EXTENSION_HEADER.unpack_from(packet, start)
    end = data + 4 * words
    if end > len(packet):
        raise ValueError("the header extension reaches beyond the packet")
    return end, (profile, packet[data:end])


def pack_stamp(stamp: Stamp) -> bytes:
    """The first `STAMP_SIZE` bytes of a test packet's payload."""
    return _STAMP.pack(_STAMP_MAGIC, stamp.sent_ns, stamp.index)


def read_stamp(payload: bytes) -> Stamp | None:
    """The stamp at the start of a payload, or None when it is not a test packet's."""
    if len(payload) < STAMP_SIZE:
        return None
    magic, sent_ns, index = _STAMP.unpack_from(payload)
    return Stamp(sent_ns, index) if magic == _STAMP_MAGIC else None
