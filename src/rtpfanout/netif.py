"""What the host's network interfaces know: which addresses are this host's own."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.model import IPAddress


def address_is_local(ip: IPAddress) -> bool:
    """True if a datagram to `ip` stays on this host (or is broadcast by it).

    Asks the kernel by binding a UDP socket to it (ip(7): EADDRNOTAVAIL for what is not
    local), so that addresses added since the start count too. Multicast groups can be
    bound but are nobody's own: False.
    """
    if ip.is_multicast:
        return False
    target: tuple[str, int] | tuple[str, int, int, int]
    if ip.version == 4:
        family, target = socket.AF_INET, (str(ip), 0)
    else:
        address, _, scope = str(ip).partition("%")
        family, target = socket.AF_INET6, (address, 0, 0, int(scope or 0))
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind(target)
    except OSError:
        return False
    return True
