"""Where each join token was last used, so that a receiver can take its place along."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.model import Address

TokenId = tuple[str, bytes]
"""(session id, the id in the token's claims)."""


@dataclass(frozen=True, slots=True)
class Member:
    """`address` is None after a LEAVE. `cookie_us` is when the cookie it used was made.

    The others are `time.monotonic()` seconds.
    """

    address: Address | None
    cookie_us: int
    forget_at: float
    lease_until: float = 0.0


class Members:
    """At most `size` tokens; of one that is forgotten, a former place lasts until its lease ends.

    Cookies order what comes in of one token: an older cookie than the last accepted one
    means a replay or a straggler, and the server's own clock has made them.
    """

    def __init__(self, size: int = 1 << 18) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._by_token: OrderedDict[TokenId, Member] = OrderedDict()
        self._holders: dict[tuple[str, Address], TokenId] = {}

    def __len__(self) -> int:
        return len(self._by_token)

    def get(self, token: TokenId, now: float) -> Member | None:
        """None when it is not known, or not any more."""
        with self._lock:
            member = self._by_token.get(token)
        return None if member is None or member.forget_at <= now else member

    def holds(self, token: TokenId, address: Address) -> bool:
        """It was the last to join from `address`: a NAT may have given that to another since."""
        with self._lock:
            return self._holders.get((token[0], address)) == token

    def place_left(self, token: TokenId, member: Member | None, address: Address) -> Address | None:
        """Where it was, if that is its own still, and not `address`."""
        before = member.address if member else None
        return before if before and before != address and self.holds(token, before) else None

    def put(self, token: TokenId, member: Member, now: float) -> None:
        """Remember it, and forget whose time is over."""
        with self._lock:
            self._remove(token)
            self._by_token[token] = member
            if member.address is not None:
                self._holders[token[0], member.address] = token
            while len(self._by_token) > 1:
                oldest = next(iter(self._by_token))
                if self._by_token[oldest].forget_at > now and len(self._by_token) <= self._size:
                    break
                self._remove(oldest)

    def _remove(self, token: TokenId) -> None:
        member = self._by_token.pop(token, None)
        if member and member.address is not None:
            place = token[0], member.address
            if self._holders.get(place) == token:
                del self._holders[place]
