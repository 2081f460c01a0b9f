"""The nouns every layer shares: addresses, media types and session states."""

from __future__ import annotations

import enum
import ipaddress
import re
import socket
import struct
from dataclasses import dataclass, field

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

MOST_WORKERS = 64
"""Packet loops that one server can have; the engine takes no more."""

LABEL = re.compile(r"[A-Za-z0-9._/-]{1,63}")
"""A key or value of a session's labels."""
NAME = re.compile(r"(?=.{1,128}\Z)[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
"""Of a session; but no text that could be a UUID, for ids stand in the same places."""
SESSION_ID = re.compile("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
"""RFC 9562 section 4; the other spellings that uuid.UUID takes are refused."""
Pairs = tuple[tuple[str, str], ...]
"""Labels that a session must have, as a selector or a scope says it."""
REQUEST_ID = re.compile(r"[\x21-\x7e]{1,64}")
"""What a caller may number its calls with."""

_IPV4_ENDPOINT = re.compile(r"(?P<host>[^:\[\]]*):(?P<port>[^:]*)")
_IPV6_ENDPOINT = re.compile(r"\[(?P<host>[^\[\]]*)\]:(?P<port>[^:]*)")


IPV4_PREFIX = bytes(10) + b"\xff\xff"
"""Of an IPv4 address in 16 bytes."""
ADDRESS_RECORD = struct.Struct("=16sIH2x")
"""An address for the engine: IP (network order, IPv4 as ::ffff:a.b.c.d), scope, port, padding."""


@dataclass(frozen=True, slots=True)
class Address:
    """A UDP endpoint: an IP address and a port in host byte order, 0 to 65535.

    IPv4-mapped IPv6 addresses (RFC 4291 section 2.5.5.2) become IPv4 on
    construction through `parse` and `unpack`, so two spellings of one endpoint
    compare equal.
    """

    ip: IPAddress
    port: int
    spoken_to: bytes = field(default=b"", compare=False, repr=False)
    """Of who has spoken to us: to which of our addresses, as `packed`; it is answered from there.
    Empty: not known, or we are bound to one."""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``192.0.2.7:5000``, ``[2001:db8::7]:5000`` or ``[fe80::1%2]:5000``.

        Host names are not resolved. Raises ValueError saying what is expected.
        """
        match = _IPV6_ENDPOINT.fullmatch(text) or _IPV4_ENDPOINT.fullmatch(text)
        if match is None:
            raise ValueError(f"{shown(text)} is not ip:port or [ipv6]:port")
        ip = parse_ip(match["host"])
        if (ip.version == 6) != text.startswith("["):
            raise ValueError(f"{shown(text)} is not ip:port or [ipv6]:port")
        return cls(unmapped(ip), _parse_port(match["port"]))

    @classmethod
    def unpack(cls, packed: bytes, port: int, scope: int = 0, spoken_to: bytes = b"") -> Address:
        """From 16 bytes in network order (IPv4 as ::ffff:a.b.c.d), port and scope id."""
        ip6 = ipaddress.IPv6Address(packed)
        if scope:
            ip6 = ipaddress.IPv6Address(f"{ip6}%{scope}")
        return cls(unmapped(ip6), port, spoken_to)

    @property
    def packed(self) -> bytes:
        """16 bytes in network order, IPv4 as ::ffff:a.b.c.d."""
        if self.ip.version == 4:
            return IPV4_PREFIX + self.ip.packed
        return self.ip.packed

    @property
    def record(self) -> bytes:
        """The address as an ADDRESS_RECORD."""
        return ADDRESS_RECORD.pack(self.packed, self.scope, self.port)

    @property
    def scope(self) -> int:
        """The interface index of a scoped IPv6 address (RFC 4007), else 0."""
        scope = self.ip.scope_id if isinstance(self.ip, ipaddress.IPv6Address) else None
        return int(scope) if scope else 0

    @property
    def family(self) -> socket.AddressFamily:
        """Of a socket that takes this address."""
        return socket.AF_INET if self.ip.version == 4 else socket.AF_INET6

    @property
    def sockaddr(self) -> tuple[str, int] | tuple[str, int, int, int]:
        """As the socket module wants it."""
        if self.ip.version == 4:
            return str(self.ip), self.port
        return str(self.ip).partition("%")[0], self.port, 0, self.scope

    def __str__(self) -> str:
        host = f"[{self.ip}]" if self.ip.version == 6 else str(self.ip)
        return f"{host}:{self.port}"


def parse_ip(text: str) -> IPAddress:
    """Read an IPv4 or IPv6 literal; a scope must be a numeric interface index."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an IPv4 or IPv6 address") from None
    scope = ip.scope_id if isinstance(ip, ipaddress.IPv6Address) else None
    if scope is not None and not (scope.isascii() and scope.isdigit() and 0 < int(scope) < 2**32):
        raise ValueError(f"the scope in {shown(text)} is not an interface index such as %2")
    return ip


def unmapped(ip: IPAddress) -> IPAddress:
    """The IPv4 address behind ::ffff:a.b.c.d, any other address unchanged."""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ValueError(f"port {shown(text)} is not a number from 0 to 65535")
    return int(text)


def shown(text: str) -> str:
    """`text` as a sentence can quote it, however long it is."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


class MediaType(enum.StrEnum):
    """What a session carries; the server forwards all three alike."""

    AUDIO = "audio"
    VIDEO = "video"
    DATA = "data"


class SessionStatus(enum.StrEnum):
    """ACTIVE while packets arrive (one within ACTIVE_WINDOW_NS), else IDLE; PAUSED by a call;
    REFUSED by the configuration, and kept.
    """

    ACTIVE = "active"
    IDLE = "idle"
    PAUSED = "paused"
    REFUSED = "refused"


class Condition(enum.StrEnum):
    """How a session's source fares; the packet path finds it out (`_fastpath.CONDITIONS`)."""

    FLOWING = "flowing"
    NO_PARAMETER_SETS = "no_parameter_sets"
    NO_KEYFRAMES = "no_keyframes"
    FROZEN = "frozen"
    SILENT = "silent"
    NEVER_FED = "never_fed"


class ChangeKind(enum.StrEnum):
    """What became of a session."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"


class EventKind(enum.StrEnum):
    """What happened. `docs/api.md` has the table, and tells what `detail` says of each."""

    STARTED = "started"
    OVERLOAD = "overload"
    OVERLOAD_OVER = "overload_over"

    CREATED = "created"
    UPDATED = "updated"
    PAUSED = "paused"
    RESUMED = "resumed"
    PINNED = "pinned"
    LATCH_OVER = "latch_over"
    MOVED = "moved"
    DELETED = "deleted"
    EXPIRED = "expired"
    SERVED = "served"
    """Of a session or subscribers that the configuration refused: it does not any more."""

    FLOWING = "flowing"
    """The first packet."""
    SILENT = "silent"
    FROZEN = "frozen"
    NO_KEYFRAMES = "no_keyframes"
    NO_PARAMETER_SETS = "no_parameter_sets"
    BACK = "back"
    RESTARTED = "restarted"
    SSRC_CHANGED = "ssrc_changed"

    SUBSCRIBER_JOINED = "subscriber_joined"
    SUBSCRIBER_LEFT = "subscriber_left"
    SUBSCRIBER_EXPIRED = "subscriber_expired"
    SUBSCRIBER_SHED = "subscriber_shed"
    SUBSCRIBER_REFUSED = "subscriber_refused"
    SUBSCRIBER_LAPSED = "subscriber_lapsed"
    SUBSCRIBER_UNREACHABLE = "subscriber_unreachable"
    SUBSCRIBER_BACK = "subscriber_back"
    """After any of the four before."""

    GAP = "gap"
    """Told to one watcher: what came before the next event is not known."""
    HEARTBEAT = "heartbeat"
    """Told to one watcher: nothing was missed, and nothing has been said for a while."""


class SourcePolicy(enum.StrEnum):
    """Who may feed a session: one address, any port of one, a network, or who comes first."""

    EXACT = "exact"
    IP = "ip"
    CIDR = "cidr"
    LATCH = "latch"


class SsrcPolicy(enum.StrEnum):
    """Which SSRCs of its source a session takes: one, one at a time, or whatever comes."""

    EXACT = "exact"
    FOLLOW = "follow"
    ANY = "any"


class LatchScope(enum.StrEnum):
    """What the first packet pins: its address and port, or any port of its address."""

    ADDRESS = "address"
    IP = "ip"


class SubscriberClass(enum.StrEnum):
    """Who goes first under overload: MONITOR, then RECORDER, PILOT last."""

    PILOT = "pilot"
    RECORDER = "recorder"
    MONITOR = "monitor"

    @property
    def number(self) -> int:
        """As the engine, the store and join tokens have it: its place in SUBSCRIBER_CLASSES."""
        return _CLASS_NUMBERS[self]


SUBSCRIBER_CLASSES = tuple(SubscriberClass)
"""By number."""
_CLASS_NUMBERS = {kind: number for number, kind in enumerate(SUBSCRIBER_CLASSES)}


class Rtcp(enum.StrEnum):
    """Whether a subscriber has RTCP, and at which port (RFC 5761; RFC 3550 section 11)."""

    OFF = "off"
    MUX = "mux"
    NEXT_PORT = "next_port"

    @property
    def number(self) -> int:
        """As the engine and the store have it: its place in RTCP."""
        return RTCP.index(self)


RTCP = tuple(Rtcp)
"""By number."""


class Withheld:
    """Why copies of a subscriber are withheld: the engine's bits, plain numbers since thousands are
    looked at."""

    CONSENT = 1
    SHED = 2
    REFUSED = 4


class Consent(enum.StrEnum):
    """What a subscriber has to do before packets leave to it (RFC 7675)."""

    NONE = "none"
    ECHO = "echo"


ACTIVE_WINDOW_NS = 5_000_000_000
