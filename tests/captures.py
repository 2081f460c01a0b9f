"""Capture files and their frames, built byte by byte for the tests that read them."""

from __future__ import annotations

import struct

MICROSECONDS, NANOSECONDS = 0xA1B2C3D4, 0xA1B23C4D


def udp(payload: bytes, source_port: int = 4000) -> bytes:
    """A UDP datagram."""
    return struct.pack("!HHHH", source_port, 5004, 8 + len(payload), 0) + payload


def ip4(data: bytes, *, number: int = 1, offset: int = 0, more: bool = False) -> bytes:
    """`data` of UDP in an IPv4 packet, or a fragment of it that begins at byte `offset`."""
    flags = offset // 8 | (0x2000 if more else 0)
    size = 20 + len(data)
    addresses = bytes([10, 0, 0, 1, 10, 0, 0, 2])
    return struct.pack("!BBHHHBBH", 0x45, 0, size, number, flags, 64, 17, 0) + addresses + data


def ip6(data: bytes, *, number: int = 1, offset: int = 0, more: bool = False) -> bytes:
    """The same in IPv6, with a fragment header."""
    extension = struct.pack("!BxHI", 17, offset | more, number)
    head = struct.pack("!IHBB", 6 << 28, 8 + len(data), 44, 64)
    return head + bytes(15) + b"\1" + bytes(15) + b"\2" + extension + data


def ethernet(packet: bytes) -> bytes:
    """The frame of an IP packet."""
    return bytes(12) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def pcap(
    frames: list[tuple[int, bytes]], *, magic: int = MICROSECONDS, order: str = "<", link: int = 1
) -> bytes:
    """A file of (nanoseconds, frame)."""
    unit = 1 if magic == NANOSECONDS else 1000
    parts = [struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, link)]
    for at, frame in frames:
        seconds, part = divmod(at, 10**9)
        size = len(frame)
        parts.append(struct.pack(f"{order}IIII", seconds, part // unit, size, size) + frame)
    return b"".join(parts)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    """One of pcapng."""
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def section(order: str = "<") -> bytes:
    """A section header."""
    return block(0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1), order)


def option(code: int, value: bytes, order: str = "<") -> bytes:
    """One of a block."""
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def interface(link: int, *options: bytes, order: str = "<") -> bytes:
    """The description of one."""
    end = option(0, b"", order) if options else b""
    return block(1, struct.pack(f"{order}HHI", link, 0, 262144) + b"".join(options) + end, order)


def packet(number: int, ticks: int, frame: bytes, order: str = "<") -> bytes:
    """A frame of interface `number`."""
    size = len(frame)
    head = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, size, size)
    return block(6, head + frame, order)
