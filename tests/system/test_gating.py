"""What gets through and to whom: source, SSRC, family, size. Everything else is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import address_of, receive, rtp_packet, target, transfer

from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support import ServerProcess

    MakeSocket = Callable[..., socket.socket]
    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.lent_servers

RTCP_SENDER_REPORT = b"\x80\xc8\x00\x06" + bytes(24)
STUN_BINDING = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)


def packet_of(size: int, ssrc: int = 1) -> bytes:
    return rtp_packet(ssrc, size & 0xFFFF, bytes(i & 0xFF for i in range(size - 12)))


@pytest.mark.parametrize(
    ("datagram", "reason"),
    [
        (b"", "malformed"),
        (b"\x80", "malformed"),
        (rtp_packet(1, payload=b"")[:11], "malformed"),
        (b"\x8f" + rtp_packet(1, payload=b"")[1:], "malformed"),
        (b"\x90" + rtp_packet(1, payload=b"\x00\x00\x00\x09")[1:], "malformed"),
        (b"\xa0" + rtp_packet(1, payload=b"\xff")[1:], "malformed"),
        (b"\xa0" + rtp_packet(1, payload=b"\x00")[1:], "malformed"),
        (RTCP_SENDER_REPORT, "rtcp"),
        (STUN_BINDING, "not_rtp"),
        (b"GET / HTTP/1.1\r\n\r\n", "not_rtp"),
        (rtp_packet(2), "unknown_ssrc"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_is_not_of_the_session_reaches_nobody(
    server: ServerProcess, udp: MakeSocket, datagram: bytes, reason: str
) -> None:
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    good = rtp_packet(1, 1)
    source.sendto(datagram, server.ingest_target)
    source.sendto(good, server.ingest_target)
    assert receive(subscriber, 1) == [good]  # the queue keeps its order
    assert server.settled(received=2).dropped() == {reason: 1}


def test_padding_is_not_judged_when_sources_encrypt_it(
    start_server: StartServer, udp: MakeSocket
) -> None:
    server = start_server(check_padding=False)
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    encrypted = b"\xa0" + rtp_packet(1, payload=b"\xff")[1:]
    assert transfer(source, server.ingest_target, [encrypted], [subscriber]) == [[encrypted]]


def test_one_ssrc_from_two_sources_is_two_sessions(server: ServerProcess, udp: MakeSocket) -> None:
    sources, subscribers = [udp(), udp()], [udp(), udp()]
    ids = [
        server.create(address_of(source), 0x11, address_of(subscriber))
        for source, subscriber in zip(sources, subscribers, strict=True)
    ]
    for i, (source, subscriber) in enumerate(zip(sources, subscribers, strict=True)):
        mine = [rtp_packet(0x11, n, bytes([i])) for n in range(50)]
        assert transfer(source, server.ingest_target, mine, [subscriber]) == [mine]
    server.settled(received=100)
    assert [server.stats(session_id).packets_received for session_id in ids] == [50, 50]


def test_only_the_source_address_and_port_may_feed(server: ServerProcess, udp: MakeSocket) -> None:
    source, other_port, other_host, subscriber = udp(), udp(), udp("127.0.0.2"), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    other_port.sendto(rtp_packet(1, 1), server.ingest_target)
    other_host.sendto(rtp_packet(1, 2), server.ingest_target)
    good = rtp_packet(1, 3)
    source.sendto(good, server.ingest_target)
    assert receive(subscriber, 1) == [good]
    assert server.settled(received=3).dropped() == {"wrong_source": 2}


@pytest.mark.lent_servers(False)  # it looks at the page of sessions, which may be a second old
def test_a_session_tells_what_came_for_it_and_was_refused(
    server: ServerProcess, udp: MakeSocket
) -> None:
    source, other, stranger = udp(), udp(), udp()
    session = server.create(address_of(source), 1)
    stranger.sendto(rtp_packet(1, 1), server.ingest_target)
    server.settled(received=1)
    namesake = server.create(address_of(other), 1)
    latching = server.stub.CreateSession(
        session_pb2.CreateSessionRequest(
            source_address="127.0.0.2/32", ssrc=1, media_type="video", source_policy="latch"
        )
    ).session_id
    for sender in (stranger, stranger, source):
        sender.sendto(rtp_packet(1, 2), server.ingest_target)
    server.settled(received=4)
    stats = {each: server.stats(each) for each in (session, namesake, latching)}
    assert [each.packets_received for each in stats.values()] == [1, 0, 0]
    assert [each.dropped_wrong_source for each in stats.values()] == [3, 2, 2]
    server.stub.UpdateSession(session_pb2.UpdateSessionRequest(session_id=session, paused=True))
    source.sendto(rtp_packet(1, 3), server.ingest_target)
    server.settled(received=5)
    paused = server.stats(session)
    assert (paused.packets_received, paused.dropped_paused) == (1, 1)
    page = server.metrics("/metrics/sessions")
    told = {
        (key.split('session_id="')[1][:36], key.split('reason="')[1].split('"')[0]): value
        for key, value in page.items()
        if key.startswith("rtpfanout_session_packets_dropped_total") and value
    }
    assert told == {
        (session, "wrong_source"): 3,
        (namesake, "wrong_source"): 2,
        (latching, "wrong_source"): 2,
        (session, "paused"): 1,
    }


@pytest.mark.parametrize("ssrc", [0, 1, 0xFFFFFFFF])
def test_edge_ssrcs_are_ordinary(server: ServerProcess, udp: MakeSocket, ssrc: int) -> None:
    source, subscriber = udp(), udp()
    server.create(address_of(source), ssrc, address_of(subscriber))
    some = [rtp_packet(ssrc, n) for n in range(10)]
    assert transfer(source, server.ingest_target, some, [subscriber]) == [some]


def test_every_size(server: ServerProcess, udp: MakeSocket) -> None:
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    sizes = [12, 13, 64, 576, 1200, 1472, 1473, 1500, 8972, 9000, 32768, 65506, 65507]
    some = [packet_of(size) for size in sizes]
    assert transfer(source, server.ingest_target, some, [subscriber], window=1) == [some]


def test_a_session_without_subscribers_receives_and_drops_nothing(
    server: ServerProcess, udp: MakeSocket
) -> None:
    source = udp()
    session_id = server.create(address_of(source), 1)
    for n in range(10):
        source.sendto(rtp_packet(1, n), server.ingest_target)
    metrics = server.settled(received=10)
    assert metrics["rtpfanout_packets_forwarded_total"] == 10
    assert metrics.dropped() == {}
    assert metrics["rtpfanout_copies_attempted_total"] == 0
    assert server.stats(session_id).packets_received == 10


def test_families_mix_on_a_dual_stack_server(start_server: StartServer, udp: MakeSocket) -> None:
    server = start_server(bind_address="[::]:0")
    port = server.ingest.port
    sources = {"127.0.0.1": udp(), "::1": udp("::1")}
    subscribers = [udp(), udp("::1")]
    for i, (host, source) in enumerate(sources.items()):
        server.create(address_of(source), i, *map(address_of, subscribers))
        some = [rtp_packet(i, n, bytes([i])) for n in range(100)]
        assert transfer(source, (host, port), some, subscribers) == [some, some]
    listed = server.metrics("/metrics/sessions")
    assert any('source="127.0.0.1:' in key for key in listed)  # not ::ffff:127.0.0.1
    assert any('source="[::1]:' in key for key in listed)


def test_an_ipv6_server(start_server: StartServer, udp: MakeSocket) -> None:
    server = start_server(bind_address="[::1]:0")
    source, subscriber = udp("::1"), udp("::1")
    server.create(address_of(source), 1, address_of(subscriber))
    some = [rtp_packet(1, n) for n in range(100)]
    assert transfer(source, target(server.ingest), some, [subscriber]) == [some]


def test_copies_come_from_the_ingest_port(server: ServerProcess, udp: MakeSocket) -> None:
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    source.sendto(rtp_packet(1), server.ingest_target)
    _data, sender = subscriber.recvfrom(2048)
    assert sender == server.ingest_target


def test_a_dead_subscriber_costs_a_good_one_nothing(server: ServerProcess, udp: MakeSocket) -> None:
    source, good, dead = udp(), udp(), udp()
    dead_address = address_of(dead)
    server.create(address_of(source), 1, dead_address, address_of(good))
    dead.close()  # from here on its host answers with ICMP port unreachable
    some = [rtp_packet(1, n) for n in range(500)]
    assert transfer(source, server.ingest_target, some, [good], window=4) == [some]
    metrics = server.settled(received=500)
    assert metrics["rtpfanout_copies_attempted_total"] == 1000
    assert metrics.total("rtpfanout_send_failures_total") == 0


def test_a_refused_send_is_counted_and_skipped(server: ServerProcess, udp: MakeSocket) -> None:
    """From a socket bound to loopback the kernel sends to no other network: EINVAL."""
    source, good = udp(), udp()
    session_id = server.create(address_of(source), 1, "192.0.2.1:9", address_of(good))
    some = [rtp_packet(1, n) for n in range(100)]
    assert transfer(source, server.ingest_target, some, [good]) == [some]
    metrics = server.settled(received=100)
    assert metrics.total("rtpfanout_send_failures_total") == 100
    assert metrics["rtp_packets_sent_total"] == 100
    stats = server.stats(session_id)
    assert (stats.packets_sent, stats.send_failures) == (100, 100)


def test_a_copy_too_big_for_ipv4_is_counted(start_server: StartServer, udp: MakeSocket) -> None:
    """IPv6 takes 65,527 bytes of UDP payload, IPv4 65,507."""
    server = start_server(bind_address="[::]:0")
    source, over_ipv4, over_ipv6 = udp("::1"), udp(), udp("::1")
    server.create(address_of(source), 1, address_of(over_ipv4), address_of(over_ipv6))
    largest = packet_of(65_527)
    assert transfer(source, server.ingest_target, [largest], [over_ipv6]) == [[largest]]
    metrics = server.settled(received=1)
    assert metrics['rtpfanout_send_failures_total{reason="too_big"}'] == 1
    assert metrics["rtp_packets_sent_total"] == 1
