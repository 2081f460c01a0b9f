"""Subscribers and sessions come and go under traffic: the others notice nothing."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from support import address_of, eventually, queued, receive, rtp_packet

from rtpfanout.traffic import rtp

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from support import ServerProcess

    MakeSocket = Callable[..., socket.socket]

pytestmark = pytest.mark.lent_servers

ROUNDS = 150
WINDOW = 16


class Traffic:
    """Numbered packets of SSRC 1 to the server, each checked at a steady subscriber.

    `sent` is the number of the last one handed to the kernel.
    """

    def __init__(self, server: ServerProcess, source: socket.socket, steady: socket.socket) -> None:
        self.sent = -1
        self.lost_or_altered: list[int] = []
        self._to = server.ingest_target
        self._source = source
        self._steady = steady
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        for first in itertools.count(0, WINDOW):
            if self._ended.is_set():
                return
            packets = [numbered(n) for n in range(first, first + WINDOW)]
            for n, packet in enumerate(packets, first):
                self.sent = n
                self._source.sendto(packet, self._to)
            if receive(self._steady, WINDOW) != packets:
                self.lost_or_altered.append(first)


def numbered(n: int) -> bytes:
    return rtp_packet(1, n, n.to_bytes(8, "big"))


def number(packet: bytes) -> int:
    return int.from_bytes(rtp.parse(packet).payload, "big")


@contextmanager
def traffic(
    server: ServerProcess, source: socket.socket, steady: socket.socket
) -> Iterator[Traffic]:
    running = Traffic(server, source, steady)
    running.start()
    try:
        yield running
    finally:
        running.end()


def test_adding_and_removing_costs_the_others_nothing(
    server: ServerProcess, udp: MakeSocket
) -> None:
    source, steady, guest = udp(), udp(), udp()
    session_id = server.create(address_of(source), 1, address_of(steady))
    address = address_of(guest)
    late: list[int] = []
    with traffic(server, source, steady) as running:
        for _ in range(ROUNDS):
            server.add(session_id, address)
            receive(guest, 1)
            server.remove(session_id, address)
            removed_at = running.sent
            # What left before the reply may still be on its way through the kernel; what
            # was sent after the reply must not come.
            late += [n for n in map(number, queued(guest)) if n > removed_at]
        last_removed_at = running.sent
        eventually(lambda: running.sent, lambda n: n > last_removed_at + 200, "more traffic")
    late += [n for n in map(number, queued(guest)) if n > last_removed_at]
    assert late == []
    assert running.lost_or_altered == []
    assert queued(steady) == []
    metrics = server.settled(received=running.sent + 1)
    assert metrics["rtpfanout_packets_forwarded_total"] == running.sent + 1
    assert metrics["total_subscribers"] == 1


def test_a_guest_gets_all_between_add_and_remove(server: ServerProcess, udp: MakeSocket) -> None:
    source, steady, guest = udp(), udp(), udp()
    session_id = server.create(address_of(source), 1, address_of(steady))
    with traffic(server, source, steady) as running:
        for _ in range(20):
            server.add(session_id, address_of(guest))
            added_at = running.sent
            eventually(lambda: running.sent, lambda n, m=added_at: n > m + 50, "more traffic")
            before_remove = running.sent - WINDOW  # those before have reached the steady one
            server.remove(session_id, address_of(guest))
            got = [number(packet) for packet in queued(guest)]
            while got[-1] < before_remove:  # still on its way through the kernel
                got.append(number(receive(guest, 1)[0]))
            assert got == list(range(got[0], got[-1] + 1))  # none missing, none twice, in order
            assert got[0] <= added_at + 1
    assert running.lost_or_altered == []


def test_deleting_sessions_costs_the_others_nothing(server: ServerProcess, udp: MakeSocket) -> None:
    source, other, steady, guest = udp(), udp(), udp(), udp()
    server.create(address_of(source), 1, address_of(steady))
    late = 0
    with traffic(server, source, steady) as running:
        for _ in range(ROUNDS):
            session_id = server.create(address_of(other), 2, address_of(guest))
            for n in range(8):
                other.sendto(rtp_packet(2, n), server.ingest_target)
            receive(guest, 1)
            server.delete(session_id)
            queued(guest)
            other.sendto(rtp_packet(2, 0, b"after the reply"), server.ingest_target)
            late += sum(rtp.parse(p).payload == b"after the reply" for p in queued(guest))
    assert late + sum(rtp.parse(p).payload == b"after the reply" for p in queued(guest)) == 0
    assert running.lost_or_altered == []


def test_of_concurrent_deletes_one_wins(server: ServerProcess, udp: MakeSocket) -> None:
    source, steady = udp(), udp()
    server.create(address_of(source), 1, address_of(steady))
    with traffic(server, source, steady) as running, ThreadPoolExecutor(8) as pool:
        for n in range(20):
            session_id = server.create("127.0.0.1:5000", n, "127.0.0.1:6000", "127.0.0.1:6001")

            def delete(_: int, session_id: str = session_id) -> grpc.StatusCode:
                try:
                    server.delete(session_id)
                except grpc.RpcError as error:
                    return error.code()
                return grpc.StatusCode.OK

            outcomes = sorted(code.name for code in pool.map(delete, range(8)))
            assert outcomes == ["NOT_FOUND"] * 7 + ["OK"]
    assert running.lost_or_altered == []
    metrics = server.settled()
    assert (metrics["active_sessions"], metrics["total_subscribers"]) == (1, 1)
    assert metrics["rtpfanout_sessions_deleted_total"] == 20


def test_concurrent_control_calls_keep_the_totals_right(server: ServerProcess) -> None:
    session_id = server.create("127.0.0.1:5000", 1)

    def come_and_go(worker: int) -> None:
        for n in range(40):
            address = f"127.0.0.1:{6000 + n % 7}"  # the same for all workers
            server.add(session_id, address)
            if n % 3 == worker % 3:
                try:
                    server.remove(session_id, address)
                except grpc.RpcError as error:  # another worker was faster
                    assert error.code() == grpc.StatusCode.NOT_FOUND  # noqa: PT017
            own = server.create(f"127.0.0.1:{7000 + worker}", n, "127.0.0.1:6000")
            if n % 2:
                server.delete(own)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(come_and_go, range(6)))
    metrics = server.metrics()
    assert metrics["active_sessions"] == 1 + 6 * 20
    each = server.metrics("/metrics/sessions")
    assert metrics["total_subscribers"] == each.total("rtpfanout_session_subscribers")


@pytest.mark.slow("sets up 10,000 sessions")
def test_ten_thousand_sessions_of_one_subscriber(server: ServerProcess, udp: MakeSocket) -> None:
    source, sessions = udp(), 10_000
    subscribers = [udp() for _ in range(50)]
    from_address = address_of(source)
    addresses = list(map(address_of, subscribers))
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda ssrc: server.create(from_address, ssrc, addresses[ssrc % 50]),
                range(sessions),
            )
        )
    with pytest.raises(grpc.RpcError) as error:
        server.create(from_address, sessions)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    for n in range(3):
        for first in range(0, sessions, 250):  # a modest rate: what the slowest machine takes
            packets = [rtp_packet(ssrc, n, bytes(160)) for ssrc in range(first, first + 250)]
            for packet in packets:
                source.sendto(packet, server.ingest_target)
            for i, sock in enumerate(subscribers):
                mine = [p for ssrc, p in enumerate(packets, first) if ssrc % 50 == i]
                assert receive(sock, 5) == mine
    metrics = server.settled(received=3 * sessions)
    assert metrics["rtp_packets_sent_total"] == 3 * sessions
    assert metrics["rtpfanout_kernel_receive_drops_total"] == 0
    assert (metrics["active_sessions"], metrics["total_subscribers"]) == (sessions, sessions)
    each = server.metrics("/metrics/sessions")
    counted = [v for k, v in each.items() if k.startswith("rtpfanout_session_packets_sent_total")]
    assert counted == [3] * sessions


@pytest.mark.slow("reads 1,000 sockets")
@pytest.mark.usefixtures("many_files")
def test_one_session_of_a_thousand_subscribers(server: ServerProcess, udp: MakeSocket) -> None:
    source = udp()
    subscribers = [udp(receive_buffer=256 << 10) for _ in range(1000)]
    for sock in subscribers:  # so many ports that a stray packet of another program may hit one
        sock.connect(server.ingest_target)
    session_id = server.create(address_of(source), 1, *map(address_of, subscribers))
    with pytest.raises(grpc.RpcError) as error:
        server.add(session_id, "127.0.0.1:9")
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    packets = [rtp_packet(1, n, bytes(1188)) for n in range(100)]
    for first in range(0, len(packets), 10):
        some = packets[first : first + 10]
        for packet in some:
            source.sendto(packet, server.ingest_target)
        for sock in subscribers:
            assert receive(sock, 10) == some
    metrics = server.settled(received=100)
    assert metrics["rtp_packets_sent_total"] == 100_000
    assert metrics["rtpfanout_kernel_receive_drops_total"] == 0
    stats = server.stats(session_id)
    assert (stats.packets_sent, stats.send_failures) == (100_000, 0)
