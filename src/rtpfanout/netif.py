"""What the host's network interfaces know: which addresses are this host's own."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import TYPE_CHECKING

from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.model import IPAddress

# rtnetlink(7), linux/if_addr.h
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_HEADER = struct.Struct("=IHHII")  # nlmsghdr
_ADDRESS = struct.Struct("=BBBBi")  # ifaddrmsg
_ATTRIBUTE = struct.Struct("=HH")  # rtattr


def address_is_local(ip: IPAddress) -> bool:
    """True if a datagram to `ip` stays on this host (or is broadcast by it).

    Asks the kernel by binding a UDP socket to it (ip(7): EADDRNOTAVAIL for what is not
    local), so that addresses added since the start count too. Multicast groups can be
    bound but are nobody's own: False.
    """
    if ip.is_multicast:
        return False
    address = Address(ip, 0)
    try:
        with socket.socket(address.family, socket.SOCK_DGRAM) as probe:
            probe.bind(address.sockaddr)
    except OSError:
        return False
    return True


def local_addresses() -> dict[IPAddress, int]:
    """The addresses of this host's interfaces, link-local ones with their scope, and its index.

    Of 127.0.0.0/8, which is local as a whole, only those that are written down. Raises OSError.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.settimeout(5)
        body = _ADDRESS.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        netlink.send(
            _HEADER.pack(_HEADER.size + len(body), _RTM_GETADDR, _NLM_F_REQUEST_DUMP, 1, 0) + body
        )
        found: dict[IPAddress, int] = {}
        while True:
            for kind, message in _messages(netlink.recv(65536)):
                if kind == _NLMSG_DONE:
                    return found
                if kind == _NLMSG_ERROR:
                    raise OSError(-struct.unpack_from("=i", message)[0], "netlink refused")
                if kind == _RTM_NEWADDR:
                    found.update(_addresses(message))


def interfaces() -> dict[str, int]:
    """The index of each interface by its name. Raises OSError."""
    return {name: index for index, name in socket.if_nameindex()}


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _addresses(message: bytes) -> Iterator[tuple[IPAddress, int]]:
    family, _, _, _, index = _ADDRESS.unpack_from(message)
    attributes: dict[int, bytes] = {}
    data = message[_ADDRESS.size :]
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        attributes[kind] = data[_ATTRIBUTE.size : length]
        data = data[(length + 3) & ~3 :]
    # Of a point-to-point link IFA_ADDRESS is the other end.
    packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
    if packed and family == socket.AF_INET:
        yield ipaddress.IPv4Address(packed), index
    elif packed and family == socket.AF_INET6:
        ip = ipaddress.IPv6Address(packed)
        yield ipaddress.IPv6Address(f"{ip}%{index}") if ip.is_link_local else ip, index
