"""Who calls the control API, what their role lets them do, and which sessions they see.

An identity comes from a bearer token (a JWT, RFC 7519) or from the client certificate. It has a
role, and perhaps labels that confine it: sessions without those labels do not exist for it.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jwt

from rtpfanout.errors import (
    ConfigError,
    NotFoundError,
    PermissionDeniedError,
    RtpFanoutError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rtpfanout.config import Settings

ALGORITHMS = ("RS256", "ES256", "EdDSA", "HS256")
CLOCK_LEEWAY_SECONDS = 10
KEYS_LOOKED_AT_SECONDS = 1.0
"""How often, at most, the key file is looked at for a change."""

READING = frozenset(
    ("GetSession", "ListSessions", "GetSessionStats", "ListSubscribers", "WatchSessions")
)
SUBSCRIBING = frozenset(
    (
        "AddSubscriber",
        "RemoveSubscriber",
        "BatchAddSubscribers",
        "BatchRemoveSubscribers",
        "IssueJoinToken",
    )
)
OPERATING = frozenset(("CreateSession", "UpdateSession", "DeleteSession"))


class Role(enum.StrEnum):
    """What an identity may call; each may do what those before it may."""

    VIEWER = "viewer"
    SUBSCRIBER = "subscriber"
    OPERATOR = "operator"
    ADMIN = "admin"


_ALLOWED = {
    Role.VIEWER: READING,
    Role.SUBSCRIBER: READING | SUBSCRIBING,
    Role.OPERATOR: READING | SUBSCRIBING | OPERATING,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `scope` are labels that a session must have to be theirs; empty: all are."""

    name: str
    role: Role
    scope: Mapping[str, str] = field(default_factory=dict)

    def may(self, method: str) -> bool:
        """Whether the role lets it make this call."""
        return self.role is Role.ADMIN or method in _ALLOWED[self.role]

    def sees(self, labels: Mapping[str, str]) -> bool:
        """Whether a session with these labels exists for it."""
        return all(labels.get(key) == value for key, value in self.scope.items())


ANYBODY = Identity("anonymous", Role.ADMIN)
"""Where neither tokens nor certificates are asked for."""
LOCAL = Identity("local", Role.ADMIN)
"""Who can open the Unix socket."""


class Keys:
    """The keys of tokens, by key id; read again when the file changes."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if there are none to read."""
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._looked_at = 0.0
        self._keys: list[jwt.PyJWK] = []
        self._refresh()

    def for_token(self, token: str) -> list[jwt.PyJWK]:
        """The keys that may have signed it."""
        if time.monotonic() - self._looked_at >= KEYS_LOOKED_AT_SECONDS:
            with contextlib.suppress(ConfigError):  # half-written, perhaps: the old keys stay
                self._refresh()
        header = jwt.get_unverified_header(token)
        key_id, algorithm = header.get("kid"), header.get("alg")
        return [
            key
            for key in self._keys
            if key.algorithm_name == algorithm
            and (key_id is None or key.key_id is None or key.key_id == key_id)
        ]

    def _refresh(self) -> None:
        self._looked_at = time.monotonic()
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._keys = _read_keys(self._path.read_bytes())
                self._stamp = stamp
        except OSError as error:
            raise ConfigError(
                f"{self._path} can't be read: {error.strerror}", field="auth.jwt_keys"
            ) from None
        except (ValueError, jwt.PyJWTError) as error:
            raise ConfigError(
                f"{self._path} is neither a JWKS nor public keys in PEM: {error}",
                field="auth.jwt_keys",
            ) from None


def _read_keys(data: bytes) -> list[jwt.PyJWK]:
    if data.lstrip().startswith(b"{"):
        tree = json.loads(data)
        keys = [jwt.PyJWK(entry) for entry in tree.get("keys", [tree])]
    else:
        keys = [_from_pem(block) for block in _pem_blocks(data)]
    keys = [key for key in keys if key.algorithm_name in ALGORITHMS]
    if not keys:
        raise ValueError(f"no key for any of {', '.join(ALGORITHMS)}")
    return keys


def _pem_blocks(data: bytes) -> list[bytes]:
    end = b"-----END PUBLIC KEY-----"
    return [block + end for block in data.split(end)[:-1]]


def _from_pem(block: bytes) -> jwt.PyJWK:
    for algorithm in ("RS256", "ES256", "EdDSA"):
        implementation = jwt.get_algorithm_by_name(algorithm)
        try:
            described = implementation.to_jwk(implementation.prepare_key(block))
        except (TypeError, ValueError, jwt.PyJWTError, AttributeError):
            continue
        tree = json.loads(described) if isinstance(described, str) else described
        return jwt.PyJWK(tree, algorithm)
    raise ValueError("a PEM block holds no RSA, P-256 or Ed25519 public key")


def certificate_roles(entries: Sequence[str]) -> dict[str, Identity]:
    """Identities by certificate name, from "name role label=value ...". Raises ConfigError."""
    identities = {}
    for entry in entries:
        name, _, rest = entry.partition(" ")
        role, *labels = rest.split() or [""]
        pairs = [label.partition("=") for label in labels]
        if role not in list(Role) or not all(key and value for key, _, value in pairs):
            raise ConfigError(
                f"{entry!r} is not a name, one of {', '.join(Role)}, and labels such as site=north",
                field="auth.certificate_roles",
            )
        identities[name] = Identity(name, Role(role), {key: value for key, _, value in pairs})
    return identities


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of a call before its identity: the peer, and what it showed."""

    peer: str
    """As gRPC names it: ipv4:…, ipv6:… or unix:…"""
    authorization: str = ""
    """The metadata of that name."""
    certificate_names: tuple[str, ...] = ()
    """Common name and DNS names of a certificate that the client CA signed."""


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
        self.failures: Counter[str] = Counter(
            dict.fromkeys(("missing", "malformed", "expired", "signature", "claims", "name"), 0)
        )

    @classmethod
    def of(cls, settings: Settings) -> Access:
        """As configured. Raises ConfigError."""
        auth = settings.auth
        return cls(
            keys=Keys(Path(auth.jwt_keys)) if auth.jwt_keys else None,
            issuer=auth.issuer,
            audience=auth.audience,
            certificates=(
                certificate_roles(auth.certificate_roles) if settings.tls.client_ca else None
            ),
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
        if self._certificates is not None:
            for name in (*caller.certificate_names, "*"):
                if identity := self._certificates.get(name):
                    shown = caller.certificate_names[0] if caller.certificate_names else name
                    return Identity(shown, identity.role, identity.scope)
            raise self._refused("name", "this certificate's name has no role here")
        raise self._refused("missing", "a bearer token is needed")

    def _of_token(self, token: str, keys: Keys) -> Identity:
        try:
            candidates = keys.for_token(token)
        except jwt.PyJWTError:
            raise self._refused("malformed", "the token is not a JWT") from None
        claims: dict[str, Any] | None = None
        for key in candidates:
            try:
                claims = jwt.decode(
                    token,
                    key.key,
                    algorithms=[key.algorithm_name],
                    issuer=self._issuer or None,
                    audience=self._audience or None,
                    leeway=CLOCK_LEEWAY_SECONDS,
                    options={"require": ["exp"]},
                )
                break
            except jwt.ExpiredSignatureError:
                raise self._refused("expired", "the token has expired") from None
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError:
                raise self._refused("claims", "the token is not for this server") from None
        if claims is None:
            raise self._refused("signature", "the token is not signed by a key that is known here")
        return self._identity(claims)

    def _identity(self, claims: Mapping[str, Any]) -> Identity:
        role, labels = claims.get("role"), claims.get("labels", {})
        if role not in list(Role) or not (
            isinstance(labels, dict)
            and all(isinstance(part, str) and part for pair in labels.items() for part in pair)
        ):
            raise self._refused("claims", "the token's role or labels are not valid")
        return Identity(str(claims.get("sub", "token")), Role(role), labels)

    def _refused(self, reason: str, message: str) -> UnauthenticatedError:
        self.failures[reason] += 1
        return UnauthenticatedError(message)


def confine(
    identity: Identity,
    method: str,
    request: Any,
    labels_of: Callable[[str], Mapping[str, str]],
) -> None:
    """Makes `request` one that reaches the identity's own sessions only, or raises.

    A session of others is answered as one that does not exist, with the very words of the
    manager. Raises PermissionDeniedError, NotFoundError.
    """
    if not identity.may(method):
        raise PermissionDeniedError(f"the role {identity.role} may not call {method}")
    if not identity.scope:
        return
    if request_id := getattr(request, "request_id", ""):
        request.request_id = _own_request_id(identity, request_id)
    if method in ("ListSessions", "WatchSessions"):
        scope = ",".join(f"{key}={value}" for key, value in sorted(identity.scope.items()))
        request.label_selector = ",".join(filter(None, (request.label_selector, scope)))
    elif method == "CreateSession":
        _keep_labels(identity, request.labels)
        for key, value in identity.scope.items():
            request.labels[key] = value
    else:
        _confine_to_seen(identity, request.session_id, labels_of)
        if method == "UpdateSession":
            _keep_labels(identity, request.labels)


def _own_request_id(identity: Identity, request_id: str) -> str:
    """Else an id would tell, by being refused, that others used it, and could be taken from them.

    What is no request id stays as it is, for the manager to refuse.
    """
    if len(request_id) > 64 or not all("!" <= letter <= "~" for letter in request_id):
        return request_id
    scope = json.dumps(sorted(identity.scope.items()))
    return hashlib.sha256(f"{scope} {request_id}".encode()).hexdigest()


def _confine_to_seen(
    identity: Identity, session_id: str, labels_of: Callable[[str], Mapping[str, str]]
) -> None:
    try:
        labels = labels_of(session_id)
    except RtpFanoutError:
        return  # the call itself says what is wrong, in the same words to everybody
    if not identity.sees(labels):
        raise NotFoundError(f"no session {session_id.lower()}", field="session_id")


def _keep_labels(identity: Identity, labels: Mapping[str, str]) -> None:
    for key, value in identity.scope.items():
        if key in labels and labels[key] != value:
            raise PermissionDeniedError(
                f"the label {key} must stay {value}: you are confined to it", field="labels"
            )
