"""Control datagrams through the packet path: which get where, and which end there."""

from __future__ import annotations

import random
import select
import uuid
from typing import TYPE_CHECKING, Any

from fastpath.engines import bound_to, running, send_segmented
from support import eventually, receive, target

from rtpfanout import signed
from rtpfanout._fastpath import make_cookie, stamp_claims
from rtpfanout.model import Address, SubscriberClass
from rtpfanout.signed import Claims, Kind, Token

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine

NONCE = b"nonce..."
COOKIE_KEY, STAMP_KEY = b"k" * 16, b"s" * 16
CLAIMS = Claims(str(uuid.UUID(int=7)), b"1234\0\0\0\0", 30_000, 2**41, SubscriberClass.PILOT)
TOKEN = Token(CLAIMS, b"t" * 32)
INVITED = Token(Claims.unpack(stamp_claims(STAMP_KEY, CLAIMS.packed)), b"t" * 32)
HELLO = signed.build_hello(NONCE)
MOVE = signed.build_move(b"m" * 16, ssrc=7, counter=1, time_ms=5)


def dropped(e: Engine) -> dict[str, int]:
    """By reason, without the zeros."""
    return {k.removeprefix("dropped_"): n for k, n in e.stats().items() if n and "dropped_" in k}


def settle(e: Engine, count: int) -> dict[str, int]:
    """Once so many were dropped."""
    eventually(lambda: sum(dropped(e).values()), lambda n: n >= count, f"{count} datagrams")
    return dropped(e)


def taken(e: Engine) -> tuple[list[Any], list[Any]]:
    """What waits of the known and of strangers."""
    return e.notices(), e.stranger_notices()


def set_keys(e: Engine) -> None:
    """Those of this file."""
    e.set_cookie_key(COOKIE_KEY)
    e.set_stamp_key(STAMP_KEY)


def test_each_queue_has_a_descriptor(udp: Callable[[], socket.socket]) -> None:
    peer = udp()
    with running() as e:
        set_keys(e)
        known = signed.build_echo(NONCE, make_cookie(COOKIE_KEY, bound_to(peer), 5))
        for data, fd, take in (
            (HELLO, e.stranger_notice_fd, e.stranger_notices),
            (known, e.notice_fd, e.notices),
        ):
            peer.sendto(data, target(e.bound))
            assert select.select([e.notice_fd, e.stranger_notice_fd], [], [], 30)[0] == [fd]
            assert take() == [("datagram", bound_to(peer), data)]
            assert select.select([e.notice_fd, e.stranger_notice_fd], [], [], 0)[0] == []


def test_only_who_is_where_its_cookie_was_sent_is_known(udp: Callable[[], socket.socket]) -> None:
    peer, thief = udp(), udp()
    with running() as e:
        cookie = make_cookie(COOKIE_KEY, bound_to(peer), 5)
        letters = [
            signed.build_echo(NONCE, cookie),
            signed.build_join(TOKEN, nonce=NONCE, cookie=cookie),
            signed.build_join(TOKEN, nonce=NONCE, cookie=cookie, leave=True),
        ]
        for number, (sock, keys, count) in enumerate(
            [(peer, False, 0), (peer, True, 3), (thief, True, 0)], start=1
        ):
            if keys:
                set_keys(e)
            for data in letters:
                sock.sendto(data, target(e.bound))
            settle(e, 3 * number)
            known, strangers = taken(e)
            assert (len(known), len(strangers)) == (count, 3 - count)


def test_a_flood_of_strangers_takes_no_room_of_the_known(udp: Callable[[], socket.socket]) -> None:
    """A flood from one address; beside it come who is known, an invited and a new stranger."""
    peer, flooder, elsewhere = udp(), udp(), udp("127.0.7.7")
    floods = (HELLO, signed.build_join(TOKEN, nonce=NONCE), MOVE)
    with running() as e:
        set_keys(e)
        for data in floods:
            for _ in range(10):
                send_segmented(flooder, [data] * 60, e)
        counted = settle(e, 1800)
        assert counted["control"] == 52 + 26, "a fifth of the places of either room"
        cookie = make_cookie(COOKIE_KEY, bound_to(peer), 5)
        renewal = signed.build_join(TOKEN, nonce=NONCE, cookie=cookie)
        invited = signed.build_join(INVITED, nonce=NONCE)
        peer.sendto(renewal, target(e.bound))
        peer.sendto(invited, target(e.bound))
        elsewhere.sendto(HELLO, target(e.bound))
        elsewhere.sendto(MOVE, target(e.bound))
        assert settle(e, 1804)["control"] == 52 + 26 + 4
        known, strangers = taken(e)
        assert known == [("datagram", bound_to(peer), renewal)]
        assert ("datagram", bound_to(peer), invited) in strangers
        of_new = [data for _, source, data in strangers if source == bound_to(elsewhere)]
        assert sorted(of_new) == sorted([HELLO, MOVE])
        assert "control_known_full" not in dropped(e)


def test_whose_consent_is_awaited_is_expected(udp: Callable[[], socket.socket]) -> None:
    """Strangers fill their places, from as many networks as there are; this one has others."""
    flooders = [udp(f"127.{1 + n // 200}.{n % 200}.9") for n in range(300)]
    peer = udp()
    with running() as e:
        e.await_consent(bound_to(peer).record, True)
        for flooder in flooders:
            flooder.sendto(HELLO, target(e.bound))
        assert settle(e, 300)["control_full"] >= 300 - 256
        peer.sendto(HELLO, target(e.bound))
        peer.sendto(signed.build_echo(NONCE, bytes(24)), target(e.bound))
        assert settle(e, 302)["control"] <= 256 + 2
        assert bound_to(peer) in {source for _, source, _ in e.stranger_notices()[:4]}
        e.await_consent(bound_to(peer).record, False)
        for flooder in flooders:
            flooder.sendto(HELLO, target(e.bound))
        settle(e, 602)
        peer.sendto(HELLO, target(e.bound))
        settle(e, 603)
        first = [source for _, source, _ in e.stranger_notices()[:4]]
        assert bound_to(peer) not in first


def test_one_who_is_known_and_floods_leaves_room_to_the_others(
    udp: Callable[[], socket.socket],
) -> None:
    flooder, peer = udp(), udp()
    with running() as e:
        set_keys(e)
        for sock, count in ((flooder, 1200), (peer, 1)):
            echo = signed.build_echo(NONCE, make_cookie(COOKIE_KEY, bound_to(sock), 5))
            for begin in range(0, count, 60):
                send_segmented(sock, [echo] * min(60, count - begin), e)
        assert settle(e, 1201) == {"control": 206, "control_known_full": 995}
        assert taken(e)[0][-1][1] == bound_to(peer)


def test_send(udp: Callable[[], socket.socket]) -> None:
    peer = udp()
    with running() as e:
        assert e.send(bound_to(peer), b"an answer")
        assert receive(peer, 1) == [b"an answer"]
        assert e.send(bound_to(peer), b"")
        assert not e.send(bound_to(peer), bytes(65508))
        assert not e.send(Address.parse("[2001:db8::1]:9"), b"of no family it has")
        stats = e.stats()
        assert (stats["control_sent"], stats["control_send_failures"]) == (2, 2)
        assert stats["copies_attempted"] == 0


def is_readable(data: bytes) -> bool:
    """What the doorman would not call malformed."""
    parsers = {
        Kind.MOVE: signed.Move.parse,
        Kind.HELLO: signed.parse_hello,
        Kind.ECHO: signed.parse_echo,
        Kind.JOIN: signed.Join.parse,
        Kind.LEAVE: signed.Join.parse,
    }
    try:
        parsers[signed.kind_of(data)](data)
    except (ValueError, KeyError):
        return False
    return True


def changed(chance: random.Random, data: bytes) -> bytes:
    """With a bit flipped, a byte set, cut or grown."""
    new = bytearray(data)
    place = chance.randrange(4, len(new))
    match chance.randrange(5):
        case 0:
            new[place] = chance.choice((0, 1, 2, 3, 0xFF))
        case 1:
            new = new[:place]
        case 2:
            new += bytes(chance.randrange(1, 5))
        case _:
            new[place] ^= 1 << chance.randrange(8)
    return bytes(new)


def test_it_and_python_agree_on_what_is_malformed(udp: Callable[[], socket.socket]) -> None:
    peer = udp()
    chance = random.Random(16)
    kinds = [
        MOVE,
        HELLO,
        signed.build_echo(NONCE, bytes(24)),
        signed.build_join(TOKEN, nonce=NONCE),
        signed.build_join(TOKEN, nonce=NONCE, leave=True),
        signed.build_challenge(NONCE, bytes(24)),
        signed.build_answer(b"k" * 32, NONCE),
        signed.MAGIC,
        signed.MAGIC + b"\x05",
    ]
    letters = [*kinds, *(changed(chance, chance.choice(kinds[:7])) for _ in range(3000))]
    readable = [data for data in letters if is_readable(data)]
    assert 500 < len(readable) < 2500
    got = []
    with running() as e:
        for number, data in enumerate(letters, start=1):
            peer.sendto(data, target(e.bound))
            if number % 20 == 0 or number == len(letters):  # so that all find a place
                settle(e, number)
                got += [notice[2] for notice in e.stranger_notices()]
        assert dropped(e) == {
            "control": len(readable),
            "control_malformed": len(letters) - len(readable),
        }
    assert sorted(got) == sorted(readable)
