"""A client of the first API version against the server of today."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import grpc
import pytest
from first_version import FirstVersionClient
from support import address_of, receive, rtp_packet, transfer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support import ServerProcess

PACKETS = 1300


@pytest.fixture
def client(server: ServerProcess) -> FirstVersionClient:
    return FirstVersionClient(server.channel)


def packets(ssrc: int) -> list[bytes]:
    """PACKETS of all shapes: CSRCs, header extensions, padding, markers, sizes."""
    chance = random.Random(1)
    made = []
    for i in range(PACKETS):
        extension = (chance.choice([0xBEDE, 0x1000]), chance.randbytes(4 * chance.randrange(5)))
        made.append(
            rtp_packet(
                ssrc,
                65_000 + i,  # wraps on the way
                chance.randbytes(chance.choice([0, 1, 160, 1187, 1400])),
                payload_type=chance.choice([0, 33, 96, 111, 127]),
                marker=chance.random() < 0.2,
                csrcs=tuple(chance.randrange(2**32) for _ in range(chance.choice([0, 0, 1, 15]))),
                extension=extension if i % 3 == 0 else None,
                padding=chance.choice([0, 0, 1, 4, 255]),
            )
        )
    return made


def test_all_seven_calls(client: FirstVersionClient) -> None:
    created = client("CreateSession", source_address="127.0.0.1:5000", ssrc=7, media_type="audio")
    session_id = created.session_id
    assert (created.source_address, created.ssrc) == ("127.0.0.1:5000", 7)
    assert (created.subscriber_count, created.status) == (0, "idle")
    assert created.created_at.endswith("Z")

    client("AddSubscriber", session_id=session_id, subscriber_address="127.0.0.1:6000")
    client("AddSubscriber", session_id=session_id, subscriber_address="127.0.0.1:6001")
    client("RemoveSubscriber", session_id=session_id, subscriber_address="127.0.0.1:6000")
    got = client("GetSession", session_id=session_id)
    assert got.subscriber_count == 1
    assert (got.session_id, got.created_at) == (session_id, created.created_at)
    page = client("ListSessions", limit=10)
    assert [s.session_id for s in page.sessions] == [session_id]
    assert page.next_cursor == ""
    stats = client("GetSessionStats", session_id=session_id)
    assert (stats.packets_received, stats.packets_sent, stats.subscriber_count) == (0, 0, 1)
    assert stats.uptime_seconds > 0

    client("DeleteSession", session_id=session_id)
    with pytest.raises(grpc.RpcError) as error:
        client("GetSession", session_id=session_id)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_copies_are_exact_and_so_are_the_numbers(
    server: ServerProcess, client: FirstVersionClient, udp: Callable[..., socket.socket]
) -> None:
    source, stranger = udp(), udp()
    subscribers = [udp() for _ in range(3)]
    created = client(
        "CreateSession", source_address=address_of(source), ssrc=0xCAFE, media_type="video"
    )
    for sock in subscribers:
        client(
            "AddSubscriber",
            session_id=created.session_id,
            subscriber_address=address_of(sock),
        )
    to = server.ingest_target
    good = packets(0xCAFE)
    for packet in good[:100]:  # right SSRC, wrong source
        stranger.sendto(packet, to)
    for packet in packets(0xBEEF)[:100]:  # right source, unknown SSRC
        source.sendto(packet, to)
    for i in range(100):  # a CSRC count beyond the end
        source.sendto(b"\x8f" + good[i][1:12], to)

    # The order of the queue is kept, so what was refused would have come first.
    for received in transfer(source, to, good, subscribers):
        assert received == good
    last = rtp_packet(0xCAFE, 1)
    source.sendto(last, to)
    for sock in subscribers:
        assert receive(sock, 1) == [last]  # and nothing came in between

    sent, size = len(good) + 1, sum(map(len, good)) + len(last)
    metrics = server.settled(received=sent + 300)
    stats = client("GetSessionStats", session_id=created.session_id)
    assert (stats.packets_received, stats.bytes_received) == (sent, size)
    assert (stats.packets_sent, stats.bytes_sent) == (3 * sent, 3 * size)
    assert stats.subscriber_count == 3
    assert stats.packets_per_second > 0
    assert client("GetSession", session_id=created.session_id).status == "active"
    assert metrics["rtp_packets_received_total"] == sent + 300
    refused = 2 * sum(map(len, packets(0xCAFE)[:100])) + 100 * 12
    assert metrics["rtp_bytes_received_total"] == size + refused
    assert metrics["rtpfanout_packets_forwarded_total"] == sent
    assert metrics["rtp_packets_sent_total"] == 3 * sent
    assert metrics["rtp_bytes_sent_total"] == 3 * size
    assert metrics.dropped() == {"wrong_source": 100, "unknown_ssrc": 100, "malformed": 100}
    assert metrics["fanout_latency_ms_count"] == sent
    assert (metrics["active_sessions"], metrics["total_subscribers"]) == (1, 3)
