"""Control datagrams on the port that RTP comes in on: building and parsing, nothing else.

docs/api.md draws them ("Signed move", "Consent", "Signed join"). All integers are in
network order, every length is exact, reserved bytes are zero. Parsing raises ValueError
and believes nothing: whoever parses checks the MAC, the cookie and the time itself.

MACs are HMAC-SHA256 (RFC 2104). Of a move all 32 bytes are sent: it is rare and unanswered
when wrong. All others are cut to 16 (RFC 2104 section 5: half the hash at least), so that
an answer is never larger than its request.
"""

from __future__ import annotations

import base64
import enum
import functools
import hmac
import re
import struct
import uuid
from dataclasses import dataclass
from typing import ClassVar, Self

from rtpfanout.model import SUBSCRIBER_CLASSES, SubscriberClass

MAGIC = b"RFO\x01"
"""The last byte is the version. 0x52 is in no range of RFC 7983, so it is no RTP, STUN or DTLS."""

NONCE_BYTES = 8
COOKIE_BYTES = 24
NO_COOKIE = bytes(COOKIE_BYTES)
CLAIMS_BYTES = 40
TOKEN_KEY_BYTES = 32
STAMP_KEY_BYTES = 16
TOKEN_PREFIX = "rfj1_"  # noqa: S105 (how every token begins)
MOVE_KEY_BYTES = range(16, 65)

_MAC_BYTES = 16
_MOVE_MAC_BYTES = 32
_HEADER = struct.Struct("!4sBBxx")
_HEADER_BYTES = _HEADER.size
_MOVE = struct.Struct("!I4sQQ")
_ANSWER = struct.Struct("!8sI4x24s")
_CLAIMS = struct.Struct("!BBxxIQ8s16s")
_CLAIMS_VERSION = 1
_TOKEN_CHARACTERS = (CLAIMS_BYTES + TOKEN_KEY_BYTES) // 3 * 4
_NOT_BASE64URL = re.compile("[^A-Za-z0-9_-]")
_KEY_ID_LABEL = b"rtpfanout move key id"
_TOKEN_LABEL = b"rtpfanout join token"
_STAMP_LABEL = b"rtpfanout join token stamp"


class Kind(enum.IntEnum):
    """The fifth byte."""

    MOVE = 1
    HELLO = 2
    CHALLENGE = 3
    ECHO = 4
    JOIN = 5
    LEAVE = 6
    ACK = 7
    DENY = 8


class Reason(enum.IntEnum):
    """Why a DENY: the sixth byte of it, which is 0 in all other kinds."""

    EXPIRED = 1
    NO_SESSION = 2
    LIMIT = 3
    ADDRESS = 4
    UNAVAILABLE = 5


LENGTHS = {
    Kind.MOVE: _HEADER_BYTES + _MOVE.size + _MOVE_MAC_BYTES,
    Kind.HELLO: 40,
    Kind.CHALLENGE: _HEADER_BYTES + NONCE_BYTES + COOKIE_BYTES,
    Kind.ECHO: 64,
    Kind.JOIN: _HEADER_BYTES + NONCE_BYTES + CLAIMS_BYTES + COOKIE_BYTES + _MAC_BYTES,
    Kind.LEAVE: _HEADER_BYTES + NONCE_BYTES + CLAIMS_BYTES + COOKIE_BYTES + _MAC_BYTES,
    Kind.ACK: _HEADER_BYTES + _ANSWER.size + _MAC_BYTES,
    Kind.DENY: _HEADER_BYTES + _ANSWER.size + _MAC_BYTES,
}
"""Bytes of each kind. No answer is longer than what it answers."""


def kind_of(data: bytes) -> Kind:
    """What `data` is, its length checked. Raises ValueError."""
    if len(data) < _HEADER_BYTES or data[:4] != MAGIC:
        raise ValueError("it does not begin with RFO 1")
    try:
        kind = Kind(data[4])
    except ValueError:
        raise ValueError(f"there is no type {data[4]}") from None
    if len(data) != LENGTHS[kind]:
        raise ValueError(f"a {kind.name} has {LENGTHS[kind]} bytes, not {len(data)}")
    if data[6] or data[7] or (data[5] and kind is not Kind.DENY):
        raise ValueError("a reserved byte is not zero")
    return kind


class _Signed:
    """What bears a MAC over all before it."""

    __slots__ = ()

    signed: bytes
    mac: bytes
    _mac_bytes: ClassVar[int] = _MAC_BYTES

    def is_signed_with(self, key: bytes) -> bool:
        """The MAC is right; compared in constant time."""
        return hmac.compare_digest(self.mac, _mac(key, self.signed, self._mac_bytes))


@dataclass(frozen=True, slots=True)
class Move(_Signed):
    """A source says that it moved to where the datagram came from."""

    _mac_bytes: ClassVar[int] = _MOVE_MAC_BYTES

    ssrc: int
    key_id: bytes
    counter: int
    time_ms: int
    signed: bytes
    mac: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ValueError."""
        _expect(data, Kind.MOVE)
        ssrc, key_id, counter, time_ms = _MOVE.unpack_from(data, _HEADER_BYTES)
        return cls(ssrc, key_id, counter, time_ms, data[:-_MOVE_MAC_BYTES], data[-_MOVE_MAC_BYTES:])

    @property
    def nonce(self) -> bytes:
        """What the ACK to it repeats: the counter."""
        return self.counter.to_bytes(NONCE_BYTES)


def build_move(key: bytes, *, ssrc: int, counter: int, time_ms: int) -> bytes:
    """`time_ms` is Unix time; `counter` must be greater than of every move before."""
    body = _header(Kind.MOVE) + _MOVE.pack(ssrc, move_key_id(key), counter, time_ms)
    return body + _mac(key, body, _MOVE_MAC_BYTES)


@functools.lru_cache(maxsize=16_384)
def move_key_id(key: bytes) -> bytes:
    """4 bytes that tell which of the keys of one SSRC was used. They are no secret."""
    return _mac(key, _KEY_ID_LABEL, 4)


def build_hello(nonce: bytes) -> bytes:
    """Asks for a CHALLENGE; as long as that, so that it cannot be used to amplify."""
    return _padded(_header(Kind.HELLO) + _sized(nonce, NONCE_BYTES), Kind.HELLO)


def parse_hello(data: bytes) -> bytes:
    """The nonce. Raises ValueError."""
    _expect(data, Kind.HELLO)
    _expect_zero(data[16:])
    return data[8:16]


def build_challenge(nonce: bytes, cookie: bytes) -> bytes:
    """`nonce` is that of what it answers."""
    return _header(Kind.CHALLENGE) + _sized(nonce, NONCE_BYTES) + _sized(cookie, COOKIE_BYTES)


def parse_challenge(data: bytes) -> tuple[bytes, bytes]:
    """(nonce, cookie). Raises ValueError."""
    _expect(data, Kind.CHALLENGE)
    return data[8:16], data[16:]


def build_echo(nonce: bytes, cookie: bytes) -> bytes:
    """As long as the ACK to it."""
    body = _header(Kind.ECHO) + _sized(nonce, NONCE_BYTES) + _sized(cookie, COOKIE_BYTES)
    return _padded(body, Kind.ECHO)


def parse_echo(data: bytes) -> tuple[bytes, bytes]:
    """(nonce, cookie). Raises ValueError."""
    _expect(data, Kind.ECHO)
    _expect_zero(data[40:])
    return data[8:16], data[16:40]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a join token says: who may join what, until when, and for how long at a time."""

    session_id: str
    token_id: bytes
    lease_ms: int
    expires_ms: int
    subscriber_class: SubscriberClass

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Raises ValueError."""
        version, rank, lease_ms, expires_ms, token_id, session = _CLAIMS.unpack(
            _sized(packed, CLAIMS_BYTES)
        )
        if version != _CLAIMS_VERSION or rank >= len(SUBSCRIBER_CLASSES) or packed[2] or packed[3]:
            raise ValueError("the claims are of no known version")
        if lease_ms == 0:
            raise ValueError("the lease is 0")
        kind = SUBSCRIBER_CLASSES[rank]
        return cls(str(uuid.UUID(bytes=session)), token_id, lease_ms, expires_ms, kind)

    @property
    def packed(self) -> bytes:
        """As in the token and in the JOIN."""
        return _CLAIMS.pack(
            _CLAIMS_VERSION,
            self.subscriber_class.number,
            self.lease_ms,
            self.expires_ms,
            _sized(self.token_id, 8),
            uuid.UUID(self.session_id).bytes,
        )


def token_key(secret: bytes, packed_claims: bytes) -> bytes:
    """The key of a token, which the server makes anew from what the JOIN claims."""
    return _mac(secret, _TOKEN_LABEL + packed_claims, TOKEN_KEY_BYTES)


def stamp_key(secret: bytes) -> bytes:
    """The key of the stamps in token ids, by which a stranger's junk is told at no cost."""
    return _mac(secret, _STAMP_LABEL, STAMP_KEY_BYTES)


@dataclass(frozen=True, slots=True)
class Token:
    """Claims and the key that proves them. Only the claims travel in a JOIN."""

    claims: Claims
    key: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError; the key may still be wrong, which only the server can tell."""
        if not text.startswith(TOKEN_PREFIX):
            raise ValueError(f"a join token begins with {TOKEN_PREFIX}")
        encoded = text[len(TOKEN_PREFIX) :]
        if len(encoded) != _TOKEN_CHARACTERS:
            raise ValueError(f"a join token has {_TOKEN_CHARACTERS} characters after its prefix")
        if _NOT_BASE64URL.search(encoded):
            raise ValueError("the join token is not base64url")
        raw = base64.urlsafe_b64decode(encoded)
        return cls(Claims.unpack(raw[:CLAIMS_BYTES]), raw[CLAIMS_BYTES:])

    def __str__(self) -> str:
        packed = self.claims.packed + self.key
        return TOKEN_PREFIX + base64.urlsafe_b64encode(packed).decode("ascii")

    def __repr__(self) -> str:
        return f"Token({self.claims}, key=...)"  # a key has no place in a traceback


@dataclass(frozen=True, slots=True)
class Join(_Signed):
    """A JOIN or LEAVE; `cookie` is NO_COOKIE of one that has none yet."""

    kind: Kind
    nonce: bytes
    packed_claims: bytes
    claims: Claims
    cookie: bytes
    signed: bytes
    mac: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ValueError."""
        kind = _expect(data, Kind.JOIN, Kind.LEAVE)
        packed = data[16 : 16 + CLAIMS_BYTES]
        return cls(
            kind,
            data[8:16],
            packed,
            Claims.unpack(packed),
            data[56 : 56 + COOKIE_BYTES],
            data[:-_MAC_BYTES],
            data[-_MAC_BYTES:],
        )


def build_join(
    token: Token, *, nonce: bytes, cookie: bytes = NO_COOKIE, leave: bool = False
) -> bytes:
    """Signed over the cookie too, so that it serves the address the cookie was made for only."""
    body = (
        _header(Kind.LEAVE if leave else Kind.JOIN)
        + _sized(nonce, NONCE_BYTES)
        + token.claims.packed
        + _sized(cookie, COOKIE_BYTES)
    )
    return body + _mac(token.key, body, _MAC_BYTES)


@dataclass(frozen=True, slots=True)
class Answer(_Signed):
    """An ACK (`reason` None) or a DENY.

    `lifetime_ms` is how long what was asked for lasts unless it is asked for again;
    `cookie` is to be used the next time, NO_COOKIE where there is no next time.
    """

    nonce: bytes
    reason: Reason | None
    lifetime_ms: int
    cookie: bytes
    signed: bytes
    mac: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises ValueError."""
        kind = _expect(data, Kind.ACK, Kind.DENY)
        nonce, lifetime_ms, cookie = _ANSWER.unpack_from(data, _HEADER_BYTES)
        _expect_zero(data[20:24])
        reason = Reason(data[5]) if kind is Kind.DENY else None
        return cls(nonce, reason, lifetime_ms, cookie, data[:-_MAC_BYTES], data[-_MAC_BYTES:])


def build_answer(
    key: bytes,
    nonce: bytes,
    *,
    reason: Reason | None = None,
    lifetime_ms: int = 0,
    cookie: bytes = NO_COOKIE,
) -> bytes:
    """`key` is the token's, the session's move key, or the cookie that an ECHO brought."""
    kind = Kind.ACK if reason is None else Kind.DENY
    body = _header(kind, reason or 0) + _ANSWER.pack(
        _sized(nonce, NONCE_BYTES), min(lifetime_ms, 0xFFFFFFFF), _sized(cookie, COOKIE_BYTES)
    )
    return body + _mac(key, body, _MAC_BYTES)


def _header(kind: Kind, reason: int = 0) -> bytes:
    return _HEADER.pack(MAGIC, kind, reason)


def _mac(key: bytes, data: bytes, size: int) -> bytes:
    return hmac.digest(key, data, "sha256")[:size]


def _sized(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{size} bytes are expected, not {len(value)}")
    return value


def _padded(body: bytes, kind: Kind) -> bytes:
    return body + bytes(LENGTHS[kind] - len(body))


def _expect(data: bytes, *kinds: Kind) -> Kind:
    found = kind_of(data)
    if found not in kinds:
        raise ValueError(f"a {found.name} is no {' or '.join(kind.name for kind in kinds)}")
    return found


def _expect_zero(data: bytes) -> None:
    if any(data):
        raise ValueError("a reserved byte is not zero")
