"""Who posts is shown by a signature, as Standard Webhooks has it (standardwebhooks.com).

Headers webhook-id, webhook-timestamp and webhook-signature; the last is ``v1,`` and the base64 of
HMAC-SHA256 over "id.timestamp.body", for each secret one, with spaces between. A receiver checks it
by a library of that standard, or in three lines.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

FIELD = "events.webhook_secret"
PREFIX = "whsec_"
SHORTEST_BYTES = 16

_log = structlog.stdlib.get_logger(__name__)


class Secrets:
    """Those of a file, one a line: ``whsec_`` and base64, or the text itself.

    Read again for each delivery, so that one can be replaced: both stand there for a while. A
    file that can't be read or used leaves them as they were, with a warning.
    """

    def __init__(self, path: Path | None) -> None:
        """None: nothing is signed. Raises ConfigError if there are none to read."""
        self._path = path
        self._told = ""
        self._secrets = _read(path) if path else []

    def headers(self, message_id: str, seconds: int, body: bytes) -> dict[str, str]:
        """Of one delivery; `seconds` since the epoch."""
        headers = {"webhook-id": message_id, "webhook-timestamp": str(seconds)}
        if self._path:
            self._refresh(self._path)
            signed = [signature(each, message_id, seconds, body) for each in self._secrets]
            headers["webhook-signature"] = " ".join(signed)
        return headers

    def _refresh(self, path: Path) -> None:
        try:
            self._secrets = _read(path)
            self._told = ""
        except ConfigError as error:
            if error.message != self._told:
                _log.warning("webhook secret not reloaded", key=FIELD, reason=error.message)
            self._told = error.message


def signature(secret: bytes, message_id: str, seconds: int, body: bytes) -> str:
    """One of webhook-signature."""
    signed = f"{message_id}.{seconds}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def _read(path: Path) -> list[bytes]:
    try:
        lines = path.read_text().split("\n")
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}", field=FIELD) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text; write a line into it", field=FIELD) from None
    secrets = [_secret(path, line.strip()) for line in lines if line.strip()]
    if not secrets:
        raise ConfigError(f"{path} is empty; write a secret into it", field=FIELD)
    return secrets


def _secret(path: Path, text: str) -> bytes:
    secret = text.encode()
    if text.startswith(PREFIX):
        try:
            secret = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except ValueError:  # binascii.Error, and another of what is no ASCII
            reason = f"{path}: what stands behind {PREFIX} is no base64"
            raise ConfigError(reason, field=FIELD) from None
    if len(secret) < SHORTEST_BYTES:
        reason = f"{path}: a secret has less than {SHORTEST_BYTES} bytes; openssl rand -hex 32"
        raise ConfigError(reason, field=FIELD)
    return secret
