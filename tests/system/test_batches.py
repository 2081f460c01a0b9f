"""Subscribers by the batch, and their list, over gRPC on a running server."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from support import address_of, eventually, queued, receive, rtp_packet, transfer

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from support import ServerProcess

    MakeSocket = Callable[..., socket.socket]

pytestmark = pytest.mark.lent_servers

SOURCE = "127.0.0.1:5000"
UNKNOWN = str(uuid.uuid4())


def add(server: ServerProcess, session_id: str, addresses: list[str]) -> tuple[int, int]:
    """Added, already present."""
    answer = server.stub.BatchAddSubscribers(
        pb.BatchAddSubscribersRequest(session_id=session_id, subscriber_addresses=addresses)
    )
    return answer.added, answer.already_present


def remove(server: ServerProcess, session_id: str, addresses: list[str]) -> tuple[int, list[str]]:
    """Removed, not found."""
    answer = server.stub.BatchRemoveSubscribers(
        pb.BatchRemoveSubscribersRequest(session_id=session_id, subscriber_addresses=addresses)
    )
    return answer.removed, list(answer.not_found)


def page(server: ServerProcess, session_id: str, limit: int = 0, cursor: str = "") -> Any:
    return server.stub.ListSubscribers(
        pb.ListSubscribersRequest(session_id=session_id, limit=limit, cursor=cursor)
    )


def walk(server: ServerProcess, session_id: str, limit: int) -> Iterator[Any]:
    cursor = ""
    while True:
        answer = page(server, session_id, limit, cursor)
        yield from answer.subscribers
        cursor = answer.next_cursor
        if not cursor:
            return


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, list[tuple[str, str]]]:
    """Code and field violations of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    status = rpc_status.from_call(error)
    assert status is not None
    bad_request = error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(bad_request)
    return error.code(), [(v.field, v.description) for v in bad_request.field_violations]


def test_copies_go_to_all_of_a_batch_and_to_none_removed(
    server: ServerProcess, udp: MakeSocket
) -> None:
    source, sockets = udp(), [udp() for _ in range(10)]
    session_id = server.create(address_of(source), 1)
    addresses = [address_of(sock) for sock in sockets]
    assert add(server, session_id, [*addresses, addresses[0]]) == (10, 1)
    assert add(server, session_id, addresses[:3]) == (0, 3)
    packets = [rtp_packet(1, n) for n in range(50)]
    for received in transfer(source, server.ingest_target, packets, sockets):
        assert received == packets

    gone = [*addresses[::2], "127.0.0.1:9"]
    assert remove(server, session_id, gone) == (5, ["127.0.0.1:9"])
    packets = [rtp_packet(1, n) for n in range(50, 80)]
    for received in transfer(source, server.ingest_target, packets, sockets[1::2]):
        assert received == packets
    server.settled(received=80)
    assert [queued(sock) for sock in sockets[::2]] == [[]] * 5
    assert server.metrics()["total_subscribers"] == 5
    assert server.stats(session_id).subscriber_count == 5
    counted = {s.subscriber_address: s.packets_sent for s in walk(server, session_id, 2)}
    assert counted == dict.fromkeys(addresses[1::2], 80)


def test_each_bad_address_is_named(server: ServerProcess) -> None:
    session_id = server.create(SOURCE, 1)
    texts = [f"127.0.0.1:{6000 + n}" for n in range(50)]
    texts[17], texts[30] = "127.0.0.1", "224.0.0.1:5000"
    code, violations = refused(lambda: add(server, session_id, texts))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert [field for field, _ in violations] == [
        "subscriber_addresses[17]",
        "subscriber_addresses[30]",
    ]
    texts[17] = "127.0.0.1:7000"
    code, violations = refused(lambda: add(server, session_id, texts))
    assert code == grpc.StatusCode.PERMISSION_DENIED
    ((field, description),) = violations
    assert field == "subscriber_addresses[30]"
    assert "multicast" in description
    code, violations = refused(lambda: remove(server, session_id, ["x"] * 1000))
    assert (code, len(violations)) == (grpc.StatusCode.INVALID_ARGUMENT, 20)
    assert server.stats(session_id).subscriber_count == 0


@pytest.mark.parametrize("call", [add, remove])
@pytest.mark.parametrize("count", [0, 1001, 10_000])
def test_a_batch_is_of_1_to_1000(server: ServerProcess, call: Any, count: int) -> None:
    session_id = server.create(SOURCE, 1)
    texts = [f"10.0.{n // 250}.{n % 250}:6000" for n in range(count)]
    code, ((field, description),) = refused(lambda: call(server, session_id, texts))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert field == "subscriber_addresses"
    assert "1 to 1000" in description


def test_the_longest_batch_is_taken(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(bind_address="[::]:0")
    session_id = server.create(SOURCE, 1)
    texts = [f"[2001:0db8:0000:0000:0000:{n:04x}:203.255.255.255]:65535" for n in range(1, 1001)]
    assert add(server, session_id, texts) == (1000, 0)
    assert remove(server, session_id, texts) == (1000, [])


def test_all_or_none_at_the_limit(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(max_fanout_per_session=3)
    session_id = server.create(SOURCE, 1, "127.0.0.1:6000")
    three = [f"127.0.0.1:{port}" for port in (6001, 6002, 6003)]
    code, _ = refused(lambda: add(server, session_id, three))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert [s.subscriber_address for s in walk(server, session_id, 10)] == ["127.0.0.1:6000"]
    assert add(server, session_id, ["127.0.0.1:6000", *three[:2]]) == (2, 1)


def test_unknown_sessions_are_not_found(server: ServerProcess) -> None:
    one = ["127.0.0.1:6000"]
    for call in (
        lambda: add(server, UNKNOWN, one),
        lambda: remove(server, UNKNOWN, one),
        lambda: page(server, UNKNOWN),
    ):
        assert refused(call)[0] == grpc.StatusCode.NOT_FOUND
    for call in (lambda: add(server, "1", one), lambda: page(server, "1")):
        code, ((field, _),) = refused(call)
        assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, "session_id")


def test_pages_are_stable_while_subscribers_come_and_go(server: ServerProcess) -> None:
    session_id = server.create(SOURCE, 1)
    texts = [f"127.0.0.1:{port}" for port in range(6000, 6030)]
    add(server, session_id, texts)
    seen: list[str] = []
    for turn, subscriber in enumerate(walk(server, session_id, 3)):
        seen.append(subscriber.subscriber_address)
        if turn % 3 == 2 and turn < 12:
            remove(server, session_id, [seen[-1], texts[-1 - turn // 3]])  # the cursor's own
            add(server, session_id, [f"127.0.0.1:{7000 + turn}"])
    stayed = texts[:-4]
    assert seen[: len(stayed)] == stayed
    assert seen[len(stayed) :] == [f"127.0.0.1:{7000 + turn}" for turn in (2, 5, 8, 11)]


def test_a_list_tells_since_when_and_how_many(server: ServerProcess, udp: MakeSocket) -> None:
    source, subscriber = udp(), udp()
    session_id = server.create(address_of(source), 1)
    add(server, session_id, [address_of(subscriber), "127.0.0.1:1"])
    for n in range(5):
        source.sendto(rtp_packet(1, n), server.ingest_target)
    receive(subscriber, 5)
    server.settled(received=5)
    first, second = page(server, session_id).subscribers
    assert (first.subscriber_address, first.packets_sent) == (address_of(subscriber), 5)
    assert second.packets_sent + second.send_failures == 5
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first.since)
    created = server.stub.GetSession(pb.GetSessionRequest(session_id=session_id)).created_at
    assert created <= first.since <= second.since
    assert page(server, session_id).subscribers[0].since == first.since


def test_page_sizes_and_limits_of_a_list(server: ServerProcess) -> None:
    session_id = server.create(SOURCE, 1)
    add(server, session_id, [f"127.0.0.1:{port}" for port in range(6000, 6150)])
    assert [len(page(server, session_id, limit).subscribers) for limit in (0, 1, 5000)] == [
        *(100, 1, 150),
    ]
    for request in ({"limit": -1}, {"cursor": "1"}):
        code, ((field, _),) = refused(lambda request=request: page(server, session_id, **request))
        assert (code, field) == (grpc.StatusCode.INVALID_ARGUMENT, *request)


def test_stats_tell_latencies_once_packets_are_measured(
    server: ServerProcess, udp: MakeSocket
) -> None:
    source, sockets = udp(), [udp() for _ in range(3)]
    session_id = server.create(address_of(source), 1, *map(address_of, sockets))
    quiet = server.stats(session_id)
    assert not quiet.HasField("first_copy_latency")
    assert not quiet.HasField("last_copy_latency")
    packets = [rtp_packet(1, n) for n in range(40)]
    transfer(source, server.ingest_target, packets, sockets)
    stats = eventually(
        lambda: server.stats(session_id),
        lambda stats: stats.last_copy_latency.count == 40,
        "forty packets measured",
    )
    assert stats.first_copy_latency.count == 40
    for latency in (stats.first_copy_latency, stats.last_copy_latency):
        quantiles = [latency.p50_seconds, latency.p99_seconds, latency.p999_seconds]
        assert quantiles[0] > 0
        assert [*quantiles, latency.max_seconds] == sorted([*quantiles, latency.max_seconds])
    assert stats.first_copy_latency.max_seconds <= stats.last_copy_latency.max_seconds
