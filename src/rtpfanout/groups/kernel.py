"""What the host knows: which groups it has joined, where, and where a group would come from."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.multicast import IPAddress

    Place = tuple[IPAddress, int]  # a group on an interface, by index

_IGMP, _IGMP6 = "/proc/thread-self/net/igmp", "/proc/thread-self/net/igmp6"
_SIOCGIFNAME, _SIOCGIFINDEX = 0x8910, 0x8933
# rtnetlink(7)
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLM_F_REQUEST = 1
_RTA_DST, _RTA_OIF = 1, 4
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # rtattr


def parse_igmp(text: str) -> set[Place]:
    """/proc/net/igmp: each interface, then its groups, in the host's byte order."""
    found: set[Place] = set()
    index = 0
    for line in text.splitlines()[1:]:
        words = line.split()
        if not line.startswith("\t"):
            index = int(words[0])
        elif words:
            packed = struct.pack("=I", int(words[0], 16))
            found.add((ipaddress.IPv4Address(packed), index))
    return found


def parse_igmp6(text: str) -> set[Place]:
    """/proc/net/igmp6: a line of each group."""
    rows = (line.split() for line in text.splitlines())
    return {(ipaddress.IPv6Address(bytes.fromhex(row[2])), int(row[0])) for row in rows if row}


class Kernel:
    """Asked again and again, so what it is asked by stays open: it needs no descriptor then."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._igmp, self._igmp6 = _opened(_IGMP), _opened(_IGMP6)
        self._device = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._netlink.setblocking(False)  # the answer is there when it was asked

    def __del__(self) -> None:
        for name in ("_device", "_netlink"):
            if opened := getattr(self, name, None):
                opened.close()
        for name in ("_igmp", "_igmp6"):
            if (descriptor := getattr(self, name, None)) is not None:
                os.close(descriptor)

    def joined(self) -> set[Place] | None:
        """Groups and indexes of the interfaces that have joined them; None where nobody tells."""
        if self._igmp is None:
            return None
        found = parse_igmp(_read(self._igmp))
        return found if self._igmp6 is None else found | parse_igmp6(_read(self._igmp6))

    def interface_index(self, name: str) -> int | None:
        """Of an interface that is there; a number that is no name is an index. Raises OSError."""
        index = self._asked(_SIOCGIFINDEX, struct.pack("@16s24x", name.encode()))
        if index is None and name.isdecimal() and int(name) < 1 << 31:
            request = struct.pack("@16si20x", b"", int(name))
            index = int(name) if self._asked(_SIOCGIFNAME, request) is not None else None
        return index

    def route_interface(self, group: IPAddress) -> int | None:
        """Index of the interface that the routing table says for `group`; None: it says none.

        Raises OSError.
        """
        family = socket.AF_INET if group.version == 4 else socket.AF_INET6
        body = _ROUTE.pack(family, group.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(group.packed), _RTA_DST) + group.packed
        header = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
        self._netlink.send(header + body)
        return _oif(self._netlink.recv(65536))

    def _asked(self, request: int, ifreq: bytes) -> int | None:
        """netdevice(7): the number in the answer; None: there is no such interface."""
        try:
            answer = fcntl.ioctl(self._device, request, ifreq)
        except OSError as error:
            if error.errno not in (errno.ENODEV, errno.ENXIO):
                raise
            return None
        return int(struct.unpack_from("@i", answer, 16)[0])


def _opened(path: str) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no IPv6, or no /proc
        return None


def _read(descriptor: int) -> str:
    text = b""
    while part := os.pread(descriptor, 65536, len(text)):
        text += part
    return text.decode("ascii", "replace")


def _oif(answer: bytes) -> int | None:
    length, kind, *_ = _HEADER.unpack_from(answer)
    if kind != _RTM_NEWROUTE:
        return None
    attributes = answer[_HEADER.size + _ROUTE.size : length]
    while len(attributes) >= _ATTRIBUTE.size:
        size, name = _ATTRIBUTE.unpack_from(attributes)
        if name == _RTA_OIF:
            return int(struct.unpack_from("=I", attributes, _ATTRIBUTE.size)[0])
        attributes = attributes[max(_ATTRIBUTE.size, size + 3 & ~3) :]
    return None
