"""What the host knows: which groups it has joined, where, and where a group would come from."""

from __future__ import annotations

import ipaddress
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.multicast import IPAddress

_IGMP, _IGMP6 = Path("/proc/net/igmp"), Path("/proc/net/igmp6")
# rtnetlink(7)
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26
_NLM_F_REQUEST = 1
_RTA_DST, _RTA_OIF = 1, 4
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg
_ATTRIBUTE = struct.Struct("=HH")  # rtattr


def joined_on_host() -> set[tuple[IPAddress, int]] | None:
    """Groups and indexes of the interfaces that have joined them; None where nobody tells."""
    try:
        found = parse_igmp(_IGMP.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return None
    try:
        return found | parse_igmp6(_IGMP6.read_text(encoding="ascii", errors="replace"))
    except OSError:  # without IPv6
        return found


def parse_igmp(text: str) -> set[tuple[IPAddress, int]]:
    """/proc/net/igmp: each interface, then its groups, in the host's byte order."""
    found: set[tuple[IPAddress, int]] = set()
    index = 0
    for line in text.splitlines()[1:]:
        words = line.split()
        if not line.startswith("\t"):
            index = int(words[0])
        elif words:
            packed = struct.pack("=I", int(words[0], 16))
            found.add((ipaddress.IPv4Address(packed), index))
    return found


def parse_igmp6(text: str) -> set[tuple[IPAddress, int]]:
    """/proc/net/igmp6: a line of each group."""
    rows = (line.split() for line in text.splitlines())
    return {(ipaddress.IPv6Address(bytes.fromhex(row[2])), int(row[0])) for row in rows if row}


def interface_index(name: str) -> int | None:
    """Of an interface that is there; a number that is no name is an index."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        pass
    try:
        return int(name) if name.isdecimal() and socket.if_indextoname(int(name)) else None
    except (OSError, OverflowError):
        return None


def route_interface(group: IPAddress) -> int | None:
    """Index of the interface that the routing table says for `group`; None: it says none."""
    family = socket.AF_INET if group.version == 4 else socket.AF_INET6
    body = _ROUTE.pack(family, group.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    body += _ATTRIBUTE.pack(_ATTRIBUTE.size + len(group.packed), _RTA_DST) + group.packed
    header = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(5)
        netlink.send(header + body)
        answer = netlink.recv(65536)
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
