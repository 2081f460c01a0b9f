"""What strangers and the verified may ask of the doorman, and how little it remembers."""

from __future__ import annotations

import pytest
from doorman_scene import HERE, KEY, NONCE, SESSION, THERE, Scene, Target, move
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpfanout import signed
from rtpfanout.doorman.limits import AddressBuckets
from rtpfanout.doorman.members import Member, Members
from rtpfanout.model import Address
from rtpfanout.seldom import Bucket
from rtpfanout.signed import Kind, Token


@pytest.fixture
def scene():
    return Scene()


# --- what junk may cost


def test_one_address_that_asks_too_often_is_ignored(scene):
    scene.signals.consenting = {HERE: [SESSION], THERE: [SESSION]}
    answers = [scene.take(signed.build_hello(NONCE)) for _ in range(1000)]
    assert sum(map(len, answers)) == 200
    assert scene.counted() == {("hello", "challenged"): 200, ("hello", "limited"): 800}
    assert scene.take(signed.build_hello(NONCE), THERE), "the other is served"
    scene.now += 1
    assert scene.take(signed.build_hello(NONCE))


def test_what_others_send_in_its_name_does_not_keep_a_receiver_out(scene):
    scene.signals.consenting[HERE] = [SESSION]
    token = scene.token()
    answer = scene.join(token)
    (data,) = scene.take(signed.build_hello(NONCE))
    _, cookie = signed.parse_challenge(data)
    forged = signed.build_join(Token(token.claims, b"w" * 32), nonce=NONCE)
    for junk in (forged, signed.build_hello(NONCE), signed.build_echo(NONCE, bytes(24))) * 2000:
        scene.door.handle(("datagram", HERE, junk))
    assert scene.join(token, cookie=answer.cookie).reason is None
    (data,) = scene.take(signed.build_echo(NONCE, cookie))
    assert signed.kind_of(data) is Kind.ACK


def test_one_who_is_verified_may_not_ask_without_end_either(scene):
    scene.signals.targets[7] = [Target(SESSION, KEY)]
    answered = sum(len(scene.take(move(scene, counter=n + 1))) for n in range(100))
    assert answered == 20
    assert scene.counted() == {("move", "accepted"): 20, ("move", "limited"): 80}


def test_moves_among_many_sessions_are_rationed_and_nothing_else_is(scene):
    scene.signals.targets[7] = [Target(SESSION, KEY)] * 1600
    token = scene.token()
    forged = move(scene, key=b"w" * 32)
    for number in range(1000):
        source = Address.parse(f"198.18.{number >> 8}.{number & 255}:9")
        scene.door.handle(("datagram", source, forged))
    counted = scene.counted()
    assert counted["move", "bad_mac"] + counted["move", "limited"] == 1000
    assert counted["move", "limited"] >= 900
    answer = scene.join(token)
    assert answer.reason is None
    assert scene.join(token, cookie=answer.cookie).reason is None


def test_a_renewal_is_asked_for_no_more_than_its_share(scene):
    token = scene.token()
    answer = scene.join(token)
    renewal = signed.build_join(token, nonce=NONCE, cookie=answer.cookie)
    for _ in range(100):
        scene.door.handle(("datagram", HERE, renewal))
    assert scene.counted()["join", "limited"] == 100 - 19, "the first join took one of 20"
    scene.door.stop()
    scene.now += 40
    (late,) = scene.take(renewal)
    assert signed.kind_of(late) is Kind.CHALLENGE


@settings(max_examples=300)
@given(
    data=st.binary(max_size=100).map(signed.MAGIC.__add__)
    | st.tuples(st.integers(0, 9), st.binary(max_size=128)).map(
        lambda t: (signed.MAGIC + bytes([t[0], 0, 0, 0]) + t[1])[
            : signed.LENGTHS.get(Kind(t[0]), 50) if 1 <= t[0] <= 8 else 50
        ]
    )
)
def test_junk_is_counted_once_and_never_answered(data):
    scene = Scene()
    scene.signals.targets[7] = [Target(SESSION, KEY)]
    assert scene.take(data) == []
    assert scene.signals.calls == []
    assert sum(scene.door.counts.values()) == 1


def test_other_notices_reach_the_manager(scene):
    scene.door.handle(("source", 5, HERE))
    scene.door.stop()
    assert scene.signals.calls == [("on_source_notice", 5, HERE)]
    assert scene.counted() == {("source", "accepted"): 1}


# --- the parts


def test_a_bucket_fills_with_time_and_may_go_into_debt():
    bucket = Bucket(10, 5)
    assert [bucket.take(100.0) for _ in range(6)] == [True] * 5 + [False]
    assert bucket.take(100.2)
    assert bucket.take(101.0, cost=25)
    assert not bucket.take(102.4)
    assert bucket.take(103.2)


def test_address_buckets_do_not_grow():
    buckets = AddressBuckets(1, 1, slots=16)
    addresses = [Address.parse(f"192.0.2.{n}:{n + 1}") for n in range(200)]
    for address in addresses:
        buckets.take(address, 1.0)
    assert not any(buckets.take(address, 1.0) for address in addresses)


def test_members_are_forgotten_in_time_and_by_number():
    members = Members(size=3)
    for n in range(5):
        members.put((SESSION, bytes([n])), Member(HERE, n, 100.0), now=1.0)
    assert len(members) == 3
    assert members.get((SESSION, b"\0"), 1.0) is None
    assert members.get((SESSION, b"\4"), 99.0) == Member(HERE, 4, 100.0)
    assert members.get((SESSION, b"\4"), 100.0) is None
    members.put((SESSION, b"x"), Member(None, 1, 300.0), now=200.0)
    assert len(members) == 1
