"""A certificate authority for a test, certificates of it, and tokens."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import time
from typing import TYPE_CHECKING, Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

if TYPE_CHECKING:
    from pathlib import Path

SECRET = b"k" * 32


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


class Authority:
    """`pem` is its certificate."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = self._signed(
            self._name, self._key, [x509.BasicConstraints(ca=True, path_length=None)]
        )
        self.pem = self._certificate.public_bytes(Encoding.PEM)

    def issue(self, common_name: str, *dns: str) -> tuple[bytes, bytes]:
        """Certificate and key in PEM, good for 127.0.0.1 and the DNS names."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, dns)]
        certificate = self._signed(_name(common_name), key, [x509.SubjectAlternativeName(names)])
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return certificate.public_bytes(Encoding.PEM), pem

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extensions: list[Any]
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=True)
        return builder.sign(self._key, hashes.SHA256())


def write_server(place: Path, authority: Authority) -> dict[str, str]:
    """server.pem and server.key of `authority`, and the settings that name them."""
    certificate, key = authority.issue("server")
    (place / "server.pem").write_bytes(certificate)
    (place / "server.key").write_bytes(key)
    return {
        "tls__certificate": str(place / "server.pem"),
        "tls__key": str(place / "server.key"),
    }


def write_keys(path: Path, secret: bytes = SECRET) -> str:
    """A JWKS with one secret."""
    text = base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    path.write_text(json.dumps({"keys": [{"kty": "oct", "k": text, "kid": "one"}]}))
    return str(path)


def token(secret: bytes = SECRET, **claims: Any) -> str:
    """Signed by HS256, good for five minutes unless `claims` say something else."""
    return jwt.encode({"exp": time.time() + 300, **claims}, secret, "HS256")


def bearer(secret: bytes = SECRET, **claims: Any) -> list[tuple[str, str]]:
    """Metadata of a call."""
    return [("authorization", f"Bearer {token(secret, **claims)}")]
