"""Who may feed a session: source policies, read and checked, and as the engine takes them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout.errors import AddressDeniedError, InvalidArgumentError
from rtpfanout.model import (
    ADDRESS_RECORD,
    IPV4_PREFIX,
    Address,
    IPAddress,
    LatchScope,
    SourcePolicy,
    SsrcPolicy,
    parse_ip,
    shown,
    unmapped,
)
from rtpfanout.policy import SOURCE_FIELD, canonical_network
from rtpfanout.sessions import fields

if TYPE_CHECKING:
    from rtpfanout.policy import AddressPolicy, Network
    from rtpfanout.store import StoredSource

POLICY_FIELD = "source_policy"
DEFAULT_LATCH_WINDOW_SECS = 60.0
EXACT_PREFIX = 255
"""To Engine.add_sessions: one address and port, or with port 0 any port."""
_ANY_SSRC = (SsrcPolicy.FOLLOW, SsrcPolicy.ANY)
_LINK_LOCAL = ("fe8", "fe9", "fea", "feb", "169.254.")


@dataclass(frozen=True, slots=True)
class Source:
    """Who may feed a session. `text` is the canonical spelling of source_address.

    EXACT has an `address`; the others a `network`, of one address for IP, of one family
    always. A LATCH is open to its network, or without one to anybody of both families,
    until somebody is pinned, which the session keeps.
    """

    policy: SourcePolicy
    text: str
    address: Address | None = None
    network: Network | None = None
    latch_window_secs: float = 0.0
    relatch_after_secs: float = 0.0

    @property
    def base(self) -> Address | None:
        """The first address of the network, port 0; for EXACT the address; None: anybody."""
        return self.address or (Address(self.network.network_address, 0) if self.network else None)

    @property
    def prefix(self) -> int | None:
        """Of `base` as the engine takes it: None for EXACT."""
        if self.policy is SourcePolicy.EXACT:
            return None
        return self.network.prefixlen if self.network else 0

    @property
    def relatch_after_ns(self) -> int:
        """As the engine takes it."""
        return round(self.relatch_after_secs * 1e9)

    def admits(self, address: Address) -> bool:
        """Whether `address` is in the network; no IPv4 address is in ::/0."""
        if self.address is not None:
            return address == self.address
        if self.network is None:
            return True
        return address.ip.version == self.network.version and address.ip in self.network


def read_source(
    policy_text: str,
    source_text: str,
    latch_window_secs: float,
    relatch_after_secs: float,
    policy: AddressPolicy,
) -> Source:
    """A source as a request names it.

    Raises InvalidArgumentError about the field at fault, and what the address policy raises.
    """
    kind = _policy_of(policy_text)
    window = fields.seconds(latch_window_secs, "latch_window_secs")
    relatch = fields.seconds(relatch_after_secs, "relatch_after_secs")
    if kind is not SourcePolicy.LATCH:
        for name, value in (("latch_window_secs", window), ("relatch_after_secs", relatch)):
            if value:
                raise InvalidArgumentError(
                    f"{value:g}, but only source_policy latch has it; give 0", field=name
                )
    if kind is SourcePolicy.EXACT:
        try:
            address = Address.parse(source_text)
        except ValueError as error:
            said = "" if not policy_text else " (source_policy is exact)"
            raise InvalidArgumentError(f"{error}{said}", field=SOURCE_FIELD) from None
        policy.check_source(address)
        return Source(kind, str(address), address)
    network, text = _network_of(kind, source_text)
    if network is not None:
        policy.check_source_network(network)
    if kind is SourcePolicy.LATCH:
        return Source(kind, text, None, network, window or DEFAULT_LATCH_WINDOW_SECS, relatch)
    return Source(kind, text, None, network)


def plain_source(row: StoredSource) -> tuple[bytes, int] | None:
    """The ADDRESS_RECORD and prefix that Engine.add_sessions takes; in 2 us instead of 40.

    None where `read_source` has to look: whoever restores has it look at all of them later.
    """
    kind, text = row.source_policy, row.source_text
    if not _is_plain(row):
        return None
    any_port = kind == SourcePolicy.IP and row.ssrc_policy in _ANY_SSRC
    if kind == SourcePolicy.LATCH and row.pinned_source and not row.relatch_after_secs:
        kind, text = SourcePolicy.EXACT, row.pinned_source
        any_port = row.latch_scope == LatchScope.IP
    elif row.pinned_source:
        return None
    if kind == SourcePolicy.EXACT:
        host, _, digits = text.rpartition(":")
        packed = _packed(host.removeprefix("[").removesuffix("]"))
        port = _number(digits)
        if packed is None or not 0 < port <= 65535:
            return None
        return ADDRESS_RECORD.pack(packed, 0, 0 if any_port else port), EXACT_PREFIX
    if kind == SourcePolicy.IP:
        host, bits = text, 128
    elif kind == SourcePolicy.CIDR:
        host, _, digits = text.partition("/")
        bits = _number(digits) + (0 if ":" in host else 96)
    else:
        return None
    packed = _packed(host)
    if packed is None or not 0 <= bits <= 128 or (any_port and text.startswith(_LINK_LOCAL)):
        return None
    return ADDRESS_RECORD.pack(packed, 0, 0), EXACT_PREFIX if any_port else bits


def _is_plain(row: StoredSource) -> bool:
    """Whether all that it says beside its source is known, and nothing of it is rare."""
    return (
        row.ssrc_policy in ("", SsrcPolicy.EXACT, *_ANY_SSRC)
        and row.latch_scope in ("", LatchScope.ADDRESS, LatchScope.IP)
        and not row.srtp
        and row.check_padding < 0
        and row.rtcp_mux < 0
    )


def _number(digits: str) -> int:
    """Far below 0 where it is none."""
    return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= 5 else -1000


def _packed(host: str) -> bytes | None:
    """Its 16 bytes; None if it has a scope or is none."""
    try:
        return IPV4_PREFIX + socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError):  # ValueError: a NUL inside
        pass
    try:
        return socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return None


def loop_error(address: Address, field: str) -> AddressDeniedError:
    """To be raised: `address` is the session's source and its subscriber."""
    other = "source" if field != SOURCE_FIELD else "subscriber"
    return AddressDeniedError(
        f"{address} is a {other} of this session, so its packets would come back in a loop;"
        " send and receive on different ports",
        field=field,
    )


def _policy_of(text: str) -> SourcePolicy:
    try:
        return SourcePolicy(text or SourcePolicy.EXACT)
    except ValueError:
        raise InvalidArgumentError(
            f"{shown(text)} is not exact, ip, cidr or latch", field=POLICY_FIELD
        ) from None


def _network_of(kind: SourcePolicy, text: str) -> tuple[Network | None, str]:
    if kind is SourcePolicy.LATCH and not text:
        return None, ""
    if kind is SourcePolicy.IP or (kind is SourcePolicy.LATCH and "/" not in text):
        ip = _ip_of(text, kind)
        return network_of_one(ip), str(ip)
    try:
        if "/" not in text:
            raise ValueError
        network = canonical_network(ipaddress.ip_network(text))
    except ValueError as error:
        reason = str(error) if "host bits" in str(error) else f"{shown(text)} is no network"
        raise InvalidArgumentError(
            f"{reason}; source_policy {kind} takes one such as 192.0.2.0/24", field=SOURCE_FIELD
        ) from None
    if "%" in text:
        raise InvalidArgumentError(
            f"{shown(text)} has a scope, which a network can't have", field=SOURCE_FIELD
        )
    return network, str(network)


def _ip_of(text: str, kind: SourcePolicy) -> IPAddress:
    try:
        return unmapped(parse_ip(text))
    except ValueError as error:
        raise InvalidArgumentError(
            f"{error}; source_policy {kind} takes an address without port", field=SOURCE_FIELD
        ) from None


def network_of_one(ip: IPAddress) -> Network:
    """That address and no other."""
    if ip.version == 4:
        return ipaddress.IPv4Network(ip)
    return ipaddress.IPv6Network(ip)
