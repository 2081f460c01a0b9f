"""RTP packets out of a pcap or pcapng file, byte for byte, for `send --pcap`."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rtpfanout.errors import ConfigError
from rtpfanout.traffic import rtp
from rtpfanout.traffic.capture_file import CaptureFile, NoCaptureError
from rtpfanout.traffic.capture_udp import UdpPayloads
from rtpfanout.traffic.source import Due

_SECOND = 1_000_000_000


class Capture:
    """The RTP packets of a capture file, in its order; `ssrc` picks one source.

    Fragmented datagrams are put together, and frames that the capturing host has merged
    (UDP_SEGMENT, UDP_GRO) are cut into the packets that they were. What else there was, once
    `packets` has ended: `skipped` datagrams that are not RTP of the SSRC, or that the capture has
    cut off, and `fragments` among them, of datagrams of which it lacks a part; `merged` frames;
    `cut_short`: the file ends within a frame; `damage`: why the rest could not be read, or "".
    """

    def __init__(self, path: Path, ssrc: int | None) -> None:
        self.skipped = 0
        self.fragments = 0
        self.merged = 0
        self.cut_short = False
        self.damage = ""
        self.path = path
        self._ssrc = ssrc
        self._cuts = _Cuts()
        self._payloads = UdpPayloads()

    def packets(self, rate: float | None) -> Iterator[Due]:
        """Each packet when it was due in the capture, or evenly at `rate` a second.

        Raises ConfigError for a file that cannot be read, or has no such packet.
        """
        first_ns: int | None = None
        number = 0
        try:
            for seen_ns, data in self._datagrams():
                first_ns = seen_ns if first_ns is None else first_ns
                due = number / rate if rate else max(0, seen_ns - first_ns) / _SECOND
                yield due, partial(bytes, data)
                number += 1
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}", field="--pcap") from None
        except NoCaptureError as error:
            raise ConfigError(f"{self.path} {error}", field="--pcap") from None
        if number == 0:
            raise ConfigError(
                f"{self.path} has no RTP packet to send{self._why_none()}", field="--pcap"
            )

    def told(self) -> list[str]:
        """A line for each that there is to tell about it."""
        lines = []
        if self.skipped:
            lines.append(
                f"passed over {self.skipped} packets of {self.path} that are not the RTP to send"
            )
        if self.fragments:
            lines.append(f"{self.fragments} of them are IP fragments of which it lacks the others")
        if self.merged:
            lines.append(
                f"{self.merged} frames of {self.path} were packets that the host had merged "
                "(GSO, GRO); each was sent alone"
            )
        if self.cut_short:
            lines.append(f"{self.path} is cut short: its last frame is not whole and was left out")
        return lines

    def _why_none(self) -> str:
        if unknown := self._payloads.unknown_link_types:
            return f": link type {', '.join(map(str, sorted(unknown)))} is not known"
        if self.damage:
            return f": it is damaged ({self.damage})"
        return ": it is cut short" if self.cut_short else ""

    def _datagrams(self) -> Iterator[tuple[int, bytes]]:
        with self.path.open("rb") as opened:
            file = CaptureFile(opened)
            for frame in file:
                payload, is_fragment = self._payloads.take(frame.link_type, frame.data)
                if payload is not None:
                    for packet in self._wanted(payload):
                        yield frame.seen_ns, packet
                elif not is_fragment:
                    self.skipped += 1
            self.cut_short, self.damage = file.cut_short, file.damage
            self.fragments = self._payloads.fragments_left
            self.skipped += self.fragments

    def _wanted(self, payload: bytes) -> list[bytes]:
        """The packets of a payload that are to be sent."""
        pieces = self._cuts.pieces(payload)
        self.merged += len(pieces) > 1
        wanted = [data for data in pieces if self._is_wanted(data)]
        self.skipped += len(pieces) - len(wanted)
        return wanted

    def _is_wanted(self, data: bytes) -> bool:
        try:
            packet = rtp.parse(data, strict=False)
        except ValueError:
            return False
        return self._ssrc is None or packet.ssrc == self._ssrc


@dataclass
class _Cuts:
    """Where a payload is to be cut: a capture does not say how long the packets were.

    All but the last are of one length, and each begins with the header of an RTP packet whose
    number is the next of its SSRC: by chance bytes look like that once in 2^48. `_known` are the
    SSRCs of the packets so far.
    """

    _known: set[int] = field(default_factory=set)

    _MOST_SSRCS = 4
    """That take turns in one merged frame."""
    _MOST_KNOWN = 10_000

    def pieces(self, payload: bytes) -> list[bytes]:
        """One, or the packets that were merged."""
        length = next((n for n in self._lengths(payload) if self._are_packets(payload, n)), None)
        pieces = list(_cut(payload, length or len(payload)))
        if len(self._known) < self._MOST_KNOWN:
            self._known.update(header[0] for piece in pieces if (header := _header(piece)))
        return pieces

    def _lengths(self, payload: bytes) -> Iterator[int]:
        """Those at which the first packet's SSRC comes again; parts of them come first."""
        at = 8
        while (at := payload.find(payload[8:12], at + 1)) >= 0:  # a time stamp may be alike
            for parts in range(self._MOST_SSRCS, 0, -1):
                length, rest = divmod(at - 8, parts)
                if rest == 0 and length >= rtp.MIN_HEADER:
                    yield length

    def _are_packets(self, payload: bytes, length: int) -> bool:
        newest: dict[int, int] = {}
        first = _header(payload)
        for piece in _cut(payload, length):
            header = _header(piece)
            if header is None:
                return False
            ssrc, number = header
            known = ssrc in self._known or (first is not None and ssrc == first[0])
            if not known or newest.get(ssrc, number - 1 & 0xFFFF) != number - 1 & 0xFFFF:
                return False
            newest[ssrc] = number
        return True


def _cut(payload: bytes, length: int) -> Iterator[bytes]:
    return (payload[at : at + length] for at in range(0, len(payload), length))


def _header(data: bytes) -> tuple[int, int] | None:
    """SSRC and sequence number of what begins like RTP."""
    if len(data) < rtp.MIN_HEADER or data[0] >> 6 != rtp.VERSION:
        return None
    return int.from_bytes(data[8:12], "big"), int.from_bytes(data[2:4], "big")
