"""A doorman with a fake engine and signals, in virtual time."""

from __future__ import annotations

import itertools
import os
import uuid
from dataclasses import dataclass, field

from rtpfanout import signed
from rtpfanout.doorman import Doorman
from rtpfanout.errors import NotFoundError, UnavailableError
from rtpfanout.model import Address, Consent, SubscriberClass
from rtpfanout.signed import Answer, Claims, Token

SESSION = str(uuid.UUID(int=1))
OTHER_SESSION = str(uuid.UUID(int=2))
HERE = Address.parse("192.0.2.1:4000")
THERE = Address.parse("198.51.100.9:1234")
VICTIM = Address.parse("203.0.113.5:53")
KEY = b"k" * 32
NONCE = b"nonce..."


@dataclass
class Target:
    session_id: str
    move_key: bytes
    counter: int = 0


class FakeSignals:
    def __init__(self, disk_is_full: bool = False) -> None:
        self.targets: dict[int, list[Target]] = {}
        self.consenting: dict[Address, list[str]] = {}
        self.calls: list[tuple] = []
        self.error: Exception | None = None
        self.consent = Consent.NONE
        self.disk_is_full = disk_is_full

    def asks_consent(self, _session_id):
        if isinstance(self.error, NotFoundError):
            raise self.error
        return self.consent is Consent.ECHO

    def session_for_move(self, ssrc):
        return self.targets.get(ssrc, ())

    def move_source(self, *arguments):
        self._called("move_source", *arguments)
        for target in itertools.chain(*self.targets.values()):
            if target.session_id == arguments[0]:
                target.counter = arguments[2]

    def join(self, session_id, address, *, lease_secs, subscriber_class, previous):
        self._called("join", session_id, address, lease_secs, subscriber_class, previous)

    def leave(self, *arguments):
        self._called("leave", *arguments)

    def consent_targets(self, address):
        return self.consenting.get(address, ())

    def consent_given(self, *arguments):
        self._called("consent_given", *arguments)

    def on_source_notice(self, *arguments):
        self._called("on_source_notice", *arguments)

    def secret(self, name):
        if self.disk_is_full:
            raise UnavailableError("full")
        return name.encode().ljust(32, b".")

    def _called(self, *call):
        self.calls.append(call)
        if self.error:
            raise self.error


@dataclass
class FakeEngine:
    fd: int = -1
    waiting: list = field(default_factory=list)
    sent: list[tuple[Address, bytes]] = field(default_factory=list)

    def notices(self):
        os.eventfd_read(self.fd)
        taken, self.waiting = self.waiting, []
        return taken

    def set_cookie_key(self, key):
        self.cookie_key = key

    def set_stamp_key(self, key):
        self.stamp_key = key

    def send(self, address, data):
        self.sent.append((address, data))
        return True


class Scene:
    """A doorman whose threads are waited for after each datagram."""

    def __init__(self, *, disk_is_full: bool = False, **options) -> None:
        self.now = 1000.0
        self.signals = FakeSignals(disk_is_full)
        self.engine = FakeEngine()
        self.door = Doorman(
            self.engine,
            self.signals,
            monotonic=lambda: self.now,
            unix_ms=lambda: round(self.now * 1000) + 1_700_000_000_000,
            **options,
        )

    @property
    def unix_ms(self):
        return round(self.now * 1000) + 1_700_000_000_000

    def take(self, data, source=HERE):
        """What was answered to `source`, and to nobody else."""
        self.engine.sent.clear()
        self.door.handle(("datagram", source, data))
        self.door._work.stop()
        assert all(address == source for address, _ in self.engine.sent)
        answers = [answer for _, answer in self.engine.sent]
        assert sum(map(len, answers)) <= len(data), "it amplifies"
        return answers

    def counted(self):
        return {key: count for key, count in self.door.counts.items() if count}

    def token(self, session_id=SESSION, lease_ms=30_000, ttl_ms=3_600_000, token_id=b"12345678"):
        claims = Claims(
            session_id, token_id, lease_ms, self.unix_ms + ttl_ms, SubscriberClass.RECORDER
        )
        return Token(claims, signed.token_key(self.signals.secret("join"), claims.packed))

    def cookie(self, token, source=HERE):
        """By asking for it."""
        (challenge,) = self.take(signed.build_join(token, nonce=NONCE), source)
        nonce, cookie = signed.parse_challenge(challenge)
        assert nonce == NONCE
        return cookie

    def join(self, token, source=HERE, cookie=None, leave=False):
        cookie = cookie or self.cookie(token, source)
        answers = self.take(
            signed.build_join(token, nonce=NONCE, cookie=cookie, leave=leave), source
        )
        if not answers:
            return None
        answer = Answer.parse(answers[0])
        assert answer.is_signed_with(token.key)
        assert answer.nonce == NONCE
        return answer


def move(scene, *, key=KEY, ssrc=7, counter=1, late_ms=0):
    return signed.build_move(key, ssrc=ssrc, counter=counter, time_ms=scene.unix_ms - late_ms)
