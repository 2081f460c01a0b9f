"""Signed join and consent over a real server and real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from contextlib import closing
from typing import TYPE_CHECKING

import grpc
import pytest
from datagram_support import (
    Forger,
    counted,
    create,
    media,
    outcomes,
    subscribers,
    token_of,
)
from support import address_of, eventually, queued, requires_root, rtp_packet, transfer

from rtpfanout import signed
from rtpfanout.errors import NotFoundError, UnauthenticatedError, UnreachableError
from rtpfanout.model import Address
from rtpfanout.receiver import AsyncReceiver, Receiver
from rtpfanout.signed import Kind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support import ServerProcess

pytestmark = pytest.mark.lent_servers

SSRC = 0xC0FFEE
NONCE = b"nonce..."
CONSENT_SECS = 5


def packets(count: int, first: int = 0) -> list[bytes]:
    return [rtp_packet(SSRC, first + n) for n in range(count)]


def feed(source: socket.socket, server: ServerProcess, count: int, first: int = 0) -> list[bytes]:
    sent = packets(count, first)
    for packet in sent:
        source.sendto(packet, server.ingest_target)
    return sent


def test_a_receiver_joins_receives_and_leaves(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    source = udp()
    session = create(server, source, SSRC)
    with Receiver(server.ingest, token_of(server, session)) as receiver:
        receiver.join(30)
        assert subscribers(server, session) == {f"127.0.0.1:{receiver.local_port}": "sending"}
        sent = feed(source, server, 30)
        assert media(receiver, 30) == sent
        assert receiver.leave(30)
        assert subscribers(server, session) == {}
    feed(source, server, 1, 30)
    counts = server.settled(31 + sum(outcomes(server).values()))
    assert counts["rtp_packets_sent_total"] == 30
    assert outcomes(server) == {
        ("join", "challenged"): 1, ("join", "accepted"): 1, ("leave", "accepted"): 1,
    }  # fmt: skip
    assert counts.dropped() == {"control": 3}


def test_an_asyncio_receiver(server: ServerProcess, udp: Callable[..., socket.socket]) -> None:
    source = udp()
    session = create(server, source, SSRC)
    token = token_of(server, session)

    async def main() -> list[bytes]:
        got: list[bytes] = []
        receiver = await AsyncReceiver.connect(server.ingest, token, got.append)
        await receiver.joined(30)
        feed(source, server, 10)
        for _ in range(3000):
            if len(got) == 10:
                break
            await asyncio.sleep(0.01)
        assert await receiver.leave(30)
        receiver.close()
        return got

    assert asyncio.run(main()) == packets(10)
    assert subscribers(server, session) == {}


def test_who_comes_back_on_another_port_takes_its_place_along(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    source = udp()
    session = create(server, source, SSRC)
    token = token_of(server, session)
    first = Receiver(server.ingest, token)
    first.join(30)
    with Receiver(server.ingest, token) as second:
        second.join(30)
        assert list(subscribers(server, session)) == [f"127.0.0.1:{second.local_port}"]
        sent = feed(source, server, 20)
        assert media(second, 20) == sent
        assert first.receive(0.2) is None
    first.close()


def test_a_place_ends_with_its_lease_unless_it_is_kept(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    source = udp()
    session = create(server, source, SSRC)
    kept = Receiver(server.ingest, token_of(server, session, lease_secs=2))
    silent = Receiver(server.ingest, token_of(server, session, lease_secs=2))
    kept.join(30)
    silent.join(30)
    silent.close()
    left = f"127.0.0.1:{kept.local_port}"
    deadline = time.monotonic() + 30
    while list(subscribers(server, session)) != [left]:
        kept.receive(0.05)
        assert time.monotonic() < deadline
    for _ in range(6):
        kept.receive(0.4)
        assert list(subscribers(server, session)) == [left]
    kept.close()


def test_a_token_ends_with_its_session_and_its_time(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    session = create(server, udp(), SSRC)
    short = token_of(server, session, ttl_secs=1)
    token = token_of(server, session)
    receiver = Receiver(server.ingest, token)
    receiver.join(30)
    time.sleep(1.1)
    with (
        closing(Receiver(server.ingest, short)) as late,
        pytest.raises(UnauthenticatedError, match="expired"),
    ):
        late.join(30)
    server.delete(session)
    with (
        closing(Receiver(server.ingest, token)) as late,
        pytest.raises(NotFoundError, match="gone"),
    ):
        late.join(30)
    receiver.close()
    counted(server, "join", "denied", 2)


def test_tokens_of_another_server_and_forged_ones_are_met_with_silence(
    server: ServerProcess,
    start_server: Callable[..., ServerProcess],
    udp: Callable[..., socket.socket],
) -> None:
    other = start_server()
    foreign = token_of(other, create(other, udp(), SSRC))
    own = signed.Token.parse(token_of(server, create(server, udp(), SSRC)))
    for text in (foreign, str(signed.Token(own.claims, bytes(32)))):
        with (
            closing(Receiver(server.ingest, text)) as receiver,
            pytest.raises(UnreachableError, match="did not answer"),
        ):
            receiver.join(1)
    assert set(outcomes(server)) == {("join", "bad_mac")}
    assert server.metrics().total("rtpfanout_control_answers_total") == 0


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ttl_secs": -1}, "ttl_secs"),
        ({"lease_secs": 0.1}, "lease_secs"),
        ({"subscriber_class": "vip"}, "subscriber_class"),
        ({"session_id": "no-uuid"}, "session_id"),
    ],
)
def test_a_bad_request_for_a_token_names_its_field(
    server: ServerProcess, udp: Callable[..., socket.socket], fields: dict, field: str
) -> None:
    session = create(server, udp(), SSRC)
    with pytest.raises(grpc.RpcError) as caught:
        token_of(server, **({"session_id": session} | fields))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field.encode() in dict(caught.value.trailing_metadata())["grpc-status-details-bin"]
    with pytest.raises(grpc.RpcError) as caught:
        token_of(server, "00000000-0000-4000-8000-000000000000")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_media_flows_while_it_is_consented_to_and_no_longer(
    start_server: Callable[..., ServerProcess], udp: Callable[..., socket.socket]
) -> None:
    server = start_server(consent__timeout_secs=CONSENT_SECS)
    source, beside = udp(), udp()
    session = create(server, source, SSRC, consent="echo")
    receiver = Receiver(server.ingest, bind=Address.parse("127.0.0.1:0"))
    here = f"127.0.0.1:{receiver.local_port}"
    server.add(session, here)
    server.add(session, address_of(beside))
    assert set(subscribers(server, session).values()) == {"awaiting_consent"}
    feed(source, server, 10)
    server.settled(10)
    assert server.stats(session).copies_withheld == 20
    receiver.join(30)
    assert subscribers(server, session)[here] == "sending"
    sent = feed(source, server, 10, 10)
    assert media(receiver, 10) == sent
    numbers = itertools.count(20)

    def state_beside_media() -> str:  # it is read, but says nothing any more
        feed(source, server, 1, next(numbers))
        return subscribers(server, session)[here]

    eventually(state_beside_media, lambda state: state == "awaiting_consent", "no consent any more")
    number = next(numbers)
    receiver._socket.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            receiver._socket.recv(2048)
    feed(source, server, 10, number)
    server.settled()
    time.sleep(0.1)
    with pytest.raises(BlockingIOError):
        receiver._socket.recv(2048)
    assert queued(beside) == [], "who never consented got nothing at all"
    receiver.close()


def test_joining_where_consent_is_asked_for_ends_with_consent_long_before_its_lease(
    start_server: Callable[..., ServerProcess], udp: Callable[..., socket.socket]
) -> None:
    server = start_server(consent__timeout_secs=CONSENT_SECS)
    session = create(server, udp(), SSRC, consent="echo")
    with closing(Receiver(server.ingest, token_of(server, session, lease_secs=3600))) as receiver:
        receiver.join(30)
        assert list(subscribers(server, session).values()) == ["sending"]
        eventually(lambda: subscribers(server, session), lambda left: not left, "it is over")


def test_over_ipv6(
    start_server: Callable[..., ServerProcess], udp: Callable[..., socket.socket]
) -> None:
    server = start_server(bind_address="[::]:0")
    source = udp("::1")
    session = create(server, source, SSRC)
    token = token_of(server, session)
    for host in ("[::1]", "127.0.0.1"):
        ingest = Address.parse(f"{host}:{server.ingest.port}")
        with Receiver(ingest, token) as receiver:
            receiver.join(30)
            assert list(subscribers(server, session)) == [f"{host}:{receiver.local_port}"]
            sent = feed(source, server, 10)
            assert media(receiver, 10) == sent


def test_a_victim_gets_no_media_and_no_more_bytes_than_are_sent_in_its_name(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    requires_root()
    source, victim, good = udp(), udp("127.0.0.2"), udp()
    session = create(server, source, SSRC, consent="echo")
    server.add(session, address_of(victim))
    plain = create(server, source, SSRC + 1)
    server.add(plain, address_of(good))
    token = signed.Token.parse(token_of(server, session))
    # The attacker has a token, and a cookie of his own address.
    with Receiver(server.ingest, str(token)) as attacker:
        attacker.join(30)
        cookie = attacker.membership._cookie
        forger = Forger(server.ingest)
        forged = [
            signed.build_hello(NONCE),
            signed.build_echo(NONCE, cookie),
            signed.build_echo(NONCE, bytes(24)),
            signed.build_join(token, nonce=NONCE),
            signed.build_join(token, nonce=NONCE, cookie=cookie),
            signed.build_join(token, nonce=NONCE, cookie=cookie, leave=True),
            signed.build_move(b"k" * 16, ssrc=SSRC, counter=1, time_ms=time.time_ns() // 10**6),
        ]
        for number in range(50):
            for data in forged:
                forger.send(victim.getsockname(), data)
            some = [rtp_packet(SSRC + 1, number)]
            assert transfer(source, server.ingest_target, some, [good]) == [some]
            feed(source, server, 1, number)
        server.settled()
        time.sleep(0.2)
        came = queued(victim)
        print(f"\nthe victim: {forger.bytes} bytes in its name, {sum(map(len, came))} came")
        assert came, "challenges do come"
        assert {signed.kind_of(data) for data in came} == {Kind.CHALLENGE}
        assert sum(map(len, came)) <= forger.bytes
        assert media(attacker, 50, 5.0) == packets(50), "the attacker's own place stays"
        forger.close()
    assert subscribers(server, session) == {address_of(victim): "awaiting_consent"}


def test_a_stranger_s_hello_is_met_with_silence(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    source, subscriber, stranger = udp(), udp(), udp()
    plain = create(server, source, SSRC)
    server.add(plain, address_of(subscriber))
    for sock in (subscriber, stranger):
        for data in (
            signed.build_hello(NONCE),
            signed.build_echo(NONCE, bytes(24)),
            signed.build_challenge(NONCE, bytes(24)),
            signed.build_answer(b"k" * 32, NONCE),
            signed.MAGIC + b"\xff" * 100,
        ):
            sock.sendto(data, server.ingest_target)
    eventually(lambda: sum(outcomes(server).values()), lambda n: n == 4, "all are counted")
    assert outcomes(server) == {("hello", "unknown"): 2, ("echo", "unknown"): 2}
    assert server.settled().dropped() == {"control": 4, "control_malformed": 6}
    assert queued(subscriber) == queued(stranger) == []
