"""From what a caller shows to who it is."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt

from rtpfanout.auth.keys import Keys, TokenKey
from rtpfanout.auth.rules import ANYBODY, LOCAL, Identity, Role, scope_of
from rtpfanout.errors import ConfigError, UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtpfanout.config import Settings

CLOCK_LEEWAY_SECONDS = 10
LONGEST_TOKEN = 8192
FAILURES = ("missing", "malformed", "expired", "signature", "claims", "certificate_name")
"""Why a call got no identity; what Access counts by."""

# What PyJWT lets through of numbers and texts that are none, and of nesting without end.
_MALFORMED = (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError)


def certificate_roles(entries: Sequence[str]) -> dict[str, Identity]:
    """Identities by certificate name, from "name role label=value ...". Raises ConfigError.

    The name may have spaces: the role is the last word that isn't a label.
    """
    identities = {}
    for entry in entries:
        words = entry.split()
        labels: dict[str, str] = {}
        while words and "=" in words[-1]:
            key, _, value = words.pop().partition("=")
            if labels.setdefault(key, value) != value:
                value = ""
            labels[key] = value
        role = words.pop() if words else ""
        name, scope = " ".join(words), scope_of(labels)
        if role not in list(Role) or not name or scope is None:
            raise ConfigError(
                f"{entry!r} is not a name, one of {', '.join(Role)}, and labels such as site=north",
                field="auth.certificate_roles",
            )
        if name in identities:
            raise ConfigError(f"{name!r} is there twice", field="auth.certificate_roles")
        identities[name] = Identity(name, Role(role), scope)
    return identities


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of a call before its identity: the peer, and what it showed."""

    peer: str
    """As gRPC names it: ipv4:…, ipv6:… or unix:…"""
    authorization: str = ""
    """The metadata of that name."""
    certificate_names: tuple[str, ...] | None = None
    """Common name and alternative names of a certificate that the client CA signed."""


class Access:
    """Judges calls. `failures` counts those that got no identity, by reason."""

    def __init__(
        self,
        *,
        keys: Keys | None = None,
        issuer: str = "",
        audience: str = "",
        certificates: Mapping[str, Identity] | None = None,
    ) -> None:
        """`certificates` is None where no client CA is configured."""
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._certificates = certificates
        self.failures: Counter[str] = Counter(dict.fromkeys(FAILURES, 0))

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """As configured. Raises ConfigError.

        Without `certificate_roles` any certificate will do, but not instead of a token: else
        who has both could leave the token out to be more than it says.
        """
        auth = settings.auth
        roles = certificate_roles(
            auth.certificate_roles or (() if auth.jwt_keys else (f"* {Role.ADMIN}",))
        )
        return cls(
            keys=Keys(Path(auth.jwt_keys)) if auth.jwt_keys else None,
            issuer=auth.issuer,
            audience=auth.audience,
            certificates=roles if settings.tls.client_ca else None,
        )

    @property
    def is_open(self) -> bool:
        """Nobody has to show anything."""
        return self._keys is None and self._certificates is None

    def identify(self, caller: Caller) -> Identity:
        """Raises UnauthenticatedError."""
        if caller.peer.startswith("unix:"):
            return LOCAL
        if self.is_open:
            return ANYBODY
        if caller.authorization and self._keys:
            scheme, _, token = caller.authorization.partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise self._refused("malformed", "authorization is not 'Bearer <token>'")
            return self._of_token(token.strip(), self._keys)
        if self._certificates and caller.certificate_names is not None:
            for name in (*caller.certificate_names, "*"):
                if identity := self._certificates.get(name):
                    shown = caller.certificate_names[0] if caller.certificate_names else name
                    return Identity(shown, identity.role, identity.scope)
            raise self._refused("certificate_name", "this certificate's name has no role here")
        raise self._refused("missing", "a bearer token is needed")

    def overview_status(self, authorization: str) -> int:
        """For a page about all sessions: the HTTP status 200, 401 or 403."""
        try:
            identity = self.identify(Caller("http", authorization))
        except UnauthenticatedError:
            return 401
        return 403 if identity.scope else 200

    def recheck(self, identity: Identity) -> None:
        """During a long call. Raises UnauthenticatedError once the token has expired."""
        if time.time() >= identity.expires + CLOCK_LEEWAY_SECONDS:
            raise self._refused("expired", "the token has expired")

    def _of_token(self, token: str, keys: Keys) -> Identity:
        if len(token) > LONGEST_TOKEN:
            raise self._refused("malformed", f"the token is longer than {LONGEST_TOKEN}")
        try:
            header = jwt.get_unverified_header(token)
        except _MALFORMED:
            raise self._refused("malformed", "the token is not a JWT") from None
        if "crit" in header:  # RFC 7515 section 4.1.11: we understand no extension
            raise self._refused("malformed", "the token has critical extensions")
        for key in keys.for_header(header):
            try:
                return self._identity(self._decoded(token, key))
            except jwt.ExpiredSignatureError:
                raise self._refused("expired", "the token has expired") from None
            except jwt.InvalidSignatureError:
                continue
            except _MALFORMED:
                break
        else:
            raise self._refused("signature", "the token is not signed by a key that is known here")
        raise self._refused("claims", "the token is not for this server")

    def _decoded(self, token: str, key: TokenKey) -> dict[str, Any]:
        return jwt.decode(
            token,
            key.material,
            algorithms=[key.algorithm],
            issuer=self._issuer or None,
            audience=self._audience or None,
            leeway=CLOCK_LEEWAY_SECONDS,
            options={"require": ["exp"]},
        )

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        expires, role, scope = claims["exp"], claims.get("role"), scope_of(claims.get("labels", {}))
        if isinstance(expires, bool) or not isinstance(expires, int | float):
            raise ValueError("exp is no number")  # PyJWT takes texts
        if not isinstance(role, str) or role not in list(Role) or scope is None:
            raise ValueError("role or labels are none")
        return Identity(claims.get("sub", "token"), Role(role), scope, float(expires))

    def _refused(self, reason: str, message: str) -> UnauthenticatedError:
        self.failures[reason] += 1
        return UnauthenticatedError(message)
