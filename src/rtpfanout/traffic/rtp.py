"""RTP packets as the test tools build and read them (layer 1, standard library only).

The packet path has its own parser in C; this one serves `rtpfanout send`,
`recv`, `demo` and the tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

VERSION = 2
MIN_HEADER = 12
CLOCK_RATE = 90_000
"""Hz of the RTP time stamp of video (RFC 3551 section 5)."""

_FIXED_HEADER = struct.Struct("!BBHII")
_EXTENSION_HEADER = struct.Struct("!HH")
_STAMP = struct.Struct("!8sqQ")
_STAMP_MAGIC = b"rtpfan/1"

# Packet types of RTCP, and the words of a report without its blocks.
_REPORT_WORDS = {200: 6, 201: 1}
_DESCRIPTION, _BYE, _APPLICATION, _FEEDBACK, _EXTENDED = 202, 203, 204, (205, 206), 207

STAMP_SIZE = _STAMP.size
"""Bytes at the start of a test packet's payload: magic, send time, index."""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One parsed RTP packet (RFC 3550 section 5.1).

    `payload` is without padding, as far as that can be told: in SRTP the count of it is encrypted
    (RFC 3711 section 3.1), and `padding` is 0 where it does not fit.
    """

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


def parse(packet: bytes, *, strict: bool = True) -> RtpPacket:
    """Read one datagram. Raises ValueError saying why it is not an RTP packet.

    By default as RFC 3550 A.1 and RFC 5761 have it. Not `strict` is for whatever a sender may
    mean by RTP: SRTP, whose padding count is encrypted, and payload types 64 to 95 with the marker.
    """
    if len(packet) < MIN_HEADER:
        raise ValueError(f"{len(packet)} bytes are less than an RTP header")
    first, second, sequence, timestamp, ssrc = _FIXED_HEADER.unpack_from(packet)
    if first >> 6 != VERSION:
        raise ValueError(f"RTP version {first >> 6} is not {VERSION}")
    # RFC 5761 section 4: packet types 192 to 223 are RTCP on a shared port.
    if 192 <= second <= 223 and (strict or _is_rtcp(packet)):
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
        if strict:
            raise ValueError(f"padding count {padding} does not fit the packet")
        padding = 0
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


def is_report(packet: bytes) -> bool:
    """Whether it is RTCP; see `parse`."""
    return len(packet) >= 4 and 192 <= packet[1] <= 223 and _is_rtcp(packet)


def _is_rtcp(packet: bytes) -> bool:
    """Whether it is RTCP (RFC 3550 section 6.4.1) though RTP of payload types 64 to 95 with the
    marker set has the same second byte: that has not a count and a length that agree, but for one
    number in 65,536. Taken for RTP are types of RTCP beyond RFC 3611.
    """
    count, kind, words = packet[0] & 0x1F, packet[1], int.from_bytes(packet[2:4], "big")
    if kind in _REPORT_WORDS:
        agrees = words == _REPORT_WORDS[kind] + 6 * count
        # SRTCP (RFC 3711 section 3.4): what is behind the sender is encrypted, and a tag follows.
        return agrees and (_is_chain(packet) or len(packet) % 4 == 2)
    if kind in (_DESCRIPTION, _BYE):
        agrees = words >= count > 0 or words == count == 0
    elif kind == _APPLICATION:
        agrees = words >= 2 and packet[8:12].isalnum()
    elif kind in _FEEDBACK:
        agrees = words >= 2 and count > 0
    else:
        agrees = kind == _EXTENDED and words >= 1 and 1 <= packet[8] <= 40
    return agrees and _is_chain(packet)


def _is_chain(packet: bytes) -> bool:
    """RTCP packets one behind the other, of which the last ends where the datagram does."""
    at = 0
    while at + 4 <= len(packet):
        if packet[at] >> 6 != VERSION or not 192 <= packet[at + 1] <= 223:
            return False
        at += 4 * (int.from_bytes(packet[at + 2 : at + 4], "big") + 1)
    return at == len(packet)


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
