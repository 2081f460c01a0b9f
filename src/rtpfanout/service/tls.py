"""TLS for the gRPC server: certificates that are read again when their files change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_pem_x509_certificates

from rtpfanout.errors import ConfigError
from rtpfanout.filestamp import stamp_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

_log = structlog.stdlib.get_logger(__name__)


def server_credentials(certificate: str, key: str, client_ca: str) -> grpc.ServerCredentials:
    """With a `client_ca` callers need a certificate of it. Paths of PEM files.

    Raises ConfigError if one can't be used; later on, what was read last stays in use.
    """
    files = Files(certificate, key, client_ca)
    return grpc.dynamic_ssl_server_credentials(
        files.read(),
        files.read_if_changed,  # type: ignore[arg-type]  # the stubs forget None
        require_client_authentication=bool(client_ca),
    )


class Files:
    """The files and what they were when they were read last."""

    def __init__(self, certificate: str, key: str, client_ca: str = "") -> None:
        self._paths = {"certificate": Path(certificate), "key": Path(key)}
        if client_ca:
            self._paths["client_ca"] = Path(client_ca)
        self._stamp: tuple[object, ...] = ()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises ConfigError."""
        self._stamp = self._stamps()
        contents = {name: self._contents(name) for name in self._paths}
        _check(contents)
        return grpc.ssl_server_certificate_configuration(
            [(contents["key"], contents["certificate"])], contents.get("client_ca")
        )

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """At each handshake, in a thread of gRPC's: None for "as before"."""
        if self._stamps() == self._stamp:
            return None
        try:
            configuration = self.read()
        except ConfigError as error:
            _log.warning("certificates not reloaded", key=error.field, reason=error.message)
            return None
        _log.info("certificates reloaded")
        return configuration

    def _contents(self, name: str) -> bytes:
        path = self._paths[name]
        try:
            return path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"{path} can't be read: {error.strerror}", field=f"tls.{name}"
            ) from None

    def _stamps(self) -> tuple[object, ...]:
        return tuple(map(stamp_of, self._paths.values()))


def _check(contents: dict[str, bytes]) -> None:
    """That they are what gRPC will take, which doesn't say what was wrong. Raises ConfigError."""
    field = ""
    try:
        for field in contents.keys() - {"key"}:
            certificates = load_pem_x509_certificates(contents[field])
            if field == "certificate":
                certified = _spelt(certificates[0].public_key())
        field = "key"
        key = load_pem_private_key(contents["key"], None)
        if _spelt(key.public_key()) != certified:  # type: ignore[arg-type]
            raise ValueError("it is not the key of the certificate")
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"tls.{field} can't be used: {error}", field=f"tls.{field}") from None


def _spelt(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
