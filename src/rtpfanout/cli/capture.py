"""RTP packets out of a pcap or pcapng file, byte for byte, for `send --pcap`."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rtpfanout import rtp
from rtpfanout.cli.source import Due
from rtpfanout.errors import ConfigError

_LINUX_SLL2 = 276
_RAW_IP = (12, 14, 101, 228, 229)  # LINKTYPE_RAW, _IPV4 and _IPV6, and DLT_RAW of BSDs


class Capture:
    """The RTP packets of a capture file, in its order; `ssrc` picks one source.

    Passed over, and counted in `skipped`: UDP that is not RTP, IP fragments and
    packets the capture has cut off.
    """

    def __init__(self, path: Path, ssrc: int | None) -> None:
        self._path = path
        self._ssrc = ssrc
        self.skipped = 0

    def packets(self, rate: float | None) -> Iterator[Due]:
        """Each packet when it was due in the capture, or evenly at `rate` a second.

        Raises ConfigError for a file that cannot be read.
        """
        first_seen: float | None = None
        number = 0
        try:
            for seen, data in self._datagrams():
                first_seen = seen if first_seen is None else first_seen
                due = number / rate if rate else max(0.0, seen - first_seen)
                yield due, partial(bytes, data)
                number += 1
        except OSError as error:
            raise ConfigError(f"{self._path}: {error.strerror}", field="--pcap") from None
        if number == 0:
            raise ConfigError(f"{self._path} has no RTP packet to send", field="--pcap")

    def _datagrams(self) -> Iterator[tuple[float, bytes]]:
        import dpkt

        with self._path.open("rb") as file:
            try:
                reader = dpkt.pcap.UniversalReader(file)
                decode = _decoder(reader.datalink())
                for seen, frame in reader:
                    data = _udp_payload(decode, frame)
                    if data is not None and self._wanted(data):
                        yield float(seen), data
                    else:
                        self.skipped += 1
            except (ValueError, dpkt.Error) as error:
                raise ConfigError(
                    f"{self._path} is not a pcap or pcapng file of IP packets ({error})",
                    field="--pcap",
                ) from None

    def _wanted(self, data: bytes) -> bool:
        try:
            packet = rtp.parse(data)
        except ValueError:
            return False
        return self._ssrc is None or packet.ssrc == self._ssrc


def _decoder(link_type: int) -> Any:
    """What turns a captured frame into dpkt layers. Raises ValueError if unknown."""
    import dpkt

    decoders = {
        dpkt.pcap.DLT_EN10MB: dpkt.ethernet.Ethernet,
        dpkt.pcap.DLT_NULL: dpkt.loopback.Loopback,
        dpkt.pcap.DLT_LOOP: dpkt.loopback.Loopback,
        dpkt.pcap.DLT_LINUX_SLL: dpkt.sll.SLL,
        _LINUX_SLL2: dpkt.sll2.SLL2,
        **dict.fromkeys(_RAW_IP, _decode_ip),
    }
    if link_type not in decoders:
        raise ValueError(f"link type {link_type} is not known")
    return decoders[link_type]


def _decode_ip(frame: bytes) -> Any:
    import dpkt

    return dpkt.ip6.IP6(frame) if frame[:1] >= b"\x60" else dpkt.ip.IP(frame)


def _udp_payload(decode: Any, frame: bytes) -> bytes | None:
    """The whole UDP payload of a frame, or None when it has none."""
    import dpkt

    try:
        layer = decode(frame)
    except dpkt.Error:
        return None
    while isinstance(layer, dpkt.Packet) and not isinstance(layer, dpkt.udp.UDP):
        if isinstance(layer, dpkt.ip.IP) and (layer.mf or layer.offset):
            return None
        layer = layer.data
    if not isinstance(layer, dpkt.udp.UDP):
        return None
    size = layer.ulen - 8
    data = bytes(layer.data)
    return data[:size] if 0 <= size <= len(data) else None
