"""The Doorman: takes the engine's notices, verifies datagrams, tells the signals of sessions.

Silent to strangers: an answer goes only to an address that awaits consent, or to who proves
a token or a session's key, and is never longer than what it answers. Who returned a cookie
comes by a queue of his own (the packet path sees to that), so strangers, however many, keep
nobody from renewing; the reader of their queue rests, so that junk costs a third of a core at
most. What waits for the store is done by a few threads behind a bounded queue.
"""

from __future__ import annotations

import contextlib
import math
import secrets
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout import signed
from rtpfanout.doorman.cookies import ServerCookies
from rtpfanout.doorman.limits import AddressBuckets
from rtpfanout.doorman.members import Member, Members
from rtpfanout.doorman.moves import named_by
from rtpfanout.doorman.reader import BUSY_BATCH, Reader
from rtpfanout.doorman.work import Work
from rtpfanout.errors import (
    NotFoundError,
    PermissionDeniedError,
    RtpFanoutError,
    UnavailableError,
    codes_of,
)
from rtpfanout.seldom import Bucket, Seldom
from rtpfanout.sessions import JOIN_SECRET
from rtpfanout.signed import Claims, Join, Kind, Move, Reason

if TYPE_CHECKING:
    import asyncio

    from rtpfanout._fastpath import Engine
    from rtpfanout.model import Address
    from rtpfanout.sessions import MoveTarget, Signals

_log = structlog.stdlib.get_logger(__name__)

MOVE_WINDOW_MS = 30_000
"""How far the clock of a moving source may be from ours."""
COOKIE_US = 30_000_000
"""How long a cookie serves for joining."""
LATE_SECS = 2.0
"""How late housekeeping may act on the end of a consent or a lease: it looks once a
second, at whole seconds. What is granted ends earlier by that."""

VERIFICATIONS_PER_SECOND = 20_000
"""Of moves, one among thousands of sessions counting for many. What is asked of a JOIN always costs
the same: there the reader's rest is bound enough."""
REQUESTS_PER_SECOND = 10
"""From one address, each verified; what others send in its name is not, and does not count."""
CHALLENGES_PER_SECOND = 200
"""To one address. Anybody can ask for them in its name, so there are many: what it asks for
itself is to be among those answered. They are no more than was asked for, and it has a token
or was added by the API."""

KINDS = ("move", "hello", "echo", "join", "leave", "source", "other")
OUTCOMES = (
    "accepted", "challenged", "denied", "malformed", "unknown", "bad_mac",
    "stale", "replayed", "ambiguous", "limited", "busy", "failed",
)  # fmt: skip
ANSWERS = ("challenge", "ack", "deny", "not_sent")


class Doorman:
    """`counts` has what came in by (kind, outcome), `answers` what went out, since the start."""

    def __init__(
        self,
        engine: Engine,
        signals: Signals,
        *,
        consent_secs: float = 30.0,
        monotonic: Callable[[], float] = time.monotonic,
        unix_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`consent_secs`: after so long without an echo an address gets no more packets.

        Asks the signals for their secrets, which may wait for the store. If that can't keep new
        ones, cookies are of this process only and nobody joins until it can.
        """
        self.counts = {(kind, outcome): 0 for kind in KINDS for outcome in OUTCOMES}
        self.answers = dict.fromkeys(ANSWERS, 0)
        self._engine = engine
        self._signals = signals
        self._consent_secs = consent_secs - LATE_SECS
        self._consent_us = round(self._consent_secs * 1e6)
        self._monotonic = monotonic
        self._unix_ms = unix_ms
        self._join_secret = self._secret(JOIN_SECRET)
        self._cookies = ServerCookies(self._secret("cookie") or secrets.token_bytes(32), monotonic)
        self._tell_whom_to_know()
        self._counting = threading.Lock()
        self._members = Members()
        self._work = Work()
        self._verifications = Bucket(VERIFICATIONS_PER_SECOND, VERIFICATIONS_PER_SECOND / 10)
        self._challenges = AddressBuckets(CHALLENGES_PER_SECOND, CHALLENGES_PER_SECOND)
        self._requests = AddressBuckets(REQUESTS_PER_SECOND, 2 * REQUESTS_PER_SECOND)
        self._faults = Seldom(10)
        self._shared_keys = Seldom(10)
        self._readers: list[Reader] = []
        self._handlers = {
            Kind.MOVE: self._on_move,
            Kind.HELLO: self._on_hello,
            Kind.ECHO: self._on_echo,
            Kind.JOIN: self._on_join,
            Kind.LEAVE: self._on_join,
        }

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Notices are taken in `loop` from here on."""
        engine = self._engine
        self._readers = [
            Reader(engine.notice_fd, engine.notices, self.handle, loop, rests_after=BUSY_BATCH),
            Reader(engine.stranger_notice_fd, engine.stranger_notices, self.handle, loop),
        ]

    def detach(self) -> None:
        """No notice is taken any more. To be called in the loop; twice is fine."""
        for reader in self._readers:
            reader.close()
        self._readers = []

    def stop(self) -> None:
        """Returns when what was verified before `detach` is carried out."""
        self._work.stop()

    def handle(self, notice: Any) -> None:
        """One notice of the engine's."""
        what, *details = notice
        if what == "datagram":
            self._on_datagram(*details)
        elif what == "ssrc":
            self._signals.on_ssrc_notice(*details)
        else:
            handle, source = details
            self._submit(what, handle, self._signals.on_source_notice, handle, source)

    def _on_datagram(self, source: Address, data: bytes) -> None:
        try:
            kind = signed.kind_of(data)
            handler = self._handlers[kind]
        except (ValueError, KeyError):  # or one that only servers send
            self._count("other", "malformed")
            return
        try:
            outcome = handler(source, data)
        except ValueError:
            outcome = "malformed"
        except Exception:
            outcome = "failed"
            self._faults.write(_log.exception, "a control datagram was not looked into")
        if outcome:
            self._count(kind.name.lower(), outcome)

    # Each handler returns its outcome, or None if a thread will tell it.

    def _on_move(self, source: Address, data: bytes) -> str | None:
        move = Move.parse(data)
        if abs(self._unix_ms() - move.time_ms) > MOVE_WINDOW_MS:
            return "stale"
        targets = self._signals.session_for_move(move.ssrc)
        if not targets:
            return "unknown"
        # The list may be long: thousands of cameras with one factory SSRC.
        if not self._verifications.take(self._monotonic(), 1 + len(targets) / 16):
            return "limited"
        named = named_by(move, targets)
        if not named:
            return "bad_mac"
        if move.counter <= max(target.counter for target in named):
            return "replayed"
        if len(named) > 1:
            return self._refuse_ambiguous(named, move, source)
        if not self._is_verified(source):
            return "limited"
        (target,) = named
        return self._submit("move", target.session_id, self._move, target, move, source)

    def _refuse_ambiguous(self, named: Sequence[MoveTarget], move: Move, source: Address) -> str:
        """It could be a replay for ever, for it uses up no counter: so nobody is known by it."""
        if not self._requests.take(source, self._monotonic()):
            return "limited"
        self._shared_keys.write(
            _log.warning,
            "a signed move was refused: several sessions have its SSRC and move_key; give each its"
            " own",
            ssrc=f"{move.ssrc:#010x}",
            sessions=[target.session_id for target in named[:20]],
        )
        key = named[0].move_key
        self._answer(source, signed.build_answer(key, move.nonce, reason=Reason.NO_SESSION))
        return "ambiguous"

    def _move(self, target: MoveTarget, move: Move, source: Address) -> None:
        reason = None
        try:
            self._signals.move_source(target.session_id, source, move.counter, target.move_key)
        except PermissionDeniedError as error:
            if error.field == "counter":  # the same move twice, and the other was first
                self._count("move", "replayed")
                return
            reason = _reason_of(error)
        except RtpFanoutError as error:
            reason = _reason_of(error)
        self._settle("move", source, target.move_key, move.nonce, reason)

    def _on_hello(self, source: Address, data: bytes) -> str | None:
        nonce = signed.parse_hello(data)
        if not self._signals.consent_targets(source):
            return "unknown"
        return self._challenge(source, nonce)

    def _on_echo(self, source: Address, data: bytes) -> str | None:
        nonce, cookie = signed.parse_echo(data)
        if not self._signals.consent_targets(source):
            return "unknown"
        made_us = self._cookies.made_at(cookie, source)
        if made_us is None or not self._cookies.is_valid(made_us, self._consent_us):
            return self._challenge(source, nonce)
        if not self._is_verified(source):
            return "limited"
        return self._submit("echo", source, self._consent, source, nonce, cookie, made_us)

    def _consent(self, source: Address, nonce: bytes, cookie: bytes, made_us: int) -> None:
        """Counted from when the cookie left, so that a replayed echo prolongs nothing."""
        for session_id in self._signals.consent_targets(source):
            with contextlib.suppress(NotFoundError):  # deleted meanwhile
                self._signals.consent_given(session_id, source, (made_us + self._consent_us) / 1e6)
        left_ms = self._cookies.left_ms(made_us, self._consent_us)
        self._settle("echo", source, cookie, nonce, lifetime_ms=left_ms)

    def _on_join(self, source: Address, data: bytes) -> str | None:
        join = Join.parse(data)
        if self._join_secret is None:
            self._submit("join", "secret", self._ask_for_join_secret)
            return "busy"
        made_us = self._cookies.made_at(join.cookie, source)
        if made_us is not None and not self._is_verified(source):
            return "limited"
        key = signed.token_key(self._join_secret, join.packed_claims)
        if not join.is_signed_with(key):
            return "bad_mac"
        if made_us is None or not self._cookies.is_valid(made_us, COOKIE_US):
            return self._challenge(source, join.nonce)
        kind = join.kind.name.lower()
        if join.claims.expires_ms <= self._unix_ms():
            self._answer(source, signed.build_answer(key, join.nonce, reason=Reason.EXPIRED))
            return "denied"
        carry_out = self._join if join.kind is Kind.JOIN else self._leave
        token = join.claims.session_id, join.claims.token_id
        return self._submit(kind, token, carry_out, join, key, source, made_us)

    def _join(self, join: Join, key: bytes, source: Address, made_us: int) -> None:
        claims, now = join.claims, self._monotonic()
        token = claims.session_id, claims.token_id
        member = self._members.get(token, now)
        if member and (
            made_us < member.cookie_us or (made_us == member.cookie_us and member.address != source)
        ):
            self._count("join", "replayed")
            return
        lease_until = 0.0
        reason = None
        try:
            if member and made_us == member.cookie_us:  # only our answer was lost
                lease_until = member.lease_until
            else:
                lease_secs = self._lease_secs(claims)
                lease_until = now + lease_secs
                self._signals.join(
                    claims.session_id,
                    source,
                    lease_secs=lease_secs,
                    subscriber_class=claims.subscriber_class,
                    previous=self._members.place_left(token, member, source),
                )
                forget_at = now + max(lease_secs, COOKIE_US / 1e6)
                self._members.put(token, Member(source, made_us, forget_at, lease_until), now)
        except RtpFanoutError as error:
            reason = _reason_of(error)
        lifetime_ms = max(0, round((lease_until - now) * 1000))
        self._settle("join", source, key, join.nonce, reason, lifetime_ms=lifetime_ms)

    def _lease_secs(self, claims: Claims) -> float:
        """Where consent is asked for, joining is consent, and no longer than any other."""
        asks = self._signals.asks_consent(claims.session_id)
        return min(claims.lease_ms / 1000, self._consent_secs if asks else math.inf)

    def _leave(self, join: Join, key: bytes, source: Address, made_us: int) -> None:
        now = self._monotonic()
        token = join.claims.session_id, join.claims.token_id
        member = self._members.get(token, now)
        if member and (made_us < member.cookie_us or member.address not in (source, None)):
            self._count("leave", "replayed")
            return
        reason = None
        try:
            if member is None or member.address is None or self._members.holds(token, source):
                self._signals.leave(join.claims.session_id, source)
        except NotFoundError:
            pass  # it is gone, as asked
        except RtpFanoutError as error:
            reason = _reason_of(error)
        if reason is None:
            # An older JOIN that still travels must not bring it back.
            self._members.put(token, Member(None, made_us, now + COOKIE_US / 1e6), now)
        self._settle("leave", source, key, join.nonce, reason)

    def _secret(self, name: str) -> bytes | None:
        try:
            return self._signals.secret(name)
        except UnavailableError as error:
            _log.warning("the store keeps no secret", name=name, reason=error.message)
            return None

    def _ask_for_join_secret(self) -> None:
        if self._join_secret is None:
            with contextlib.suppress(UnavailableError):
                self._join_secret = self._signals.secret(JOIN_SECRET)
                self._tell_whom_to_know()

    def _tell_whom_to_know(self) -> None:
        """The packet path sorts by what costs it next to nothing, before anything comes here."""
        self._engine.set_cookie_key(self._cookies.key)
        if self._join_secret is not None:
            self._engine.set_stamp_key(signed.stamp_key(self._join_secret))

    def _challenge(self, source: Address, nonce: bytes) -> str:
        if not self._challenges.take(source, self._monotonic()):
            return "limited"
        self._answer(source, signed.build_challenge(nonce, self._cookies.make(source)))
        return "challenged"

    def _is_verified(self, source: Address) -> bool:
        """What came is really of `source`, or of who has the key; False if it asks too often."""
        return self._requests.take(source, self._monotonic())

    def _submit(
        self, kind: str, key: Hashable, carry_out: Callable[..., object], *arguments: Any
    ) -> str | None:
        def task() -> None:
            try:
                carry_out(*arguments)
            except Exception:
                self._count(kind, "failed")
                raise
            if kind == "source":
                self._count(kind, "accepted")

        return None if self._work.submit(key, task) else "busy"

    def _count(self, kind: str, outcome: str) -> None:
        with self._counting:
            self.counts[kind, outcome] += 1

    def _settle(
        self,
        kind: str,
        source: Address,
        key: bytes,
        nonce: bytes,
        reason: Reason | None = None,
        lifetime_ms: int | None = None,
    ) -> None:
        """Counts and answers what was carried out, or was not for that `reason`.

        What is granted for a time comes with the cookie to renew it by.
        """
        self._count(kind, "denied" if reason else "accepted")
        granted: dict[str, Any] = {}
        if lifetime_ms is not None and reason is None:
            granted = {"lifetime_ms": lifetime_ms, "cookie": self._cookies.make(source)}
        self._answer(source, signed.build_answer(key, nonce, reason=reason, **granted))

    def _answer(self, source: Address, data: bytes) -> None:
        sent = self._engine.send(source, data)
        name = signed.kind_of(data).name.lower() if sent else "not_sent"
        with self._counting:
            self.answers[name] += 1


def _reason_of(error: RtpFanoutError) -> Reason:
    return Reason[codes_of(error).denial]
