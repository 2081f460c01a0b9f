"""Which start of this host it is: CLOCK_MONOTONIC begins anew with each."""

from __future__ import annotations

import functools
import secrets
from pathlib import Path

_FILE = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def boot_id() -> bytes:
    """The same until the host starts again; of this process only where the kernel tells none."""
    try:
        return _FILE.read_bytes()
    except OSError:
        return secrets.token_bytes(16)
