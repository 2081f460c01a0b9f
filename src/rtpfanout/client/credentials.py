"""What a client shows a server: certificates, and a bearer token."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc

from rtpfanout.errors import ConfigError
from rtpfanout.filestamp import stamp_of


@dataclass(frozen=True, slots=True)
class Credentials:
    """For `SessionClient(credentials=...)`; files are PEM, and are read when a client is made.

    With a `ca_file`, or `tls`, the connection is TLS, and the server's certificate is
    checked against that, else against the system's authorities. `cert_file` and `key_file`
    are the client's own (mTLS). `token`, or what is in `token_file` (read again whenever
    the file changes), goes with each call as ``authorization: Bearer``; without TLS
    everybody on the way can read it.
    """

    ca_file: str | Path | None = None
    cert_file: str | Path | None = None
    key_file: str | Path | None = None
    token: str | None = None
    token_file: str | Path | None = None
    tls: bool = False

    def __post_init__(self) -> None:
        if (self.cert_file is None) != (self.key_file is None):
            raise ConfigError("a client certificate needs both cert_file and key_file")
        if self.token is not None and self.token_file is not None:
            raise ConfigError("give a token or a token_file, not both", field="token_file")

    @classmethod
    def from_environment(cls) -> Self | None:
        """From RTP_FANOUT_CA_FILE, _CERT_FILE, _KEY_FILE, _TOKEN, _TOKEN_FILE and _TLS=1;
        None without any of them."""
        found = {
            name: value
            for name in ("ca_file", "cert_file", "key_file", "token", "token_file")
            if (value := os.environ.get(f"RTP_FANOUT_{name.upper()}"))
        }
        tls = os.environ.get("RTP_FANOUT_TLS") == "1"
        return cls(**found, tls=tls) if found or tls else None

    def for_channel(self) -> grpc.ChannelCredentials | None:
        """TLS, or None for a connection without. Raises ConfigError."""
        if not (self.tls or self.ca_file or self.cert_file):
            return None
        ca, key, cert = (
            None if path is None else _read(Path(path), name)
            for name, path in (
                ("ca_file", self.ca_file),
                ("key_file", self.key_file),
                ("cert_file", self.cert_file),
            )
        )
        return grpc.ssl_channel_credentials(ca, key, cert)


class Bearer:
    """The metadata of a call that `credentials` ask for. Safe to share between threads."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._token = credentials.token if credentials else None
        file = credentials.token_file if credentials else None
        self._file = Path(file) if file is not None else None
        self._read: tuple[tuple[int, ...] | None, str] | None = None

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """To be asked anew for each attempt. Raises ConfigError (the token file)."""
        token = self._token if self._file is None else self._from_file(self._file)
        return () if token is None else (("authorization", f"Bearer {token}"),)

    def _from_file(self, path: Path) -> str:
        stamp = stamp_of(path)
        if self._read is None or stamp is None or self._read[0] != stamp:
            try:
                token = _read(path, "token_file").decode("ascii").strip()
            except UnicodeDecodeError:
                token = ""
            if not token.isprintable() or not token or " " in token:
                raise ConfigError(f"{path} is not one line with a token", field="token_file")
            self._read = (stamp, token)
        return self._read[1]


def _read(path: Path, field: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field=field) from None
