"""The keys that tokens are signed with: a JWKS (RFC 7517) or public keys in PEM."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from rtpfanout.errors import ConfigError
from rtpfanout.filestamp import stamp_of

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHMS = ("RS256", "ES256", "EdDSA", "HS256")
LOOKED_AT_SECONDS = 1.0
"""How often, at most, the file is looked at for a change."""
SHORTEST_SECRET_BYTES = 32  # RFC 7518 section 3.2
SHORTEST_RSA_BITS = 2048  # RFC 7518 section 3.3

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key, good for one algorithm and no other, whatever a token says of itself."""

    id: str | None
    algorithm: str
    material: Any


class Keys:
    """The keys of tokens; read again when the file changes.

    A file that can't be read or used leaves the keys as they were, with a warning.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError if there are none to read."""
        self._path = path
        self._looked_at = time.monotonic()
        self._stamp = stamp_of(self._path)
        self._keys = self._read()

    def for_header(self, header: dict[str, Any]) -> list[TokenKey]:
        """Those that may have signed a token with this header."""
        if time.monotonic() - self._looked_at >= LOOKED_AT_SECONDS:
            self._refresh()
        key_id, algorithm = header.get("kid"), header.get("alg")
        return [
            key
            for key in self._keys
            if key.algorithm == algorithm and (key_id is None or key.id in (None, key_id))
        ]

    def _refresh(self) -> None:
        self._looked_at = time.monotonic()
        stamp = stamp_of(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = self._read()
        except ConfigError as error:
            _log.warning("token keys not reloaded", key=error.field, reason=error.message)
        else:
            _log.info("token keys reloaded", keys=len(self._keys))

    def _read(self) -> list[TokenKey]:
        try:
            return read_keys(self._path.read_bytes())
        except OSError as error:
            reason = f"can't be read: {error.strerror}"
        except ValueError as error:
            reason = f"is neither a JWKS nor public keys in PEM: {error}"
        raise ConfigError(f"{self._path} {reason}", field="auth.jwt_keys")


def read_keys(data: bytes) -> list[TokenKey]:
    """Raises ValueError."""
    if data.lstrip().startswith(b"{"):
        tree = json.loads(data)
        entries = tree.get("keys", [tree])
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("keys is not a list of objects")
        keys = [key for entry in entries if (key := _from_jwk(entry)) is not None]
    else:
        keys = [_from_pem(block) for block in _pem_blocks(data)]
    if not keys:
        raise ValueError(f"no key for any of {', '.join(ALGORITHMS)}")
    for key in keys:
        _check_strength(key)
    return keys


def _from_jwk(entry: dict[str, Any]) -> TokenKey | None:
    """None for what we have no use for, as RFC 7517 section 5 asks."""
    if entry.get("use", "sig") != "sig":
        return None
    if entry.get("kty") != "oct" and "d" in entry:
        raise ValueError("it holds a private key, which only who issues tokens should have")
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, UnsupportedAlgorithm):
        return None
    key_id = entry.get("kid")
    if key.algorithm_name not in ALGORITHMS or not isinstance(key_id, str | None):
        return None
    return TokenKey(key_id, key.algorithm_name, key.key)


def _pem_blocks(data: bytes) -> list[bytes]:
    end = b"-----END PUBLIC KEY-----"
    blocks = [block + end for block in data.split(end)[:-1]]
    if len(blocks) != data.count(b"-----BEGIN ") or len(blocks) != data.count(b"-----END "):
        raise ValueError("expected whole blocks of PUBLIC KEY and nothing else")
    return blocks


def _from_pem(block: bytes) -> TokenKey:
    try:
        key = load_pem_public_key(block)
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    if isinstance(key, rsa.RSAPublicKey):
        return TokenKey(None, "RS256", key)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return TokenKey(None, "ES256", key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return TokenKey(None, "EdDSA", key)
    raise ValueError("a block is no RSA, P-256 or Ed25519 public key")


def _check_strength(key: TokenKey) -> None:
    if isinstance(key.material, bytes) and len(key.material) < SHORTEST_SECRET_BYTES:
        raise ValueError(f"a secret has less than {SHORTEST_SECRET_BYTES} bytes")
    if isinstance(key.material, rsa.RSAPublicKey) and key.material.key_size < SHORTEST_RSA_BITS:
        raise ValueError(f"an RSA key has less than {SHORTEST_RSA_BITS} bits")
