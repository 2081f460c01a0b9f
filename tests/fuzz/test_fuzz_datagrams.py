"""Datagrams changed at random, through the whole doorman: nothing signed passes when changed.

RTPFANOUT_FUZZ=full runs 10^7 of them.
"""

from __future__ import annotations

import os
import random
import sys
import time

import pytest
from doorman_scene import HERE, KEY, NONCE, SESSION, Scene, Target

from rtpfanout import signed
from rtpfanout.signed import Kind

FULL = os.environ.get("RTPFANOUT_FUZZ") == "full"
RUNS = 10_000_000 if FULL else 50_000


def seeds(scene: Scene) -> list[bytes]:
    """Of each kind one that would be accepted, and those that only servers send."""
    token = scene.token()
    (challenge,) = scene.take(signed.build_hello(NONCE))
    cookie = signed.parse_challenge(challenge)[1]
    return [
        signed.build_move(KEY, ssrc=7, counter=1, time_ms=scene.unix_ms),
        signed.build_hello(NONCE),
        signed.build_echo(NONCE, cookie),
        signed.build_join(token, nonce=NONCE),
        signed.build_join(token, nonce=NONCE, cookie=cookie),
        signed.build_join(token, nonce=NONCE, cookie=cookie, leave=True),
        challenge,
        signed.build_answer(KEY, NONCE),
    ]


def changed(chance: random.Random, known: list[bytes]) -> bytes:
    """One of `known` with bits flipped, bytes set, cut, grown, or spliced with another."""
    data = bytearray(chance.choice(known))
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        place = chance.randrange(len(data))
        what = chance.randrange(8)
        if what < 4:
            data[place] ^= 1 << chance.randrange(8)
        elif what == 4:
            data[place] = chance.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif what == 5:
            data = data[: max(place, 1)]
        elif what == 6:
            data += chance.randbytes(chance.randrange(1, 9))
        else:
            other = chance.choice(known)
            data[place:] = other[place:] or b"\0"
    return bytes(data)


@pytest.mark.timeout(7200 if FULL else 120)
def test_changed_datagrams() -> None:
    seed = random.SystemRandom().getrandbits(32) if FULL else 1
    chance = random.Random(seed)
    print(f"\nseed {seed}", file=sys.stderr)
    scene = Scene()
    scene.signals.targets[7] = [Target(SESSION, KEY)]
    scene.signals.consenting[HERE] = [SESSION]
    known = seeds(scene)
    unchanged = set(known)
    begin = time.monotonic()
    for _ in range(RUNS):
        data = changed(chance, known)
        if data in unchanged:
            continue
        scene.now += 0.1  # so that nothing is limited
        scene.engine.sent.clear()
        scene.door.handle(("datagram", HERE, data))
        # What threads answer may come at any time; challenges come at once.
        answers = [answer for _, answer in list(scene.engine.sent)]
        challenges = [a for a in answers if signed.kind_of(a) is Kind.CHALLENGE]
        assert sum(map(len, challenges)) <= len(data), data.hex()
        scene.now -= 0.1 if scene.now > 1010 else 0.0
    scene.door.stop()
    print(f"{RUNS / (time.monotonic() - begin):,.0f} datagrams/s", file=sys.stderr)
    assert {call[0] for call in scene.signals.calls} <= {"consent_given"}, "an echo's nonce is free"
    assert not any(
        count
        for (kind, outcome), count in scene.door.counts.items()
        if outcome == "failed" or (outcome == "accepted" and kind != "echo")
    ), scene.counted()
    assert scene.door.counts["join", "bad_mac"] > RUNS / 100
    assert scene.door.counts["other", "malformed"] > RUNS / 100
    assert signed.kind_of(known[0]) is Kind.MOVE
