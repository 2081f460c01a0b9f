"""Junk that looks like control datagrams hurts neither packets, nor memory, nor who is known.

No test here asks for a rate or a time: junk comes in bursts that the kernel's queue holds, or as
fast as a thread can send.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from datagram_support import Forger, create, media, outcomes, subscribers, token_of
from support import (
    address_of,
    eventually,
    queued,
    receive,
    requires_root,
    rtp_packet,
    send_segmented,
    transfer,
    udp_socket,
)

from rtpfanout import signed
from rtpfanout.model import Address
from rtpfanout.receiver import Receiver
from rtpfanout.signed import Kind

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from support import ServerProcess

SSRC = 0xBAD
KEY = b"the session's key"
OF_OTHERS = {
    "the source of a session fares otherwise",  # it rests between rounds
    "others use the workers' CPUs too; the kernel places the workers for a while",
}
"""Lines of the log that no datagram has written."""
MEMBERS = 10
ROUNDS = 15  # one renewal each; more than 20 at once from one address are too many
BURST = 50

pytestmark = pytest.mark.slow("floods as fast as a thread sends, for seconds")


def malformed() -> list[bytes]:
    """Some that begin right, and no more."""
    return [signed.MAGIC + bytes(60), signed.MAGIC, signed.build_hello(b"nonce...") + b"\0"]


def well_formed(token: signed.Token) -> list[bytes]:
    """One of each kind that nobody has signed."""
    now = time.time_ns() // 1_000_000
    forged = signed.Token(token.claims, bytes(32))
    unheard_of = signed.Claims.unpack(
        token.claims.packed[:16] + os.urandom(8) + token.claims.packed[24:]
    )
    return [
        signed.build_hello(b"nonce..."),
        signed.build_echo(b"nonce...", bytes(24)),
        signed.build_echo(b"nonce...", os.urandom(24)),
        signed.build_join(forged, nonce=b"nonce..."),
        signed.build_join(forged, nonce=b"nonce...", cookie=os.urandom(24)),
        signed.build_join(signed.Token(unheard_of, bytes(32)), nonce=b"nonce..."),
        signed.build_move(bytes(32), ssrc=SSRC, counter=1, time_ms=now),
        signed.build_move(KEY, ssrc=SSRC + 9, counter=1, time_ms=now),
    ]


class Member:
    """Renews once when it is told to, and does not try again."""

    def __init__(self, server: ServerProcess, sock: socket.socket, token: signed.Token) -> None:
        self._server = server
        self._socket = sock
        self._token = token
        self._cookie = signed.NO_COOKIE
        self._media: list[bytes] = []
        self.ask()
        self._cookie = signed.parse_challenge(self._answer())[1]
        self.ask()
        self.hear()

    def ask(self) -> None:
        self._nonce = os.urandom(8)
        data = signed.build_join(self._token, nonce=self._nonce, cookie=self._cookie)
        self._socket.sendto(data, self._server.ingest_target)

    def hear(self) -> None:
        """What was asked for is granted."""
        answer = signed.Answer.parse(self._answer())
        assert answer.nonce == self._nonce
        assert answer.is_signed_with(self._token.key)
        assert answer.reason is None
        self._cookie = answer.cookie

    def media(self) -> list[bytes]:
        """All that came."""
        return self._media + queued(self._socket)

    def _answer(self) -> bytes:
        while True:
            (data,) = receive(self._socket, 1)
            if data[:4] == signed.MAGIC:
                return data
            self._media.append(data)


def token(server: ServerProcess, session: str, **fields: float) -> signed.Token:
    """Parsed."""
    return signed.Token.parse(token_of(server, session, **fields))


def test_every_renewal_is_answered_whatever_comes_beside_it(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    source, viewer = udp(), udp()
    attackers = [udp(), udp("127.0.0.5"), udp("127.0.0.5"), udp("127.8.0.5")]
    session = create(server, source, SSRC, move_key=KEY)
    server.add(session, address_of(viewer))
    members = [
        Member(server, udp(), token(server, session, lease_secs=600)) for _ in range(MEMBERS)
    ]
    bad = malformed()
    kinds = itertools.cycle(bad + well_formed(token(server, session)))
    sent = sent_malformed = 0

    def flood(bursts: int) -> None:
        nonlocal sent, sent_malformed
        for number in range(bursts):
            data = next(kinds)
            attacker = attackers[number % len(attackers)]
            send_segmented(attacker, [data] * BURST, server.ingest_target)
            sent += BURST
            sent_malformed += BURST * (data in bad)

    def a_round(number: int) -> None:
        """The renewals have junk before them and behind them."""
        flood(100)
        for member in members:
            member.ask()
            flood(2)
        for member in members:
            member.hear()
        packets = [rtp_packet(SSRC, 10 * number + n & 0xFFFF) for n in range(10)]
        assert transfer(source, server.ingest_target, packets, [viewer]) == [packets]
        server.settled()  # so nothing is queued any more when the next begins

    a_round(0)
    before = server.metrics()["process_resident_memory_bytes"]
    for number in range(1, ROUNDS):
        a_round(number)
    after = server.metrics()
    grown = after["process_resident_memory_bytes"] - before
    print(f"\n{sent:,} junk datagrams, {grown / 1024:,.0f} KiB more memory")
    assert grown < 16 << 20
    assert after["rtpfanout_kernel_receive_drops_total"] == 0
    assert all(len(member.media()) == 10 * ROUNDS for member in members)
    assert len(subscribers(server, session)) == 1 + MEMBERS
    counts = outcomes(server)
    assert counts["join", "accepted"] == (1 + ROUNDS) * MEMBERS
    dropped = server.settled().dropped()
    assert dropped["control_malformed"] == sent_malformed
    assert "control_known_full" not in dropped
    handed = dropped["control"] + dropped.get("control_full", 0)
    assert handed == sent - sent_malformed + (2 + ROUNDS) * MEMBERS
    eventually(
        lambda: sum(outcomes(server).values()),
        lambda told: told == dropped["control"],
        "an outcome of each",
    )
    assert {entry["event"] for entry in server.log} - OF_OTHERS == {"ready", "audit"}


@contextmanager
def without_end(send: Callable[[], object]) -> Iterator[None]:
    """`send` again and again, in a thread."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            send()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_who_comes_new_is_answered_beside_a_flood_from_elsewhere(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    """Each asks once, behind and before as much junk as fills all places over and over."""
    source, flooder = udp(), udp("127.8.0.5")
    crowd = [udp(f"127.{10 + n // 200}.{n % 200}.9") for n in range(300)]
    session = create(server, source, SSRC, move_key=KEY)
    asking = create(server, source, SSRC + 1, consent="echo")
    kinds = well_formed(token(server, session))

    def flood(bursts: int) -> None:
        for data in kinds:
            for _ in range(bursts):
                send_segmented(flooder, [data] * BURST, server.ingest_target)
        for stranger in crowd:
            stranger.sendto(kinds[0], server.ingest_target)

    for _ in range(5):
        joins, consents = udp(), udp()
        server.add(asking, address_of(consents))
        join = signed.build_join(token(server, session), nonce=os.urandom(8))
        flood(20)
        joins.sendto(join, server.ingest_target)
        consents.sendto(signed.build_hello(os.urandom(8)), server.ingest_target)
        flood(20)
        for newcomer in (joins, consents):
            (answer,) = receive(newcomer, 1)
            assert signed.kind_of(answer) is Kind.CHALLENGE
        server.settled()
    assert server.settled().dropped()["control_full"] > 0, "it was a flood"
    assert server.metrics()["rtpfanout_kernel_receive_drops_total"] == 0


def test_forged_hellos_do_not_keep_a_receiver_from_consenting(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    requires_root()
    source = udp()
    session = create(server, source, SSRC, consent="echo")
    with udp_socket() as port:
        address = port.getsockname()
    server.add(session, f"{address[0]}:{address[1]}")
    forger = Forger(server.ingest)

    def send() -> None:
        for _ in range(20):
            forger.send(address, signed.build_hello(os.urandom(8)))

    with without_end(send):
        time.sleep(0.5)  # it was there first
        begin = time.monotonic()
        with Receiver(server.ingest, bind=Address.parse(f"{address[0]}:{address[1]}")) as receiver:
            receiver.join(30)
            print(f"\nconsented after {time.monotonic() - begin:.2f} s")
            numbered = [rtp_packet(SSRC, n) for n in range(5)]
            for packet in numbered:
                source.sendto(packet, server.ingest_target)
            assert media(receiver, 5) == numbered, "and gets what it consented to"
    forger.close()
    assert outcomes(server)["hello", "limited"] > 0, "more than were answered"
    assert outcomes(server)["echo", "accepted"] > 0
