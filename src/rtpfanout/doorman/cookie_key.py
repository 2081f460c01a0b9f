"""The key of cookies: durable, so that a restart of the server disturbs no receiver."""

from __future__ import annotations

import functools
import hmac
import secrets
from pathlib import Path


@functools.cache
def _boot_id() -> bytes:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        return secrets.token_bytes(16)


def cookie_key(secret: bytes) -> bytes:
    """Cookies outlive the process but not the boot, whose clock they carry."""
    return hmac.digest(secret, _boot_id(), "sha256")
