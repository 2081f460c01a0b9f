"""Issuing join tokens. Nothing is kept: the server knows a token again by its own secret."""

from __future__ import annotations

import math
import secrets
from datetime import UTC, datetime

from rtpfanout import signed
from rtpfanout._fastpath import stamp_claims
from rtpfanout.errors import InvalidArgumentError
from rtpfanout.model import SubscriberClass

SECRET = "join"  # noqa: S105 (its name, for SessionManager.secret)
DEFAULT_TTL_SECS = 3600.0
DEFAULT_LEASE_SECS = 30.0
SHORTEST_LEASE_SECS = 1.0
LONGEST_SECS = 30 * 86_400.0


def issue(
    secret: bytes,
    session_id: str,
    *,
    ttl_secs: float,
    lease_secs: float,
    subscriber_class: str,
    now: datetime,
) -> tuple[str, datetime]:
    """The token's text, and when it ends. `session_id` is that of a session there is.

    0 and "" stand for the defaults of IssueJoinTokenRequest. Raises InvalidArgumentError.
    """
    ttl = _seconds(ttl_secs, "ttl_secs", DEFAULT_TTL_SECS)
    lease = _seconds(lease_secs, "lease_secs", DEFAULT_LEASE_SECS)
    expires_ms = math.floor((now.timestamp() + ttl) * 1000)
    claims = signed.Claims(
        session_id=session_id,
        token_id=secrets.token_bytes(4) + bytes(4),  # the stamp's place
        lease_ms=round(lease * 1000),
        expires_ms=expires_ms,
        subscriber_class=_subscriber_class(subscriber_class),
    )
    packed = stamp_claims(signed.stamp_key(secret), claims.packed)
    token = signed.Token(signed.Claims.unpack(packed), signed.token_key(secret, packed))
    return str(token), datetime.fromtimestamp(expires_ms / 1000, UTC)


def _seconds(value: float, field: str, default: float) -> float:
    if value == 0:
        return default
    if not SHORTEST_LEASE_SECS <= value <= LONGEST_SECS:  # and so no NaN
        raise InvalidArgumentError(
            f"{value:g} is not {SHORTEST_LEASE_SECS:g} to {LONGEST_SECS:g} seconds;"
            f" 0 stands for {default:g}",
            field=field,
        )
    return value


def _subscriber_class(text: str) -> SubscriberClass:
    try:
        return SubscriberClass(text or SubscriberClass.MONITOR)
    except ValueError:
        shown = repr(text if len(text) <= 80 else text[:77] + "...")
        raise InvalidArgumentError(
            f"{shown} is not pilot, recorder or monitor", field="subscriber_class"
        ) from None
