"""Who asks, by what a request shows: the same tokens, roles and labels as calls of the API.

A bearer token as such, as the password of Basic, or as `token` of the URL's query, since few
players can send a header of their own. In its place a join token will do, for its session alone.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout import signed
from rtpfanout.auth import Access, Caller, Identity, Role
from rtpfanout.errors import PermissionDeniedError, UnauthenticatedError
from rtpfanout.model import SubscriberClass

if TYPE_CHECKING:
    from rtpfanout.rtsp.wire import Request

CHALLENGE = 'Basic realm="rtpfanout", charset="UTF-8"'


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may see. `session_id`: only that one, by a join token."""

    identity: Identity
    session_id: str = ""
    subscriber_class: SubscriberClass = SubscriberClass.MONITOR

    def check(self, method: str) -> None:
        """That its role lets it make that call of the API. Raises PermissionDeniedError."""
        if not self.identity.may(method):
            raise PermissionDeniedError(f"the role {self.identity.role} may not call {method}")

    def covers(self, session_id: str) -> bool:
        """As far as a join token says; labels are looked at where the session is."""
        return self.session_id in ("", session_id)


class Credentials:
    """Judges requests."""

    def __init__(self, access: Access) -> None:
        self.access = access

    def identify(self, shown: str, peer: str, names: Names, join_secret: bytes) -> Grant:
        """`shown`: see `token_of`. `peer` as gRPC names it, `names` of a certificate, or None.
        `join_secret`: for who shows a join token.

        Raises UnauthenticatedError.
        """
        if is_join_token(shown):
            return self._of_join_token(shown, join_secret)
        authorization = f"Bearer {shown}" if shown else ""
        return Grant(self.access.identify(Caller(peer, authorization, names)))

    def recheck(self, grant: Grant) -> None:
        """Later on. Raises UnauthenticatedError."""
        self.access.recheck(grant.identity)

    def _of_join_token(self, text: str, secret: bytes) -> Grant:
        with contextlib.suppress(ValueError):
            token = signed.Token.parse(text)
            claims = token.claims
            key = signed.token_key(secret, claims.packed)
            expires = claims.expires_ms / 1000
            if hmac.compare_digest(key, token.key) and time.time() < expires:
                identity = Identity("join token", Role.SUBSCRIBER, expires=expires)
                return Grant(identity, claims.session_id, claims.subscriber_class)
        self.access.failures["signature"] += 1
        raise UnauthenticatedError("the join token is not good, or not any more")


Names = tuple[str, ...] | None


def is_join_token(shown: str) -> bool:
    """Or what pretends to be one."""
    return shown.startswith(signed.TOKEN_PREFIX)


def token_of(request: Request) -> str:
    """In its header; "" where there is none."""
    scheme, _, value = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        text = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, ValueError):
        return ""
    user, _, password = text.partition(":")
    return password or user


def names_of(certificate: object) -> Names:
    """Common and alternative names of what `SSLObject.getpeercert` gave."""
    if not isinstance(certificate, dict) or not certificate:
        return None
    pairs = [pair for entry in certificate.get("subject", ()) for pair in entry]
    names = [value for key, value in pairs if key == "commonName"]
    names += [value for _kind, value in certificate.get("subjectAltName", ())]
    return tuple(map(str, names))
