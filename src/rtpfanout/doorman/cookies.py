"""The cookies of this server: in order, of a limited age, and good beyond a restart."""

from __future__ import annotations

import hmac
import threading
from typing import TYPE_CHECKING

from rtpfanout import signed
from rtpfanout.boot import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout.model import Address

_LEAD_US = 1_000_000  # cookies made within one microsecond get later ones


class ServerCookies:
    """signed.Cookies by a clock. For several threads."""

    def __init__(self, secret: bytes, monotonic: Callable[[], float]) -> None:
        """Durable as `secret` is, so that a restart of the server disturbs no receiver."""
        self._cookies = signed.Cookies(_key(secret))
        self._monotonic = monotonic
        self._making = threading.Lock()
        self._last_us = 0

    def make(self, source: Address) -> bytes:
        """No two bear the same time, so that they order what comes in."""
        with self._making:
            self._last_us = max(self._now_us(), self._last_us + 1)
            return self._cookies.make(source, self._last_us)

    def made_at(self, cookie: bytes, source: Address, valid_us: int) -> int | None:
        """When a cookie that is good for `source` was made. The time is looked at first."""
        age_us = self._now_us() - int.from_bytes(cookie[:8])
        if not -_LEAD_US < age_us < valid_us:
            return None
        return self._cookies.made_at(cookie, source)

    def left_ms(self, made_us: int, valid_us: int) -> int:
        """How long one made at `made_us` is still valid."""
        return max(0, made_us + valid_us - self._now_us()) // 1000

    def _now_us(self) -> int:
        return int(self._monotonic() * 1e6)


def _key(secret: bytes) -> bytes:
    """Cookies outlive the process but not the boot, whose clock they carry."""
    return hmac.digest(secret, boot_id(), "sha256")
