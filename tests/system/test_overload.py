"""A server with too much to do: newcomers are refused, and monitors are shed before pilots."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
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


@dataclass
class Crowd:
    """A session with monitors, a recorder and a pilot, at a sink that nobody reads."""

    server: ServerProcess
    session: str
    source: socket.socket

    def send(self, packets: int) -> None:
        """Ever other lengths can't be sent together: each copy is a send of its own."""
        for sequence in range(packets):
            packet = rtp_packet(7, sequence % 65536, bytes(200 + sequence % 100))
            self.source.sendto(packet, self.server.ingest_target)

    def states(self) -> dict[str, dict[str, int]]:
        """How many subscribers of each class are in which state."""
        found: dict[str, dict[str, int]] = {}
        request = pb.ListSubscribersRequest(session_id=self.session, limit=1000)
        for subscriber in self.server.stub.ListSubscribers(request).subscribers:
            of_class = found.setdefault(subscriber.subscriber_class, {})
            of_class[subscriber.state] = of_class.get(subscriber.state, 0) + 1
        return found

    def dropped(self) -> int:
        return int(self.server.stats(self.session).dropped_overload)

    def shed(self) -> int:
        """Ever."""
        return int(self.server.metrics()["rtpfanout_subscribers_shed_total"])


def a_crowd(start_server: StartServer, udp: MakeSocket, monitors: int) -> Crowd:
    server = start_server(workers=1, buffer_size=65536)
    source, sink = udp(), udp()
    sink.setsockopt(1, 8, 1)  # SO_RCVBUF at its least
    port = sink.getsockname()[1]
    session = server.create(address_of(source), 7)
    for kind, addresses in (
        ("pilot", [f"127.0.1.1:{port}"]),
        ("recorder", [f"127.0.1.2:{port}"]),
        ("monitor", [f"127.0.{2 + i // 250}.{1 + i % 250}:{port}" for i in range(monitors)]),
    ):
        server.stub.BatchAddSubscribers(
            pb.BatchAddSubscribersRequest(
                session_id=session, subscriber_addresses=addresses, subscriber_class=kind
            )
        )
    return Crowd(server, session, source)


@contextlib.contextmanager
def more_than_can_be_sent(crowd: Crowd) -> Iterator[None]:
    """Two million copies a second, five times what a core sends by sends of their own."""
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            crowd.send(100)
            stop.wait(0.02)

    sender = threading.Thread(target=flood)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()


@pytest.mark.slow("monitors are shed and come back by what seconds of load show")
@pytest.mark.timeout(300)
def test_monitors_are_shed_while_it_lasts_and_come_back_when_it_is_over(
    start_server: StartServer, udp: MakeSocket
) -> None:
    crowd = a_crowd(start_server, udp, 400)
    server = crowd.server
    with more_than_can_be_sent(crowd):
        deadline = time.monotonic() + 120  # where others take the CPUs meanwhile
        while (found := crowd.states())["monitor"].get("shed", 0) < 200:
            assert time.monotonic() < deadline, found
            time.sleep(0.2)
        assert server.logged("subscribers shed")["subscriber_class"] == "monitor"
        assert crowd.dropped() > 0
        eventually(
            lambda: server.stats(crowd.session).copies_withheld, lambda n: n > 0, "a ledger entry"
        )
        assert crowd.states()["pilot"] == {"sending": 1}
        assert crowd.shed() >= 200

    def trickled() -> dict[str, dict[str, int]]:
        crowd.send(1)
        return crowd.states()

    everybody = {"pilot": 1, "recorder": 1, "monitor": 400}
    eventually(
        trickled,
        lambda found: found == {kind: {"sending": n} for kind, n in everybody.items()},
        "all are served again",
    )


@pytest.mark.slow("monitors are shed and come back by what seconds of load show")
@pytest.mark.timeout(300)
def test_a_hiccup_sheds_nobody(start_server: StartServer, udp: MakeSocket) -> None:
    """One burst is many times what can be sent in the second before packets are dropped for it;
    a machine that is too busy to judge by drops none, so look again."""
    crowd = a_crowd(start_server, udp, 300)
    for _look in range(10):
        crowd.send(6000)
        eventually(
            lambda: received_in(crowd.server, 0.5), lambda count: count == 0, "the queue is empty"
        )
        if crowd.dropped() > 0:
            break
    else:
        pytest.skip("this machine never dropped anything for overload")
    for _tenth in range(50):  # the samples in which they would be shed for it
        crowd.send(1)
        time.sleep(0.1)
    assert crowd.shed() == 0
    assert crowd.server.stats(crowd.session).copies_withheld == 0


def received_in(server: ServerProcess, seconds: float) -> float:
    """Packets received meanwhile."""
    before = server.metrics()["rtp_packets_received_total"]
    time.sleep(seconds)
    return server.metrics()["rtp_packets_received_total"] - before
