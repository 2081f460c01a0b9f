"""The doorman against a fake engine and signals, in virtual time: signed moves and consent."""

from __future__ import annotations

import pytest
from doorman_scene import (
    HERE,
    KEY,
    NONCE,
    OTHER_SESSION,
    SESSION,
    THERE,
    VICTIM,
    Scene,
    Target,
    move,
)

from rtpfanout import signed
from rtpfanout.errors import (
    AddressDeniedError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from rtpfanout.signed import Answer, Kind, Reason, Token


@pytest.fixture
def scene():
    return Scene()


# --- signed move


def test_a_signed_move_moves_and_is_acknowledged(scene):
    scene.signals.targets[7] = [Target(SESSION, KEY)]
    (data,) = scene.take(move(scene, counter=5), THERE)
    assert scene.signals.calls == [("move_source", SESSION, THERE, 5, KEY)]
    answer = Answer.parse(data)
    assert answer.is_signed_with(KEY)
    assert (answer.reason, answer.nonce) == (None, (5).to_bytes(8))
    assert scene.counted() == {("move", "accepted"): 1}
    assert scene.door.answers["ack"] == 1


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        ({"counter": 4}, "replayed"),
        ({"counter": 3}, "replayed"),
        ({"late_ms": 30_001}, "stale"),
        ({"late_ms": -30_001}, "stale"),
        ({"key": b"x" * 32}, "bad_mac"),
        ({"ssrc": 8}, "unknown"),
        ({"ssrc": 9}, "bad_mac"),
    ],
)
def test_a_bad_move_moves_nothing_and_is_met_with_silence(scene, change, outcome):
    scene.signals.targets = {7: [Target(SESSION, KEY, 4)], 9: [Target(OTHER_SESSION, b"y" * 32)]}
    assert scene.take(move(scene, **{"counter": 5} | change)) == []
    assert scene.signals.calls == []
    assert scene.counted() == {("move", outcome): 1}


def test_a_move_whose_mac_alone_is_wrong_is_refused(scene):
    scene.signals.targets[7] = [Target(SESSION, KEY)]
    data = move(scene)
    for position in (8, 12, 16, 24, 32, 63):
        changed = bytearray(data)
        changed[position] ^= 1
        assert scene.take(bytes(changed)) == []
    assert scene.signals.calls == []
    assert scene.take(move(scene, late_ms=30_000)), "the edge of the window is inside"


def test_the_session_whose_key_signed_moves_among_those_of_one_ssrc(scene):
    scene.signals.targets[7] = [Target(OTHER_SESSION, b"other key 123456"), Target(SESSION, KEY)]
    assert scene.take(move(scene))
    assert scene.signals.calls == [("move_source", SESSION, HERE, 1, KEY)]


def test_a_move_that_names_several_sessions_moves_none(scene):
    other = b"other key 123456"
    scene.signals.targets[7] = [Target(SESSION, KEY, 3), Target("c", other), Target("d", KEY, 4)]
    (data,) = scene.take(move(scene, counter=5))
    answer = Answer.parse(data)
    assert answer.is_signed_with(KEY)
    assert (answer.reason, answer.nonce) == (Reason.NO_SESSION, (5).to_bytes(8))
    assert scene.take(move(scene, counter=4)) == [], "below one of theirs: it is replayed"
    assert scene.signals.calls == []
    assert scene.take(move(scene, key=other)), "that one has its own"
    assert scene.signals.calls == [("move_source", "c", HERE, 1, other)]
    for _ in range(40):  # nobody is answered without end, nor each time in the log
        scene.take(move(scene, counter=5), THERE)
    counted = scene.counted()
    assert counted["move", "ambiguous"] == 21
    assert counted["move", "limited"] == 20
    assert counted["move", "replayed"] == counted["move", "accepted"] == 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotFoundError("gone"), Reason.NO_SESSION),
        (UnavailableError("full disk"), Reason.UNAVAILABLE),
        (AddressDeniedError("ours"), Reason.ADDRESS),
        (InvalidArgumentError("family"), Reason.ADDRESS),
        (LimitError("many"), Reason.LIMIT),
    ],
)
def test_who_signed_right_is_told_why_not(scene, error, reason):
    scene.signals.targets[7] = [Target(SESSION, KEY)]
    scene.signals.error = error
    (data,) = scene.take(move(scene))
    assert Answer.parse(data).reason is reason
    assert Answer.parse(data).is_signed_with(KEY)
    token = scene.token()
    assert scene.join(token).reason is reason
    assert scene.counted()["move", "denied"] == scene.counted()["join", "denied"] == 1


def test_an_error_nobody_meant_is_counted_and_answered_with_silence(scene):
    scene.signals.targets[7] = [Target(SESSION, KEY)]
    scene.signals.error = RuntimeError("a fault")
    assert scene.take(move(scene)) == []
    assert scene.counted() == {("move", "failed"): 1}


# --- consent


def test_consent_lasts_from_the_cookie_s_making(scene):
    scene.signals.consenting[HERE] = [SESSION, OTHER_SESSION]
    (challenge,) = scene.take(signed.build_hello(NONCE))
    assert scene.signals.calls == [], "a hello alone is no consent"
    nonce, cookie = signed.parse_challenge(challenge)
    assert nonce == NONCE
    scene.now += 10
    (data,) = scene.take(signed.build_echo(NONCE, cookie))
    assert scene.signals.calls == [
        ("consent_given", SESSION, HERE, 1028.0),
        ("consent_given", OTHER_SESSION, HERE, 1028.0),
    ]
    answer = Answer.parse(data)
    assert answer.is_signed_with(cookie)
    assert answer.lifetime_ms == 18_000
    scene.signals.calls.clear()
    assert scene.take(signed.build_echo(NONCE, answer.cookie))
    assert scene.signals.calls[0] == ("consent_given", SESSION, HERE, 1038.0)


def test_a_replayed_echo_prolongs_nothing(scene):
    scene.signals.consenting[HERE] = [SESSION]
    (challenge,) = scene.take(signed.build_hello(NONCE))
    _, cookie = signed.parse_challenge(challenge)
    for _ in range(5):
        scene.take(signed.build_echo(NONCE, cookie))
        scene.now += 5
    assert {call[3] for call in scene.signals.calls} == {1028.0}
    scene.now = 1028.0
    (again,) = scene.take(signed.build_echo(NONCE, cookie))
    assert signed.kind_of(again) is Kind.CHALLENGE


def test_strangers_hear_nothing(scene):
    scene.signals.consenting[HERE] = [SESSION]
    (challenge,) = scene.take(signed.build_hello(NONCE))
    _, cookie = signed.parse_challenge(challenge)
    for data in (
        signed.build_hello(NONCE),
        signed.build_echo(NONCE, cookie),
        signed.build_challenge(NONCE, cookie),
        signed.build_answer(KEY, NONCE),
        signed.build_answer(KEY, NONCE, reason=Reason.LIMIT),
        signed.build_move(KEY, ssrc=1, counter=1, time_ms=scene.unix_ms),
        signed.build_join(Token(scene.token().claims, b"w" * 32), nonce=NONCE),
        signed.MAGIC,
        signed.MAGIC + b"\xff" * 60,
    ):
        assert scene.take(data, VICTIM) == []
    assert scene.signals.calls == []


def test_a_cookie_of_another_address_earns_a_challenge_only(scene):
    scene.signals.consenting = {HERE: [SESSION], THERE: [SESSION]}
    (challenge,) = scene.take(signed.build_hello(NONCE), HERE)
    _, cookie = signed.parse_challenge(challenge)
    (answer,) = scene.take(signed.build_echo(NONCE, cookie), THERE)
    assert signed.kind_of(answer) is Kind.CHALLENGE
    assert scene.signals.calls == []


def test_a_shorter_consent_is_shorter():
    scene = Scene(consent_secs=3)
    scene.signals.consenting[HERE] = [SESSION]
    (challenge,) = scene.take(signed.build_hello(NONCE))
    _, cookie = signed.parse_challenge(challenge)
    assert Answer.parse(scene.take(signed.build_echo(NONCE, cookie))[0]).lifetime_ms == 1000
    assert scene.signals.calls == [("consent_given", SESSION, HERE, 1001.0)]


def test_a_move_that_another_thread_was_faster_with_is_a_replay(scene):
    scene.signals.targets[7] = [Target(SESSION, KEY)]
    scene.signals.error = PermissionDeniedError("not above", field="counter")
    assert scene.take(move(scene)) == []
    scene.signals.error = PermissionDeniedError("outside", field="source_address")
    assert Answer.parse(scene.take(move(scene))[0]).reason is Reason.ADDRESS
    assert scene.counted() == {("move", "replayed"): 1, ("move", "denied"): 1}


def test_cookies_outlive_the_process(scene):
    token = scene.token()
    cookie = scene.cookie(token)
    later = Scene()
    assert later.join(token, cookie=cookie).reason is None


def test_a_full_disk_at_the_first_start_keeps_nobody_from_consenting():
    scene = Scene(disk_is_full=True)
    scene.signals.consenting[HERE] = [SESSION]
    (challenge,) = scene.take(signed.build_hello(NONCE))
    _, cookie = signed.parse_challenge(challenge)
    assert scene.take(signed.build_echo(NONCE, cookie))
    assert scene.take(signed.build_join(Scene().token(), nonce=NONCE)) == []
    scene.signals.disk_is_full = False
    token = scene.token()
    assert scene.take(signed.build_join(token, nonce=NONCE)) == []
    assert scene.join(token).reason is None, "as soon as there is room"
