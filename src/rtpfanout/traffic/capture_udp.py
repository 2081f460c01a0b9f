"""UDP payloads out of captured frames: link layers and IP by dpkt, fragments put together."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

_LINUX_SLL2 = 276
_RAW_IP = (12, 14, 101, 228, 229)  # LINKTYPE_RAW, _IPV4 and _IPV6, and DLT_RAW of BSDs
_UDP, _IP6_FRAGMENT = 17, 44
_UDP_HEADER = 8


class UdpPayloads:
    """Takes frames in their order.

    `unknown_link_types`: of frames that nobody here can read.
    """

    def __init__(self) -> None:
        self.unknown_link_types: set[int] = set()
        self._fragments = _Fragments()

    @property
    def fragments_left(self) -> int:
        """Fragments of datagrams that have not become whole."""
        return self._fragments.left

    def take(self, link_type: int, frame: bytes) -> tuple[bytes | None, bool]:
        """The payload that is whole with this frame, if any; whether the frame is a fragment."""
        decode = _decoders().get(link_type)
        if decode is None:
            self.unknown_link_types.add(link_type)
            return None, False
        try:
            return self._walk(decode(frame))
        except Exception:  # dpkt raises what it likes on bytes that it doesn't expect
            return None, False

    def _walk(self, layer: Any) -> tuple[bytes | None, bool]:
        import dpkt

        while isinstance(layer, dpkt.Packet) and not isinstance(layer, dpkt.udp.UDP):
            part = _fragment(layer)
            if part is not None:
                whole = self._fragments.add(part)
                return (None if whole is None else _payload(whole)), True
            layer = layer.data
        return (_payload(bytes(layer)) if isinstance(layer, dpkt.udp.UDP) else None), False


def _payload(datagram: bytes) -> bytes | None:
    """Of a UDP datagram with its header; None when the capture has cut it off."""
    size = int.from_bytes(datagram[4:6], "big")
    return datagram[_UDP_HEADER:size] if _UDP_HEADER <= size <= len(datagram) else None


@cache
def _decoders() -> dict[int, Any]:
    """By link type: what turns a captured frame into dpkt layers."""
    import dpkt

    return {
        dpkt.pcap.DLT_EN10MB: dpkt.ethernet.Ethernet,
        dpkt.pcap.DLT_NULL: dpkt.loopback.Loopback,
        dpkt.pcap.DLT_LOOP: dpkt.loopback.Loopback,
        dpkt.pcap.DLT_LINUX_SLL: dpkt.sll.SLL,
        _LINUX_SLL2: dpkt.sll2.SLL2,
        **dict.fromkeys(_RAW_IP, _decode_ip),
    }


def _decode_ip(frame: bytes) -> Any:
    import dpkt

    return dpkt.ip6.IP6(frame) if frame[:1] >= b"\x60" else dpkt.ip.IP(frame)


@dataclass(frozen=True, slots=True)
class _Part:
    """A fragment: of which datagram, from which byte on, whether others follow."""

    key: tuple[Any, ...]
    offset: int
    more: bool
    data: bytes


def _fragment(layer: Any) -> _Part | None:
    """Of UDP; None for what is whole, and for other protocols. ValueError: it is cut off."""
    import dpkt

    if isinstance(layer, dpkt.ip.IP) and layer.p == _UDP and (layer.mf or layer.offset):
        data, size = bytes(layer.data), layer.len - 4 * layer.hl
        part = _Part((layer.src, layer.dst, layer.id), 8 * layer.offset, bool(layer.mf), data)
    elif isinstance(layer, dpkt.ip6.IP6) and _IP6_FRAGMENT in layer.extension_hdrs:
        header = layer.extension_hdrs[_IP6_FRAGMENT]
        if header.nxt != _UDP or not (header.m_flag or header.frag_off):
            return None
        data = bytes(layer.data)
        size = layer.plen - sum(extension.length for extension in layer.all_extension_headers)
        key = (layer.src, layer.dst, header.id)
        part = _Part(key, 8 * header.frag_off, bool(header.m_flag), data)
    else:
        return None
    if len(data) != size:
        raise ValueError("the capture has cut the fragment off")
    return part


@dataclass(slots=True)
class _Datagram:
    """One that is not yet whole: its parts by offset, and its size, once the last one is there."""

    size: int | None = None
    parts: dict[int, bytes] = field(default_factory=dict)

    def whole(self) -> bytes | None:
        at = 0
        for offset in sorted(self.parts):
            if offset != at:
                return None
            at += len(self.parts[offset])
        return b"".join(self.parts[o] for o in sorted(self.parts)) if at == self.size else None


class _Fragments:
    """Puts datagrams together (RFC 791 section 3.2, RFC 8200 section 4.5), so many at a time."""

    _MOST = 256

    def __init__(self) -> None:
        self._given_up = 0
        self._waiting: dict[tuple[Any, ...], _Datagram] = {}

    @property
    def left(self) -> int:
        """Fragments that are part of nothing whole."""
        return self._given_up + sum(len(d.parts) for d in self._waiting.values())

    def add(self, part: _Part) -> bytes | None:
        """The datagram, if this makes it whole."""
        datagram = self._waiting.get(part.key)
        if datagram is not None and datagram.parts.get(part.offset, part.data) != part.data:
            self._give_up(part.key)  # the identification is used anew
            datagram = None
        if datagram is None:
            if len(self._waiting) == self._MOST:
                self._give_up(next(iter(self._waiting)))
            datagram = self._waiting[part.key] = _Datagram()
        datagram.parts[part.offset] = part.data
        if not part.more:
            datagram.size = part.offset + len(part.data)
        whole = datagram.whole()
        if whole is not None:
            del self._waiting[part.key]
        return whole

    def _give_up(self, key: tuple[Any, ...]) -> None:
        self._given_up += len(self._waiting.pop(key).parts)
