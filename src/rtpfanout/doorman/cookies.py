"""The cookies of this server: in order, of a limited age, and good beyond a restart.

A cookie is when it was made (8 bytes, microseconds) and a MAC (16) over that and the address it
was sent to: who returns it has been at that address since. None is remembered. The MAC is
SipHash-2-4, so that the packet path can look at it too, and listen to who has a good one first.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from rtpfanout._fastpath import make_cookie
from rtpfanout.boot import boot_id

if TYPE_CHECKING:
    from rtpfanout.model import Address

KEY_BYTES = 16

_LEAD_US = 1_000_000  # cookies made within one microsecond get later ones


class ServerCookies:
    """For several threads. `key` is what the engine has to know them by."""

    def __init__(self, secret: bytes, monotonic: Callable[[], float]) -> None:
        """Durable as `secret` is, so that a restart of the server disturbs no receiver."""
        self.key = _key(secret)
        self._monotonic = monotonic
        self._making = threading.Lock()
        self._last_us = 0

    def make(self, source: Address) -> bytes:
        """No two bear the same time, so that they order what comes in."""
        with self._making:
            self._last_us = max(self._now_us(), self._last_us + 1)
            return make_cookie(self.key, source, self._last_us)

    def made_at(self, cookie: bytes, source: Address) -> int | None:
        """When it was made, us, however long ago; None if not by us or not for `source`."""
        made_us = int.from_bytes(cookie[:8])
        if made_us >= self._now_us() + _LEAD_US:
            return None
        ours = make_cookie(self.key, source, made_us)
        return made_us if hmac.compare_digest(cookie, ours) else None

    def left_ms(self, made_us: int, valid_us: int) -> int:
        """How long one made at `made_us` is still valid."""
        return max(0, made_us + valid_us - self._now_us()) // 1000

    def is_valid(self, made_us: int, valid_us: int) -> bool:
        """Whether one made at `made_us` still is."""
        return self._now_us() - made_us < valid_us

    def _now_us(self) -> int:
        return int(self._monotonic() * 1e6)


def _key(secret: bytes) -> bytes:
    """Cookies outlive the process but not the boot, whose clock they carry."""
    return hmac.digest(secret, boot_id(), "sha256")[:KEY_BYTES]
