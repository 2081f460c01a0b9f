"""The protocol without input or output: told the time and what came, it says what to send."""

from __future__ import annotations

import enum
import math
import os
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from rtpfanout import signed
from rtpfanout.errors import of_denial
from rtpfanout.signed import Answer, Kind, Reason

if TYPE_CHECKING:
    from rtpfanout.errors import RtpFanoutError

FIRST_RETRY_SECS = 0.25
LONGEST_RETRY_SECS = 5.0
MEMBER_RETRY_SECS = 0.5
"""The longest while what was granted lasts: 40 tries before a lease of 30 s ends, so that one
of them gets through to a server that is flooded, too."""
REFRESH_SECS = 10.0
"""At the latest; sooner when what was granted lasts less than three times as long."""
SILENCE_SECS = 1.0
"""When media that came stays away for so long, the server is asked whether it still knows us."""
_CHALLENGES_IN_A_ROW = 2  # answered at once; a server that asks on and on is not
_ASKED_AT_MOST = 4  # requests whose answers are awaited: the way may take longer than a retry
_TRIAL_SECS = 0.1
_JITTER = 0.1

_FINAL = {Reason.EXPIRED, Reason.NO_SESSION, Reason.ADDRESS}
_TEXTS = {
    Reason.EXPIRED: "the join token has expired; ask for a new one",
    Reason.NO_SESSION: "the session is gone; ask for a token of another",
    Reason.LIMIT: "the session has as many subscribers as it may have",
    Reason.ADDRESS: "the server's address policy does not let media be sent here",
    Reason.UNAVAILABLE: "the server takes no subscriber at the moment; try again",
}


class MemberState(enum.Enum):
    """Of a Membership."""

    ASKING = "asking"
    MEMBER = "member"
    DENIED = "denied"
    LEAVING = "leaving"
    LEFT = "left"


class Membership:
    """One receiver's standing with one server. Times are `time.monotonic()` seconds.

    Send what `poll` returns, call it again at `next_poll` at the latest, and hand every
    datagram from the server to `receive`. With `token` None it consents to what the API
    has added its address to.
    """

    def __init__(
        self,
        token: signed.Token | None,
        now: float,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
        new_nonce: Callable[[], bytes] = lambda: os.urandom(signed.NONCE_BYTES),
    ) -> None:
        self.state = MemberState.ASKING
        self.reason: Reason | None = None
        self._next = now
        self._token = token
        self._uniform = uniform
        self._new_nonce = new_nonce
        self._cookie = signed.NO_COOKIE
        self._asked: dict[bytes, bytes] = {}  # by nonce the cookie that it brought, oldest first
        self._trial: bytes | None = None
        self._trial_at = now
        self._challenges = 0
        self._retry_secs = FIRST_RETRY_SECS
        self._ends_at = now
        self._media_at: float | None = None

    @property
    def next_poll(self) -> float:
        """When `poll` has something to do at the latest."""
        trial_at = math.inf if self._trial is None else self._trial_at
        return min(self._next, self._silent_at, trial_at)

    @property
    def _silent_at(self) -> float:
        return math.inf if self._media_at is None else self._media_at + SILENCE_SECS

    def poll(self, now: float) -> bytes | None:
        """What is to be sent to the server at `now`, if anything."""
        if self.state in (MemberState.DENIED, MemberState.LEFT):
            return None
        if self.state is MemberState.MEMBER and now >= self._ends_at:
            self.state = MemberState.ASKING
        if now >= self._silent_at:
            self._media_at = None  # asked once for each silence
            self._next = now
        if self._trial is not None and now >= self._trial_at:
            return self._try_cookie(self._trial, now)
        if now < self._next:
            return None
        self._next = now + self._spread(self._retry_secs)
        longest = MEMBER_RETRY_SECS if self.state is MemberState.MEMBER else LONGEST_RETRY_SECS
        self._retry_secs = min(2 * self._retry_secs, longest)
        self._trial_at = max(self._trial_at, now + _TRIAL_SECS)
        return self._ask(self._cookie)

    def receive(self, data: bytes, now: float) -> bool:
        """True if `data`, from the server's address, is of this protocol; else it is media."""
        if data[:4] != signed.MAGIC:
            self._media_at = now
            return False
        try:
            kind = signed.kind_of(data)
            if kind is Kind.CHALLENGE:
                self._on_challenge(*signed.parse_challenge(data), now)
            elif kind in (Kind.ACK, Kind.DENY):
                self._on_answer(Answer.parse(data), now)
        except ValueError:
            pass
        return True

    def leave(self, now: float) -> None:
        """Say goodbye with the next `poll`. One who only consents just falls silent."""
        if self.state in (MemberState.ASKING, MemberState.MEMBER):
            self.state = MemberState.LEFT if self._token is None else MemberState.LEAVING
            self._asked.clear()
            self._trial = None
            self._retry_secs = FIRST_RETRY_SECS
            self._next = now

    @property
    def error(self) -> RtpFanoutError | None:
        """Why it was denied, in words."""
        if self.reason is None:
            return None
        return of_denial(self.reason.name)(_TEXTS[self.reason])

    def _ask(self, cookie: bytes) -> bytes:
        nonce = self._new_nonce()
        self._asked[nonce] = cookie
        if len(self._asked) > _ASKED_AT_MOST:
            del self._asked[next(iter(self._asked))]
        if self._token is not None:
            leave = self.state is MemberState.LEAVING
            return signed.build_join(self._token, nonce=nonce, cookie=cookie, leave=leave)
        if cookie == signed.NO_COOKIE:
            return signed.build_hello(nonce)
        return signed.build_echo(nonce, cookie)

    def _try_cookie(self, cookie: bytes, now: float) -> bytes:
        self._trial = None
        self._trial_at = now + _TRIAL_SECS
        return self._ask(cookie)

    def _on_challenge(self, nonce: bytes, cookie: bytes, now: float) -> None:
        if self.state in (MemberState.DENIED, MemberState.LEFT):
            return
        if nonce not in self._asked:
            self._on_foreign_challenge(cookie)
            return
        del self._asked[nonce]
        self._trial = None
        self._cookie = cookie
        self._challenges += 1
        if self._challenges <= _CHALLENGES_IN_A_ROW:
            self._next = now

    def _on_foreign_challenge(self, cookie: bytes) -> None:
        """It answers a HELLO that somebody else has sent in our name, of whom there may be so
        many that ours is not answered. Its cookie is for our address all the same, if it is the
        server's: so it is tried, a moment after we have asked ourselves, now and then.
        """
        if self._token is None and self.state is MemberState.ASKING and self._trial is None:
            self._trial = cookie

    def _on_answer(self, answer: Answer, now: float) -> None:
        if answer.nonce not in self._asked:
            return
        key = self._token.key if self._token is not None else self._asked[answer.nonce]
        if not answer.is_signed_with(key):
            return
        self._asked.clear()
        self._trial = None
        self._challenges = 0
        self._retry_secs = FIRST_RETRY_SECS
        if self.state is MemberState.LEAVING:
            self.state = MemberState.LEFT
        elif answer.reason is None:
            self.state = MemberState.MEMBER
            self.reason = None
            self._cookie = answer.cookie
            lifetime = answer.lifetime_ms / 1000
            self._ends_at = now + lifetime
            self._next = now + self._spread(min(REFRESH_SECS, lifetime / 3))
        else:
            self.reason = answer.reason
            if answer.reason in _FINAL:
                self.state = MemberState.DENIED
            else:  # it may be granted later
                self.state = MemberState.ASKING
                self._retry_secs = LONGEST_RETRY_SECS
                self._next = now + self._spread(LONGEST_RETRY_SECS)

    def _spread(self, seconds: float) -> float:
        """Many receivers that began together do not go on together."""
        return seconds * self._uniform(1 - _JITTER, 1 + _JITTER)
