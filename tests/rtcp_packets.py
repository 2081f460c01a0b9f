"""RTCP as tests send and read it, written a second time and apart from the server's own."""

from __future__ import annotations

import struct
from typing import NamedTuple

SR, RR, SDES, BYE, APP, RTPFB, PSFB = range(200, 207)


def packet(kind: int, count: int, body: bytes) -> bytes:
    """With its header; the body is whole words."""
    assert len(body) % 4 == 0
    return struct.pack("!BBH", 0x80 | count, kind, len(body) // 4) + body


def sender_report(ssrc: int, rtp_time: int, ntp: int = 0xE0000000_80000001) -> bytes:
    """Without blocks."""
    return packet(SR, 0, struct.pack("!IQIII", ssrc, ntp, rtp_time & 0xFFFFFFFF, 7, 8400))


def cname(ssrc: int, text: str) -> bytes:
    """An SDES of one chunk."""
    item = bytes([1, len(text)]) + text.encode()
    return packet(SDES, 1, struct.pack("!I", ssrc) + item + bytes(4 - len(item) % 4))


def receiver_report(
    sender: int, ssrc: int, *, fraction: int = 0, lost: int = 0, lsr: int = 0, dlsr: int = 0
) -> bytes:
    """With one block."""
    block = struct.pack("!IIIIII", ssrc, fraction << 24 | lost & 0xFFFFFF, 65000, 90, lsr, dlsr)
    return packet(RR, 1, struct.pack("!I", sender) + block)


def pli(sender: int, ssrc: int) -> bytes:
    """RFC 4585 section 6.3.1."""
    return packet(PSFB, 1, struct.pack("!II", sender, ssrc))


def remb(sender: int, ssrc: int, bitrate: int) -> bytes:
    """draft-alvestrand-rmcat-remb-03; of the bitrate the first 18 bits."""
    exponent = max(0, bitrate.bit_length() - 18)
    words = (1 << 24) | exponent << 18 | bitrate >> exponent
    return packet(PSFB, 15, struct.pack("!II4sII", sender, 0, b"REMB", words, ssrc))


def bitrate_of(part: Part) -> int:
    """That a REMB names."""
    (words,) = struct.unpack("!I", part.body[12:16])
    return int((words & 0x3FFFF) << (words >> 18 & 63))


def nacked(part: Part) -> list[int]:
    """The sequence numbers that a NACK asks for (RFC 4585 section 6.2.1)."""
    found = []
    for at in range(8, len(part.body), 4):
        first, also = struct.unpack("!HH", part.body[at : at + 4])
        found += [first, *(first + bit + 1 for bit in range(16) if also >> bit & 1)]
    return [number & 0xFFFF for number in found]


def bye(ssrc: int) -> bytes:
    """Without a reason."""
    return packet(BYE, 1, struct.pack("!I", ssrc))


class Part(NamedTuple):
    """A packet of a datagram."""

    kind: int
    count: int
    body: bytes


def parts(datagram: bytes) -> list[Part]:
    """Its packets. Raises AssertionError where it is malformed."""
    found = []
    while datagram:
        first, kind, words = struct.unpack("!BBH", datagram[:4])
        assert first >> 6 == 2
        assert len(datagram) >= 4 * (words + 1)
        found.append(Part(kind, first & 31, datagram[4 : 4 * (words + 1)]))
        datagram = datagram[4 * (words + 1) :]
    return found
