"""What the host knows: which groups it has joined, where, and where a group would come from."""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING

from rtpfanout import netif
from rtpfanout.netlink import open_netlink

if TYPE_CHECKING:
    from rtpfanout.multicast import IPAddress

    Place = tuple[IPAddress, int]  # a group on an interface, by index

_IGMP, _IGMP6 = "/proc/thread-self/net/igmp", "/proc/thread-self/net/igmp6"
_SIOCGIFNAME, _SIOCGIFINDEX = 0x8910, 0x8933


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
        self._netlink = open_netlink()
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
        """As `netif.route_interface`. Raises OSError."""
        return netif.route_interface(self._netlink, group)

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
