"""Junk that looks like control datagrams hurts neither packets, nor memory, nor who is known."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from datagram_support import create, media, outcomes, subscribers, token_of
from support import address_of, rtp_packet, send_segmented, transfer

from rtpfanout import signed
from rtpfanout.receiver import Receiver

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support import ServerProcess

SSRC = 0xBAD
SECONDS = 8.0
BURSTS = 20
PAUSE = 0.005
KEY = b"the session's key"

pytestmark = pytest.mark.slow


def junk(token: signed.Token) -> list[bytes]:
    """One of each kind, well formed, and one that isn't."""
    now = time.time_ns() // 1_000_000
    return [
        signed.MAGIC + bytes(60),
        signed.build_hello(b"nonce..."),
        signed.build_echo(b"nonce...", bytes(24)),
        signed.build_join(signed.Token(token.claims, bytes(32)), nonce=b"nonce..."),
        signed.build_move(bytes(32), ssrc=SSRC, counter=1, time_ms=now),
        signed.build_move(KEY, ssrc=SSRC + 9, counter=1, time_ms=now),
    ]


def test_a_flood_of_junk(server: ServerProcess, udp: Callable[..., socket.socket]) -> None:
    source, viewer, attacker = udp(), udp(), udp()
    session = create(server, source, SSRC, move_key=KEY)
    server.add(session, address_of(viewer))
    text = token_of(server, session, lease_secs=5)
    kinds = junk(signed.Token.parse(text))
    sent = 0

    def a_round(number: int) -> None:
        """Bursts of 50, and then packets, which queue behind them: so nothing runs over."""
        nonlocal sent
        for burst in range(BURSTS):
            data = kinds[(number + burst) % len(kinds)]
            send_segmented(attacker, [data] * 50, server.ingest_target)
            sent += 50
        packets = [rtp_packet(SSRC, 10 * number + n & 0xFFFF) for n in range(10)]
        assert transfer(source, server.ingest_target, packets, [viewer]) == [packets]
        assert media(member, 10) == packets

    with Receiver(server.ingest, text) as member:
        member.join(30)
        for number in range(20):
            a_round(number)
        before = server.metrics()["process_resident_memory_bytes"]
        begin, already = time.monotonic(), sent
        number = 20
        while time.monotonic() < begin + SECONDS:
            a_round(number)
            number += 1
            time.sleep(PAUSE)
        seconds = time.monotonic() - begin
        after = server.metrics()
        assert len(subscribers(server, session)) == 2, "the lease of 5 s is kept meanwhile"
    grown = after["process_resident_memory_bytes"] - before
    print(
        f"\n{(sent - already) / seconds:,.0f} junk datagrams/s for {seconds:.1f} s,"
        f" {grown / 1024:,.0f} KiB more memory"
    )
    assert grown < 16 << 20
    assert after["rtpfanout_kernel_receive_drops_total"] == 0
    counts = outcomes(server)
    assert counts["join", "accepted"] >= 2
    dropped = server.settled().dropped()
    assert dropped["control"] + dropped.get("control_full", 0) >= sent
    assert sum(counts.values()) == dropped["control"]
    assert {entry["event"] for entry in server.log} == {"ready", "audit"}, "and no line in the log"
