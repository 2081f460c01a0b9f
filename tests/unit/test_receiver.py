"""The receiver's and the source's side of the protocol, against the doorman, in virtual time."""

from __future__ import annotations

import itertools
import random

import pytest
from doorman_scene import HERE, KEY, SESSION, THERE, Scene, Target

from rtpfanout import mover, receiver, signed
from rtpfanout.errors import LimitError, NotFoundError, UnauthenticatedError, UnavailableError
from rtpfanout.model import Address
from rtpfanout.receiver import Membership, MemberState
from rtpfanout.signed import Kind, Reason

UNDECIDED = Address.parse("192.0.2.77:7777")


class Play:
    """A receiver and a doorman with a wire between them, which may lose datagrams."""

    def __init__(self, *, token=True, loss=0.0, seed=1, **token_options) -> None:
        self.scene = Scene()
        self.address = HERE
        self.random = random.Random(seed)
        self.loss = loss
        self.token = self.scene.token(**token_options) if token else None
        self.sent: list[tuple[float, Kind]] = []
        self.member = Membership(self.token, self.scene.now, uniform=self.random.uniform)

    def run(self, seconds, media=False):
        """Until then, or until nothing is left to do."""
        end = self.scene.now + seconds
        while self.scene.now <= end:
            if (data := self.member.poll(self.scene.now)) is not None:
                self.sent.append((self.scene.now, signed.kind_of(data)))
                self._over_the_wire(data)
            elif media:
                self.member.receive(b"\x80" + bytes(11), self.scene.now)
            step = 0.1 if media else self.member.next_poll - self.scene.now
            self.scene.now += max(0.001, step)
        self.scene.now = end

    def _over_the_wire(self, data):
        if self.random.random() < self.loss:
            return
        for answer in self.scene.take(data, self.address):
            if self.random.random() >= self.loss:
                self.scene.now += 0.001
                assert self.member.receive(answer, self.scene.now)

    def joins(self):
        return [call for call in self.scene.signals.calls if call[0] == "join"]


def test_two_round_trips_make_a_member_and_one_each_ten_seconds_keeps_it():
    play = Play()
    play.run(1)
    assert [kind for _, kind in play.sent] == [Kind.JOIN, Kind.JOIN]
    assert play.member.state is MemberState.MEMBER
    play.run(60)
    gaps = [b - a for (a, _), (b, _) in zip(play.sent[1:], play.sent[2:], strict=False)]
    assert 5 <= len(gaps) <= 7
    assert all(8.9 <= gap <= 11.1 for gap in gaps)
    assert len(set(gaps)) == len(gaps), "they are not in step"
    assert play.member.state is MemberState.MEMBER


def test_a_short_lease_is_renewed_in_time():
    play = Play(lease_ms=3000)
    play.run(10)
    assert len(play.joins()) >= 9
    assert play.member.state is MemberState.MEMBER


@pytest.mark.parametrize("seed", range(20))
def test_half_of_all_datagrams_may_be_lost(seed):
    play = Play(loss=0.5, seed=seed)
    play.run(120)
    assert play.member.state is MemberState.MEMBER
    assert len(play.sent) < 120, "it doesn't flood either"


def test_with_no_answer_it_asks_ever_less_often():
    play = Play(loss=1.0)
    play.run(60)
    assert 12 <= len(play.sent) <= 22
    assert play.sent[-1][0] - play.sent[-2][0] >= 4.4
    assert play.member.state is MemberState.ASKING


def test_a_new_address_is_followed_within_the_refresh():
    play = Play()
    play.run(5)
    play.address = THERE
    play.run(11)
    assert play.joins()[-1] == ("join", SESSION, THERE, 30.0, "recorder", HERE)
    assert play.member.state is MemberState.MEMBER


def test_media_that_stays_away_makes_it_ask_at_once():
    play = Play()
    play.run(2, media=True)
    before = len(play.sent)
    play.address = THERE
    play.run(1.5)
    assert len(play.sent) - before >= 2
    assert play.joins()[-1][2:] == (THERE, 30.0, "recorder", HERE)
    before = len(play.sent)
    play.run(5)
    assert len(play.sent) == before, "and only once for each silence"


def test_consent_is_given_and_renewed():
    play = Play(token=False)
    play.run(3)
    assert all(kind is Kind.HELLO for _, kind in play.sent), "a stranger hears nothing"
    play.scene.signals.consenting[HERE] = [SESSION]
    play.run(100)
    assert play.member.state is MemberState.MEMBER
    assert play.sent[-1][1] is Kind.ECHO
    untils = [call[3] for call in play.scene.signals.calls]
    assert untils == sorted(untils)
    assert all(b - a < 28 for a, b in itertools.pairwise(untils)), "never a gap"
    play.member.leave(play.scene.now)
    before = len(play.sent)
    play.run(100)
    assert len(play.sent) == before


def test_it_leaves():
    play = Play()
    play.run(1)
    play.member.leave(play.scene.now)
    play.run(1)
    assert play.member.state is MemberState.LEFT
    assert play.scene.signals.calls[-1] == ("leave", SESSION, HERE)
    assert play.member.poll(play.scene.now + 100) is None


@pytest.mark.parametrize(
    ("error", "state", "kind"),
    [
        (NotFoundError("gone"), MemberState.DENIED, NotFoundError),
        (LimitError("full"), MemberState.ASKING, LimitError),
    ],
)
def test_a_denial_is_told(error, state, kind):
    play = Play()
    play.scene.signals.error = error
    play.run(20)
    assert play.member.state is state
    assert isinstance(play.member.error, kind)
    asked = len(play.sent)
    assert asked <= 8
    play.scene.signals.error = None
    play.run(20)
    if state is MemberState.ASKING:
        assert play.member.state is MemberState.MEMBER
        assert play.member.error is None
    else:
        assert len(play.sent) == asked


def test_an_expired_token_ends_it():
    play = Play(ttl_ms=15_000)
    play.run(30)
    assert play.member.reason is Reason.EXPIRED
    assert isinstance(play.member.error, UnauthenticatedError)


def test_forged_answers_change_nothing():
    play = Play()
    play.run(1)
    ends = play.member.next_poll
    data = play.member.poll(ends)
    nonce = data[8:16]
    for forged in (
        signed.build_answer(b"w" * 32, nonce, reason=Reason.EXPIRED),
        signed.build_answer(play.token.key, b"x" * 8, reason=Reason.EXPIRED),
        signed.build_challenge(b"x" * 8, b"c" * 24),
        signed.build_hello(nonce),
        signed.MAGIC + b"\xff" * 40,
        signed.MAGIC,
    ):
        assert play.member.receive(forged, ends)
    assert play.member.state is MemberState.MEMBER
    assert play.member.receive(
        signed.build_answer(play.token.key, nonce, lifetime_ms=6000, cookie=b"c" * 24), ends
    )
    assert 1.7 < play.member.next_poll - ends < 2.3


def test_a_server_that_only_challenges_is_not_flooded():
    play = Play()
    now = play.scene.now
    sent = 0
    end = now + 10
    while now < end:
        if (data := play.member.poll(now)) is not None:
            sent += 1
            play.member.receive(signed.build_challenge(data[8:16], bytes([sent]) * 24), now)
        now += 0.01
    assert sent <= 10


class HelloForger:
    """Sends HELLOs in a receiver's name, in virtual time; their answers go to the receiver."""

    def __init__(self, per_second, *, only_own_nonces=False, fakes=0) -> None:
        self.scene = Scene()
        self.scene.signals.consenting[HERE] = [SESSION]
        self.random = random.Random(per_second)
        self.member = Membership(None, self.scene.now, uniform=self.random.uniform)
        self.every_ms = 1000 / per_second
        self.only_own_nonces = only_own_nonces
        self.fakes = fakes
        self.asked = set()

    def forge(self, milliseconds):
        for _ in range(round(milliseconds / self.every_ms)):
            self.scene.door.handle(("datagram", HERE, signed.build_hello(self.random.randbytes(8))))
            self.scene.now += self.every_ms / 1000

    def deliver(self, answers):
        for _, answer in answers:
            if not self.only_own_nonces or answer[8:16] in self.asked:
                self.member.receive(answer, self.scene.now)
        for _ in range(self.fakes):  # and some of no server at all
            fake = signed.build_challenge(self.random.randbytes(8), self.random.randbytes(24))
            self.member.receive(fake, self.scene.now)

    def secs_to_consent(self):
        self.forge(3000)  # it began long ago
        self.scene.engine.sent.clear()
        begin = self.scene.now
        while self.member.state is not MemberState.MEMBER and self.scene.now < begin + 30:
            self.forge(10)
            if (data := self.member.poll(self.scene.now)) is not None:
                self.asked.add(data[8:16])
                self.scene.door.handle(("datagram", HERE, data))
                self.scene.door._work.stop()
            sent, self.scene.engine.sent = self.scene.engine.sent, []
            self.deliver(sent)
        return self.scene.now - begin


@pytest.mark.parametrize(
    ("per_second", "how"),
    [
        (100, {}),
        (100, {"only_own_nonces": True}),  # a receiver of before: it heeds no other challenges
        (2000, {}),
        (2000, {"fakes": 1}),
        (20_000, {}),
    ],
)
def test_who_says_hello_in_its_name_does_not_keep_it_from_consenting(per_second, how):
    assert HelloForger(per_second, **how).secs_to_consent() <= 1.0


def test_a_member_and_one_with_a_token_heed_no_foreign_challenge():
    for play in (Play(), Play(token=False)):
        play.scene.signals.consenting[HERE] = [SESSION]
        play.run(3)
        assert play.member.state is MemberState.MEMBER
        before = play.member.next_poll
        play.member.receive(signed.build_challenge(b"foreign.", b"c" * 24), play.scene.now)
        assert play.member.next_poll == before
    asking = Membership(Play().token, 0.0)
    assert asking.poll(0.0)
    asking.receive(signed.build_challenge(b"foreign.", b"c" * 24), 0.0)
    assert asking.next_poll > 0.2
    assert asking.poll(0.2) is None


def test_an_answer_that_took_longer_than_a_retry_is_heard():
    member = Membership(None, 0.0, uniform=lambda *_: 1.0)
    hellos = [member.poll(now) for now in (0.0, 0.25, 0.75)]
    assert all(hellos)
    member.receive(signed.build_challenge(hellos[0][8:16], b"c" * 24), 0.8)
    echo = member.poll(0.8)
    assert signed.parse_echo(echo)[1] == b"c" * 24


def test_an_answer_to_a_join_is_none_to_a_leave():
    play = Play()
    play.run(1)
    renewal = play.member.poll(play.member.next_poll)
    (late,) = play.scene.take(renewal)
    play.member.leave(play.scene.now)
    play.member.receive(late, play.scene.now)
    assert play.member.state is MemberState.LEAVING
    play.run(1)
    assert play.member.state is MemberState.LEFT
    assert play.scene.signals.calls[-1][0] == "leave"


def test_media_is_not_swallowed():
    member = Membership(None, 0.0)
    for data in (b"", b"\x80", b"RFO", b"RFO\x02" + bytes(60), bytes(200)):
        assert not member.receive(data, 0.0)


# --- a source that moved


class Vehicle:
    def __init__(self) -> None:
        self.scene = Scene()
        self.scene.signals.targets[7] = [Target(SESSION, KEY)]
        self.mover = mover.Mover(KEY, 7, unix_ns=lambda: self.scene.unix_ms * 1_000_000)

    def run(self, seconds, heard=True):
        tries = 0
        end = self.scene.now + seconds
        while self.scene.now < end:
            if (data := self.mover.poll(self.scene.now)) is not None:
                tries += 1
                for answer in self.scene.take(data, THERE):
                    if heard:
                        assert self.mover.receive(answer)
            self.scene.now += 0.01
        return tries


def test_a_move_is_told_until_it_is_confirmed():
    vehicle = Vehicle()
    assert vehicle.run(1) == 0
    vehicle.mover.move(vehicle.scene.now)
    assert vehicle.run(1, heard=False) >= 3
    assert not vehicle.mover.is_done
    vehicle.run(2)
    assert vehicle.mover.is_done
    assert vehicle.mover.error is None
    counters = [call[3] for call in vehicle.scene.signals.calls]
    assert counters == sorted(set(counters)), "every try is signed anew"
    vehicle.mover.move(vehicle.scene.now)
    assert vehicle.run(1) == 1


def test_a_refused_move_says_why_and_a_full_disk_is_waited_for():
    vehicle = Vehicle()
    vehicle.scene.signals.error = NotFoundError("gone")
    vehicle.mover.move(vehicle.scene.now)
    assert vehicle.run(5) == 1
    assert "gone" in str(vehicle.mover.error)
    vehicle.scene.signals.error = UnavailableError("full")
    vehicle.mover.move(vehicle.scene.now)
    assert vehicle.run(5) > 3
    assert not vehicle.mover.is_done
    vehicle.scene.signals.error = None
    vehicle.run(5)
    assert vehicle.mover.is_done
    assert vehicle.mover.error is None


def test_a_source_hears_only_signed_answers_to_its_own_tries():
    vehicle = Vehicle()
    vehicle.mover.move(0.0)
    data = vehicle.mover.poll(0.0)
    counter = data[16:24]
    for forged in (
        signed.build_answer(b"x" * 32, counter),
        signed.build_answer(KEY, bytes(8)),
        data,
        b"\x80" + bytes(11),
    ):
        assert not vehicle.mover.receive(forged)
    assert not vehicle.mover.is_done
    assert vehicle.mover.receive(signed.build_answer(KEY, counter))
    assert vehicle.mover.is_done


@pytest.mark.parametrize("size", [0, 15, 65])
def test_a_key_of_another_size_is_refused(size):
    with pytest.raises(ValueError, match="16 to 64"):
        mover.Mover(bytes(size), 1)


def test_the_longest_retry_is_shorter_than_the_shortest_usual_lease():
    assert receiver.LONGEST_RETRY_SECS * 1.1 < 30 - receiver.REFRESH_SECS * 1.1
