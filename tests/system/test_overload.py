"""A server with too much to do: newcomers are refused, and monitors are shed before pilots."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from support import address_of, eventually, rtp_packet

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from support import ServerProcess

    MakeSocket = Callable[..., socket.socket]
    StartServer = Callable[..., ServerProcess]


def unavailable(call: Callable[[], object]) -> float:
    """The call is refused as UNAVAILABLE; the seconds after which to try again."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    retry = error_details_pb2.RetryInfo()
    assert rpc_status.from_call(error).details[0].Unpack(retry)
    return retry.retry_delay.ToNanoseconds() / 1e9


def test_a_passed_mark_refuses_newcomers_only(start_server: StartServer, udp: MakeSocket) -> None:
    """Any work at all is above this mark: renewals, removals and packets go on."""
    server = start_server(overload__busy=0.000_001)
    source, there, new = udp(), udp(), udp()
    session = server.create(address_of(source), 7, address_of(there))
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.02):
            source.sendto(rtp_packet(7), server.ingest_target)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        passed = 'rtpfanout_overload_mark_passed{mark="busy"}'
        eventually(server.metrics, lambda m: m[passed] == 1, "the mark is passed")
        assert unavailable(lambda: server.create(address_of(new), 8)) > 0
        assert unavailable(lambda: server.add(session, address_of(new))) > 0
        server.add(session, address_of(there))
        received = server.stats(session).packets_received
        eventually(
            lambda: server.stats(session).packets_received,
            lambda now: now > received,
            "packets go on",
        )
        assert server.metrics()["rtpfanout_overload_refused_total"] == 2
    finally:
        stop.set()
        sender.join()
    eventually(server.metrics, lambda m: m[passed] == 0, "the mark is no longer passed")
    server.add(session, address_of(new))
    assert server.logged("overload is over")["mark"] == "busy"


@pytest.fixture
def flooded(start_server: StartServer, udp: MakeSocket) -> Iterator[tuple[ServerProcess, str]]:
    """A session with more monitors than one worker can send to, a pilot and a recorder."""
    server = start_server(workers=1, buffer_size=65536)
    source, sink = udp(), udp()
    sink.setsockopt(1, 8, 1)  # SO_RCVBUF at its least: nobody reads what arrives
    port = sink.getsockname()[1]
    session = server.create(address_of(source), 7)
    for kind, addresses in (
        ("pilot", [f"127.0.1.1:{port}"]),
        ("recorder", [f"127.0.1.2:{port}"]),
        ("monitor", [f"127.0.{2 + i // 250}.{1 + i % 250}:{port}" for i in range(800)]),
    ):
        server.stub.BatchAddSubscribers(
            pb.BatchAddSubscribersRequest(
                session_id=session, subscriber_addresses=addresses, subscriber_class=kind
            )
        )
    stop = threading.Event()

    def flood() -> None:
        # Packets of ever other lengths can't be sent together: each copy is a send of its own.
        sequence = 0
        while not stop.is_set():
            for length in range(200, 300):
                sequence = (sequence + 1) % 65536
                source.sendto(rtp_packet(7, sequence, bytes(length)), server.ingest_target)
            time.sleep(0.02)

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        yield server, session
    finally:
        stop.set()
        sender.join()
    eventually(lambda: received_in(server, 0.5), lambda count: count == 0, "the queue is empty")


def received_in(server: ServerProcess, seconds: float) -> float:
    """Packets received meanwhile."""
    before = server.metrics()["rtp_packets_received_total"]
    time.sleep(seconds)
    return server.metrics()["rtp_packets_received_total"] - before


def states(server: ServerProcess, session: str) -> dict[str, dict[str, int]]:
    """How many subscribers of each class are in which state."""
    found: dict[str, dict[str, int]] = {}
    request = pb.ListSubscribersRequest(session_id=session, limit=1000)
    for subscriber in server.stub.ListSubscribers(request).subscribers:
        of_class = found.setdefault(subscriber.subscriber_class, {})
        of_class[subscriber.state] = of_class.get(subscriber.state, 0) + 1
    return found


def eventually_shed(server: ServerProcess, session: str, seconds: float = 120) -> None:
    """Half of the monitors. It takes longer where others take the CPUs meanwhile."""
    deadline = time.monotonic() + seconds
    while (found := states(server, session))["monitor"].get("shed", 0) < 400:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_monitors_are_shed_until_the_rest_fits(flooded: tuple[ServerProcess, str]) -> None:
    server, session = flooded
    eventually_shed(server, session)
    assert server.logged("subscribers shed")["subscriber_class"] == "monitor"
    stats = server.stats(session)
    assert stats.dropped_overload > 0
    eventually(
        lambda: server.stats(session).copies_withheld, lambda copies: copies > 0, "a ledger entry"
    )
    assert states(server, session)["pilot"] == {"sending": 1}

    # What is left fits: nothing more is dropped.
    def dropped_in_a_second() -> int:
        before = server.stats(session).dropped_overload
        time.sleep(1)
        return int(server.stats(session).dropped_overload - before)

    eventually(dropped_in_a_second, lambda dropped: dropped == 0, "nothing is dropped any more")
    assert states(server, session)["pilot"] == {"sending": 1}
    assert server.metrics()["rtpfanout_subscribers_shed_total"] >= 400
