"""The frames of a pcap or pcapng file, of all its interfaces, up to where it ends or is damaged.

The layouts are those of draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng. Frames are read one by
one: a capture may be larger than memory.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NoReturn

_SECOND = 1_000_000_000
_LONGEST = 1 << 26
"""Bytes of a record; more is damage: the longest frame that any system captures is far shorter."""

_PCAP_UNITS = {0xA1B2C3D4: 1_000_000, 0xA1B2CD34: 1_000_000, 0xA1B23C4D: _SECOND}
_PCAP_KUZNETZOV = 0xA1B2CD34
_LINK_TYPE_BITS = 0x0FFFFFFF
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER = 0x1A2B3C4D
_TICKS_OPTION, _OFFSET_OPTION = 9, 14


@dataclass(frozen=True, slots=True)
class Frame:
    """One captured frame: when, in nanoseconds; its LINKTYPE; its bytes, as many as were kept."""

    seen_ns: int
    link_type: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Interface:
    link_type: int
    snap_length: int
    ticks: int
    """Of its time stamps in a second."""
    offset_seconds: int


class NoCaptureError(ValueError):
    """The file begins with something else."""


class _EndOfFile(Exception):  # noqa: N818 (no error: files end)
    pass


class CaptureFile:
    """Iterates over the frames of `file`, open for reading in binary.

    `cut_short`: it ends within a record, as when whoever captured was killed. `damage`: why no
    more could be read, or "". Both hold once the iterator has ended; it raises NoCaptureError for
    what is not a capture at all.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.cut_short = False
        self.damage = ""
        self._file = file
        self._at = 0

    def __iter__(self) -> Iterator[Frame]:
        first = self._file.read(4)
        self._at = len(first)
        for order in ("<", ">"):
            magic = struct.unpack(f"{order}I", first)[0] if len(first) == 4 else 0
            if magic in _PCAP_UNITS:
                return self._until_the_end(self._pcap(order, magic))
            if magic == _SECTION:
                return self._until_the_end(self._pcapng())
        raise NoCaptureError("is not a pcap or pcapng file")

    def _until_the_end(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        try:
            yield from frames
        except _EndOfFile:
            pass
        except ValueError as error:
            self.damage = str(error)

    def _read(self, size: int, *, ends_here: bool = False) -> bytes:
        """Exactly so many bytes. With `ends_here` the file may end before the first of them."""
        data = self._file.read(size)
        self._at += len(data)
        if len(data) < size:
            self.cut_short = bool(data) or not ends_here
            raise _EndOfFile
        return data

    def _fail(self, what: str) -> NoReturn:
        raise ValueError(f"{what} at byte {self._at}")

    def _pcap(self, order: str, magic: int) -> Iterator[Frame]:
        link_type = struct.unpack(f"{order}16xI", self._read(20))[0] & _LINK_TYPE_BITS
        header = struct.Struct(f"{order}IIII8x" if magic == _PCAP_KUZNETZOV else f"{order}IIII")
        to_ns = _SECOND // _PCAP_UNITS[magic]
        while True:
            seconds, part, size, _ = header.unpack(self._read(header.size, ends_here=True))
            if size > _LONGEST:
                self._fail(f"a record of {size} bytes")
            yield Frame(seconds * _SECOND + part * to_ns, link_type, self._read(size))

    def _pcapng(self) -> Iterator[Frame]:
        order, interfaces = "<", list[_Interface]()
        kind, seen_ns = _SECTION.to_bytes(4, "little"), 0
        while True:
            number = struct.unpack(f"{order}I", kind)[0]
            head = self._read(8 if number == _SECTION else 4)
            if number == _SECTION:  # reads the same in both byte orders
                order, interfaces = self._byte_order(head[4:]), []
            body = head[4:] + self._block(order, head)
            if number == _INTERFACE:
                interfaces.append(self._interface(order, body))
            elif number in (_PACKET, _OLD_PACKET, _SIMPLE_PACKET):
                frame = self._packet(order, number, body, interfaces, seen_ns)
                seen_ns = frame.seen_ns
                yield frame
            kind = self._read(4, ends_here=True)

    def _byte_order(self, mark: bytes) -> str:
        for order in ("<", ">"):
            if struct.unpack(f"{order}I", mark)[0] == _BYTE_ORDER:
                return order
        return self._fail("a section without a byte order")

    def _block(self, order: str, head: bytes) -> bytes:
        """What follows `head`, which begins with the block's length, up to its end."""
        length = struct.unpack_from(f"{order}I", head)[0]
        left = length - 4 - len(head) - 4
        if length % 4 or left < 0 or length > _LONGEST:
            self._fail(f"a block of {length} bytes")
        body = self._read(left)
        if struct.unpack(f"{order}I", self._read(4))[0] != length:
            self._fail("a block whose two lengths differ")
        return body

    def _interface(self, order: str, body: bytes) -> _Interface:
        if len(body) < 8:
            self._fail("an interface without a description")
        link_type, snap_length = struct.unpack_from(f"{order}HxxI", body)
        ticks, offset = 1_000_000, 0
        at = 8
        while at + 4 <= len(body):
            option, size = struct.unpack_from(f"{order}HH", body, at)
            value = body[at + 4 : at + 4 + size]
            if option == 0:
                break
            if option == _TICKS_OPTION and size == 1:
                base, exponent = (2, value[0] & 0x7F) if value[0] & 0x80 else (10, value[0])
                ticks = int(base**exponent)
            elif option == _OFFSET_OPTION and size == 8:
                offset = struct.unpack(f"{order}q", value)[0]
            at += 4 + size + -size % 4
        return _Interface(link_type, snap_length, ticks, offset)

    def _packet(
        self, order: str, kind: int, body: bytes, interfaces: list[_Interface], before_ns: int
    ) -> Frame:
        """`before_ns`: when the frame before was seen, since a simple packet doesn't tell."""
        layout = struct.Struct(
            order + {_PACKET: "IIII4x", _OLD_PACKET: "HxxIII4x", _SIMPLE_PACKET: "I"}[kind]
        )
        if len(body) < layout.size:
            self._fail("a packet without a header")
        values = layout.unpack_from(body)
        index = 0 if kind == _SIMPLE_PACKET else values[0]
        if index >= len(interfaces):
            self._fail(f"a packet of interface {index}, which is not described")
        interface = interfaces[index]
        if kind == _SIMPLE_PACKET:
            size = min(values[0], interface.snap_length or values[0])
            seen_ns = before_ns
        else:
            size = values[3]
            seconds, part = divmod(values[1] << 32 | values[2], interface.ticks)
            seen_ns = (seconds + interface.offset_seconds) * _SECOND
            seen_ns += part * _SECOND // interface.ticks
        if layout.size + size > len(body):
            self._fail(f"a packet of {size} bytes in a block of {len(body)}")
        return Frame(seen_ns, interface.link_type, body[layout.size : layout.size + size])
