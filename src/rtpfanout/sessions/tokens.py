"""Issuing join tokens. Nothing is kept: the server knows a token again by its own secret."""

from __future__ import annotations

import math
import secrets
from datetime import UTC, datetime
from typing import TypedDict, Unpack

from rtpfanout import signed
from rtpfanout._fastpath import stamp_claims
from rtpfanout.errors import InvalidArgumentError
from rtpfanout.sessions import fields

JOIN_SECRET = "join"  # noqa: S105
"""The name of the secret that tokens are made and known by; the store keeps it."""
DEFAULT_TTL_SECS = 3600.0
DEFAULT_LEASE_SECS = 30.0
SHORTEST_LEASE_SECS = 1.0


class Asked(TypedDict, total=False):
    """What a token is to grant; 0, "" and nothing stand for the defaults.

    `ttl_secs`: how long it lets join. `lease_secs`: how long a join lasts.
    """

    ttl_secs: float
    lease_secs: float
    subscriber_class: str


def issue(
    secret: bytes, session_id: str, now: datetime, **asked: Unpack[Asked]
) -> tuple[str, datetime]:
    """The token's text, and when it ends. `session_id` is that of a session there is.

    Raises InvalidArgumentError.
    """
    ttl = _seconds(asked.get("ttl_secs", 0), "ttl_secs", DEFAULT_TTL_SECS)
    lease = _seconds(asked.get("lease_secs", 0), "lease_secs", DEFAULT_LEASE_SECS)
    expires_ms = math.floor((now.timestamp() + ttl) * 1000)
    claims = signed.Claims(
        session_id=session_id,
        token_id=secrets.token_bytes(4) + bytes(4),  # the stamp's place
        lease_ms=round(lease * 1000),
        expires_ms=expires_ms,
        subscriber_class=fields.subscriber_class_of(asked.get("subscriber_class", "")),
    )
    packed = stamp_claims(signed.stamp_key(secret), claims.packed)
    token = signed.Token(signed.Claims.unpack(packed), signed.token_key(secret, packed))
    return str(token), datetime.fromtimestamp(expires_ms / 1000, UTC)


def _seconds(value: float, field: str, default: float) -> float:
    if value == 0:
        return default
    if not SHORTEST_LEASE_SECS <= value <= fields.LONGEST_TTL_SECS:  # and so no NaN
        raise InvalidArgumentError(
            f"{value:g} is not {SHORTEST_LEASE_SECS:g} to {fields.LONGEST_TTL_SECS:g} seconds;"
            f" 0 stands for {default:g}",
            field=field,
        )
    return value
