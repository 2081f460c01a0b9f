"""A client of the first API version: it knows the field numbers of DESIGN section 5, no more."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from support import address_of, receive, rtp_packet, transfer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support import ServerProcess

_SESSION_ID = [("session_id", 1, "string")]
_SUBSCRIBER = [*_SESSION_ID, ("subscriber_address", 2, "string")]
MESSAGES: dict[str, list[tuple[str, int, str]]] = {
    "CreateSessionRequest": [
        ("source_address", 1, "string"),
        ("ssrc", 2, "uint32"),
        ("media_type", 3, "string"),
    ],
    "GetSessionRequest": _SESSION_ID,
    "DeleteSessionRequest": _SESSION_ID,
    "GetSessionStatsRequest": _SESSION_ID,
    "ListSessionsRequest": [("limit", 1, "int32"), ("cursor", 2, "string")],
    "ListSessionsResponse": [("sessions", 1, "*SessionResponse"), ("next_cursor", 2, "string")],
    "AddSubscriberRequest": _SUBSCRIBER,
    "RemoveSubscriberRequest": _SUBSCRIBER,
    "SessionResponse": [
        ("session_id", 1, "string"),
        ("source_address", 2, "string"),
        ("ssrc", 3, "uint32"),
        ("subscriber_count", 4, "int64"),
        ("created_at", 5, "string"),
        ("status", 6, "string"),
    ],
    "SessionStatsResponse": [
        ("session_id", 1, "string"),
        ("packets_received", 2, "uint64"),
        ("packets_sent", 3, "uint64"),
        ("bytes_received", 4, "uint64"),
        ("bytes_sent", 5, "uint64"),
        ("subscriber_count", 6, "int32"),
        ("uptime_seconds", 7, "double"),
        ("packets_per_second", 8, "double"),
    ],
    "Empty": [],
}
CALLS = {
    "CreateSession": "SessionResponse",
    "GetSession": "SessionResponse",
    "DeleteSession": "Empty",
    "ListSessions": "ListSessionsResponse",
    "AddSubscriber": "Empty",
    "RemoveSubscriber": "Empty",
    "GetSessionStats": "SessionStatsResponse",
}
PACKETS = 1300


def _message_classes() -> dict[str, type]:
    """Built from MESSAGES in a pool of their own, so that nothing of ours is in them."""
    file = descriptor_pb2.FileDescriptorProto(
        name="first_version.proto", package="rtpfanout", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            repeated = kind.startswith("*")
            descriptor = message.field.add(
                name=field,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
            )
            if repeated:
                descriptor.type = kinds.TYPE_MESSAGE
                descriptor.type_name = f".rtpfanout.{kind[1:]}"
            else:
                descriptor.type = getattr(kinds, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"rtpfanout.{name}"))
        for name in MESSAGES
    }


class FirstVersionClient:
    """``client("GetSession", session_id=...)``."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._messages = _message_classes()
        self._channel = channel

    def __call__(self, call: str, **fields: object) -> Any:
        method = self._channel.unary_unary(
            f"/rtpfanout.SessionService/{call}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._messages[CALLS[call]].FromString,
        )
        return method(self._messages[f"{call}Request"](**fields), timeout=10)


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
