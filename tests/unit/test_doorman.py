"""The doorman against a fake engine and signals, in virtual time."""

from __future__ import annotations

import asyncio
import os
import threading
import time

import pytest
from doorman_scene import (
    HERE,
    KEY,
    NONCE,
    OTHER_SESSION,
    SESSION,
    THERE,
    VICTIM,
    FakeEngine,
    Scene,
    Target,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpfanout import signed
from rtpfanout.doorman.limits import AddressBuckets, Bucket
from rtpfanout.doorman.members import Member, Members
from rtpfanout.doorman.reader import BUSY_BATCH, Reader
from rtpfanout.doorman.work import Work
from rtpfanout.errors import (
    AddressDeniedError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from rtpfanout.model import Address, Consent
from rtpfanout.signed import Answer, Kind, Reason, Token


@pytest.fixture
def scene():
    return Scene()


def move(scene, *, key=KEY, ssrc=7, counter=1, late_ms=0):
    return signed.build_move(key, ssrc=ssrc, counter=counter, time_ms=scene.unix_ms - late_ms)


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


def test_work_is_bounded_and_in_order_by_key():
    work = Work(threads=2, depth=50)
    done = []
    gate = threading.Event()
    assert work.submit(0, gate.wait)
    for n in range(49):
        assert work.submit(0, lambda n=n: done.append(n))
    assert not work.submit(0, lambda: done.append("too many"))
    gate.set()
    work.stop()
    assert done == list(range(49))
    assert work.submit(0, lambda: done.append("again")), "there is room again"
    work.stop()
    assert done[-1] == "again"


async def _read(engine, handle, put, seconds=0.0):
    reader = Reader(engine.fd, engine.notices, handle, asyncio.get_running_loop())
    await put()
    await asyncio.sleep(seconds)
    reader.close()


def test_the_reader_takes_all_notices_and_lets_calls_in_between():
    engine = FakeEngine(os.eventfd(0, os.EFD_NONBLOCK))
    seen, ticks = [], []

    def handle(notice):
        seen.append(notice)
        time.sleep(0.0001)

    async def put():
        for start in range(0, 4 * BUSY_BATCH, BUSY_BATCH):
            engine.waiting += range(start, start + BUSY_BATCH)
            os.eventfd_write(engine.fd, 1)
            while len(seen) < start + BUSY_BATCH:
                await asyncio.sleep(0)
                ticks.append(len(seen))

    begin = time.perf_counter()
    asyncio.run(_read(engine, handle, put))
    took = time.perf_counter() - begin
    os.close(engine.fd)
    assert seen == list(range(4 * BUSY_BATCH))
    assert any(0 < n % BUSY_BATCH < BUSY_BATCH for n in ticks), "calls got their turn"
    assert took > 3 * 2 * BUSY_BATCH * 0.0001, "it rests after large batches"


def test_a_reader_may_rest_after_large_batches_only():
    engine = FakeEngine(os.eventfd(0, os.EFD_NONBLOCK))
    seen = []

    async def batches(size, rests_after):
        loop = asyncio.get_running_loop()
        rests = []
        real = loop.call_later
        loop.call_later = lambda delay, *rest: (rests.append(delay), real(delay, *rest))[1]
        reader = Reader(engine.fd, engine.notices, seen.append, loop, rests_after=rests_after)
        engine.waiting = list(range(size))
        os.eventfd_write(engine.fd, 1)
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(seen) == size
        reader.close()
        seen.clear()
        return len(rests)

    assert asyncio.run(batches(BUSY_BATCH - 1, BUSY_BATCH)) == 0
    assert asyncio.run(batches(BUSY_BATCH, BUSY_BATCH)) == 1
    assert asyncio.run(batches(1, 1)) == 1
    os.close(engine.fd)


def test_a_closed_reader_handles_nothing_more():
    engine = FakeEngine(os.eventfd(0, os.EFD_NONBLOCK))
    seen = []

    async def main():
        reader = Reader(engine.fd, engine.notices, seen.append, asyncio.get_running_loop())
        engine.waiting = list(range(300))
        os.eventfd_write(engine.fd, 1)
        for _ in range(1000):
            await asyncio.sleep(0)
            if seen:
                break
        reader.close()
        count = len(seen)
        await asyncio.sleep(0.05)
        assert len(seen) == count

    asyncio.run(main())
    os.close(engine.fd)
