"""TLS for the gRPC server: certificates that are read again when their files change."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
import structlog

from rtpfanout.errors import ConfigError

_log = structlog.stdlib.get_logger(__name__)


def server_credentials(certificate: str, key: str, client_ca: str) -> grpc.ServerCredentials:
    """With a `client_ca` callers need a certificate of it. Paths of PEM files.

    Raises ConfigError if one can't be used; later on, what was read last stays in use.
    """
    files = _Files(certificate, key, client_ca)
    return grpc.dynamic_ssl_server_credentials(
        files.read(),
        files.read_if_changed,  # type: ignore[arg-type]  # the stubs forget None
        require_client_authentication=bool(client_ca),
    )


class _Files:
    def __init__(self, certificate: str, key: str, client_ca: str) -> None:
        self._paths = {"certificate": certificate, "key": key}
        if client_ca:
            self._paths["client_ca"] = client_ca
        self._stamp: tuple[object, ...] = ()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Raises ConfigError."""
        contents = {}
        for name, path in self._paths.items():
            try:
                contents[name] = Path(path).read_bytes()
            except OSError as error:
                raise ConfigError(
                    f"{path} can't be read: {error.strerror}", field=f"tls.{name}"
                ) from None
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._paths["certificate"], self._paths["key"])
            if "client_ca" in self._paths:
                context.load_verify_locations(self._paths["client_ca"])
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(
                f"certificate, key and client CA don't fit together: {error}",
                field="tls.certificate",
            ) from None
        self._stamp = self._stamps()
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
            self._stamp = self._stamps()
            return None
        _log.info("certificates reloaded")
        return configuration

    def _stamps(self) -> tuple[object, ...]:
        stamps: list[object] = []
        for path in self._paths.values():
            try:
                status = Path(path).stat()
                stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
            except OSError:
                stamps.append(None)
        return tuple(stamps)
