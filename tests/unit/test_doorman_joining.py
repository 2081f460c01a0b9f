"""The doorman: who joins by a token, in whose place, and who leaves."""

from __future__ import annotations

import pytest
from doorman_scene import HERE, NONCE, SESSION, THERE, VICTIM, Scene

from rtpfanout import signed
from rtpfanout.errors import NotFoundError
from rtpfanout.model import Consent
from rtpfanout.signed import Kind, Reason


@pytest.fixture
def scene():
    return Scene()


# --- signed join


def test_a_join_without_cookie_yields_a_challenge_and_with_one_a_place(scene):
    token = scene.token()
    cookie = scene.cookie(token)
    assert scene.signals.calls == []
    answer = scene.join(token, cookie=cookie)
    assert scene.signals.calls == [("join", SESSION, HERE, 30.0, "recorder", None)]
    assert (answer.reason, answer.lifetime_ms) == (None, 30_000)
    scene.now += 10
    assert scene.join(token, cookie=answer.cookie).lifetime_ms == 30_000
    assert len(scene.signals.calls) == 2, "the cookie that came with the ACK renews"


def test_a_forged_source_aims_no_media(scene):
    """Whoever has a token, or saw a JOIN pass, can't make it good for a victim's address."""
    token = scene.token()
    cookie = scene.cookie(token)
    seen = signed.build_join(token, nonce=NONCE, cookie=cookie)
    for data in (seen, signed.build_join(token, nonce=NONCE)):
        (answer,) = scene.take(data, VICTIM)
        assert signed.kind_of(answer) is Kind.CHALLENGE
        assert len(answer) <= len(data)
    assert scene.signals.calls == []


def test_a_lost_answer_is_given_again_and_a_replay_renews_nothing(scene):
    token = scene.token()
    cookie = scene.cookie(token)
    assert scene.join(token, cookie=cookie)
    scene.now += 5
    assert scene.join(token, cookie=cookie).lifetime_ms == 25_000
    assert len(scene.signals.calls) == 1


def test_the_place_moves_with_the_receiver(scene):
    token = scene.token()
    old = scene.join(token)
    scene.now += 1
    scene.join(token, THERE)
    assert scene.signals.calls[-1] == ("join", SESSION, THERE, 30.0, "recorder", HERE)
    assert scene.join(token, HERE, cookie=old.cookie) is None, "a straggler doesn't move it back"
    assert scene.counted()["join", "replayed"] == 1
    assert len(scene.signals.calls) == 2


def test_after_a_leave_a_straggling_join_brings_nothing_back(scene):
    token = scene.token()
    first = scene.cookie(token)
    scene.now += 1
    answer = scene.join(token)
    left = scene.join(token, cookie=answer.cookie, leave=True)
    assert left.reason is None
    assert scene.signals.calls[-1] == ("leave", SESSION, HERE)
    assert scene.join(token, cookie=first) is None
    scene.now += 1
    assert scene.join(token).reason is None, "but it may come again"


def test_two_receivers_whose_nat_swaps_their_ports_keep_their_places(scene):
    one, two = scene.token(token_id=b"receiver"), scene.token(token_id=b"receiveR")
    scene.join(one, HERE)
    scene.join(two, THERE)
    scene.join(one, THERE)
    assert scene.signals.calls[-1][-2:] == ("recorder", HERE), "its former place is given up"
    scene.join(two, HERE)
    assert scene.signals.calls[-1][-2:] == ("recorder", None), "but not what is the other's now"
    scene.join(two, HERE, leave=True)
    assert scene.signals.calls[-1] == ("leave", SESSION, HERE)
    scene.join(two, THERE)
    calls = len(scene.signals.calls)
    scene.join(one, THERE, leave=True)
    assert len(scene.signals.calls) == calls, "the other has joined from there since"


def test_a_leave_of_what_is_gone_is_fine_and_needs_a_cookie(scene):
    token = scene.token()
    assert signed.kind_of(
        scene.take(signed.build_join(token, nonce=NONCE, leave=True))[0]
    ) is Kind.CHALLENGE  # fmt: skip
    cookie = scene.cookie(token)
    scene.signals.error = NotFoundError("gone")
    assert scene.join(token, cookie=cookie, leave=True).reason is None


@pytest.mark.parametrize("field_at", range(40))
def test_no_changed_claim_passes(scene, field_at):
    token = scene.token()
    packed = bytearray(token.claims.packed)
    packed[field_at] ^= 1
    data = signed.build_join(token, nonce=NONCE).replace(token.claims.packed, bytes(packed))
    assert scene.take(data) == []
    assert not scene.counted().keys() - {("join", "bad_mac"), ("join", "malformed")}


def test_an_expired_token_is_denied(scene):
    token = scene.token(ttl_ms=60_000)
    answer = scene.join(token)
    scene.now += 59
    answer = scene.join(token)
    scene.now += 1
    answer = scene.join(token, cookie=answer.cookie)
    assert answer.reason is Reason.EXPIRED
    assert len(scene.signals.calls) == 2


def test_joining_a_session_with_consent_is_consent_and_no_longer_than_an_echo(scene):
    scene.signals.consent = Consent.ECHO
    assert scene.join(scene.token(lease_ms=3_600_000)).lifetime_ms == 28_000
    assert scene.signals.calls == [("join", SESSION, HERE, 28.0, "recorder", None)]
    assert scene.join(scene.token(lease_ms=5000, token_id=b"87654321")).lifetime_ms == 5000
