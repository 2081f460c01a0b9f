"""A multicast group to receive: which, from whom, and where; as text and as a value."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_INTERFACE = re.compile(r"[^\s/%@]{1,15}")  # IFNAMSIZ
_LINK_SCOPES = (1, 2)
"""RFC 4291 section 2.7: interface-local and link-local."""


@dataclass(frozen=True, slots=True, order=False)
class IngestGroup:
    """`source`: of a source-specific group (RFC 4607), None for any. `interface`: its name, or ""
    for the one that the routing table says.
    """

    group: IPAddress
    source: IPAddress | None = None
    interface: str = ""

    @classmethod
    def parse(cls, text: str) -> IngestGroup:
        """Read ``239.1.2.3``, ``ff15::7%eth0`` or ``192.0.2.7@232.1.2.3%eth0``.

        Raises ValueError that names `text` and says what is expected.
        """
        source_text, at, rest = text.rpartition("@")
        group_text, percent, interface = rest.partition("%")
        group = _address(group_text, text)
        if not group.is_multicast:
            raise ValueError(f"{text!r}: {group} is not a multicast group")
        if percent and not _INTERFACE.fullmatch(interface):
            raise ValueError(f"{text!r}: {interface!r} is not the name of an interface")
        if group.version == 6 and group.packed[1] & 0xF in _LINK_SCOPES and not interface:
            raise ValueError(f"{text!r} has link scope: name the interface, as in '{group}%eth0'")
        source = _address(source_text, text) if at else None
        if source is not None and (
            source.version != group.version or source.is_multicast or source.is_unspecified
        ):
            raise ValueError(f"{text!r}: {source} can't be a source of {group}")
        return cls(group, source, interface)

    def __str__(self) -> str:
        source = f"{self.source}@" if self.source else ""
        return f"{source}{self.group}{'%' if self.interface else ''}{self.interface}"

    def comes_to(self, ip: IPAddress) -> bool:
        """Whether a socket bound to `ip` can get it: to all addresses, or to the group itself."""
        return ip == self.group or (ip.is_unspecified and ip.version >= self.group.version)


def _address(text: str, entry: str) -> IPAddress:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{entry!r}: {text!r} is not an IPv4 or IPv6 address") from None
