"""Ingress sockets that outlive the process which reads them."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from engine_support import engine_identities, running_engine
from fastpath.engines import add, bound_to, engine, local, subscribe
from support import SETTLE_SECONDS, eventually, queued, receive, rtp_packet, target

from rtpfanout._fastpath import open_in_hand, open_sockets
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rtpfanout._fastpath import Engine

CHILD = """
import sys, threading, time
from rtpfanout._fastpath import Engine
from rtpfanout.model import Address
source, viewer, workers, run, *fds = sys.argv[1:]
e = Engine(Address.parse("127.0.0.1:0"), max_sessions=9, max_subscribers=9,
           receive_queue_packets=99, workers=int(workers), sockets=[int(fd) for fd in fds])
handle = e.add_session(Address.parse(source), 1, time.monotonic_ns())
e.add_subscribers(handle, Address.parse(viewer).record, time.monotonic_ns())
if run == "run":
    for worker in range(int(workers)):
        threading.Thread(target=e.run, args=(worker,), daemon=True).start()
print(e.sockets.egress_lanes, flush=True)
time.sleep(60)
"""


PACKETS, ENGINES = 4000, 8


@contextmanager
def handing_over(e: Engine, workers: int) -> Iterator[None]:
    """Its packet loops run, and leave what is queued to the next engine."""
    threads = [threading.Thread(target=e.run, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    yield
    e.stop(drain=False)
    for thread in threads:
        thread.join()


@contextmanager
def opened(count: int = 1, packets: int = 4096) -> Iterator[tuple[list[int], tuple[str, int]]]:
    """Sockets of a free port, and where to send to."""
    fds = open_sockets(Address.parse("127.0.0.1:0"), count, packets)
    try:
        with socket.socket(fileno=os.dup(fds[0])) as first:
            yield fds, first.getsockname()
    finally:
        for fd in fds:
            os.close(fd)


@contextmanager
def child(
    fds: list[int], source: Address, viewer: Address, workers: int = 1, run: str = "run"
) -> Iterator[int]:
    """A process that adopts them, killed by SIGKILL at the end; how many lanes it sends by."""
    command = [sys.executable, "-c", CHILD, str(source), str(viewer), str(workers), run]
    with subprocess.Popen(
        [*command, *map(str, fds)], pass_fds=fds, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_is_adopted_is_recognised() -> None:
    with opened(2) as (fds, address):
        e = engine(workers=3, sockets=fds)
        assert (str(e.bound.ip), e.bound.port) == address
        assert e.sockets.receiving_workers == 2
        assert (e.sockets.sends_ipv4, e.sockets.sends_ipv6) == (True, False)
        with socket.socket(fileno=os.dup(fds[0])) as sock:
            granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        assert e.sockets.receive_buffer_bytes == granted
        del e
        assert all(os.fstat(fd) for fd in fds), "the caller keeps its own"


@pytest.mark.usefixtures("ipv6")
def test_one_wildcard_for_both_families() -> None:
    fds = open_sockets(Address.parse("[::]:0"), 1, 64)
    e = engine(sockets=fds)
    assert (e.sockets.sends_ipv4, e.sockets.sends_ipv6) == (True, True)
    os.close(fds[0])


def test_a_second_group_finds_the_port_in_use() -> None:
    with opened(2) as (_, (host, port)), pytest.raises(OSError, match="in use"):
        open_sockets(Address.parse(f"{host}:{port}"), 1, 64)


def test_what_is_no_ingress_group_is_refused() -> None:
    before = _open_files()
    with opened(2) as (fds, _), opened() as (others, _), socket.socket() as tcp:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:
            for wrong in (fds, [tcp.fileno()], [unbound.fileno()], [fds[0], others[0]]):
                workers = 1 if wrong is fds else 2
                with pytest.raises(OSError, match="Invalid argument"):
                    engine(workers=workers, sockets=wrong)
        with pytest.raises(OSError, match="Bad file descriptor"):
            engine(sockets=[10**6])
    assert _open_files() == before
    with pytest.raises(OSError, match="Invalid argument"):
        open_sockets(local(0), 0, 64)


def test_kernel_drops_are_counted_by_one_engine(udp: Callable[..., socket.socket]) -> None:
    """Whoever reads the sockets next counts what was dropped since the one before counted."""
    camera = udp()
    with opened(packets=1) as (fds, address):

        def overflow(packets: int) -> None:
            for i in range(packets):
                camera.sendto(rtp_packet(1, i, b"x" * 1000), address)

        overflow(200)  # nobody is there yet
        first = engine(sockets=fds)
        assert first.stats()["kernel_drops"] == 199
        assert first.stats()["kernel_drops"] == 199
        overflow(10)
        assert first.stats()["kernel_drops"] == 209
        overflow(7)
        prepared = engine(sockets=fds)  # as in an upgrade
        first.stop(drain=False)
        overflow(3)
        assert first.stats()["kernel_drops"] == 209
        assert prepared.stats()["kernel_drops"] == 10
        del first, prepared
        overflow(5)
        assert engine(sockets=fds).stats()["kernel_drops"] == 5


def test_what_comes_between_two_processes_is_forwarded(
    udp: Callable[..., socket.socket],
) -> None:
    """One is killed in full flow; what is queued then goes out by the next, in order."""
    camera, viewer = udp(), udp()
    packets = [rtp_packet(1, i) for i in range(600)]
    with opened() as (fds, address):
        with child(fds, bound_to(camera), bound_to(viewer)):
            for packet in packets[:200]:
                camera.sendto(packet, address)
            assert receive(viewer, 200) == packets[:200]
        for packet in packets[200:400]:
            camera.sendto(packet, address)
        assert queued(viewer) == []
        with child(fds, bound_to(camera), bound_to(viewer)):
            for packet in packets[400:]:
                camera.sendto(packet, address)
            assert receive(viewer, 400) == packets[200:]
            assert queued(viewer) == []


def over_engines(
    cameras: Sequence[socket.socket],
    viewer: socket.socket,
    workers: int,
    feed: Callable[[Engine], object],
) -> tuple[list[bytes], int]:
    """Engine after engine takes over in mid-flow, each prepared by `feed`.

    What the viewer got of PACKETS that the cameras sent in turn, and how many were handed over.
    """
    done = threading.Event()
    got: list[bytes] = []
    handed_over = 0

    def flow() -> None:
        for i in range(PACKETS):
            while i > len(got) + 300 and not done.is_set():  # no queue ever overflows
                time.sleep(0.001)
            cameras[i % len(cameras)].sendto(rtp_packet(1, i), address)

    with opened(workers) as (fds, address):
        traffic = threading.Thread(target=flow)
        traffic.start()
        try:
            for _ in range(ENGINES - 1):
                e = engine(workers=workers, sockets=fds)
                feed(e)
                with handing_over(e, workers):
                    got += receive(viewer, 200)
                engine_identities(e)
                stats = e.stats()
                assert stats["packets_received"] == stats["packets_forwarded"]
                handed_over += stats["handed_over"]
                got += queued(viewer)
            e = engine(workers=workers, sockets=fds)
            feed(e)
            with running_engine(e, workers):
                while len(got) < PACKETS:
                    got += receive(viewer, 1)
        finally:
            done.set()
            traffic.join()
    assert queued(viewer) == []
    return got, handed_over


@pytest.mark.parametrize("workers", [1, 2])
def test_hand_over_loses_and_doubles_nothing(
    udp: Callable[..., socket.socket], workers: int
) -> None:
    """What the viewer gets is the stream."""
    camera, viewer = udp(), udp()
    got, _ = over_engines([camera], viewer, workers, lambda e: add(e, camera, 1, viewer))
    assert got == [rtp_packet(1, i) for i in range(PACKETS)]


def test_hand_over_loses_nothing_of_a_network(udp: Callable[..., socket.socket]) -> None:
    """The same of sources on several workers: what lies in inboxes is forwarded, too."""
    cameras, viewer = [udp() for _ in range(12)], udp()
    steered = []

    def feed(e: Engine) -> None:
        steered.append(e.sockets.receiving_workers > 1)
        handle = e.add_session(Address.parse("127.0.0.0:0"), 1, time.monotonic_ns(), prefix=8)
        subscribe(e, handle, viewer)

    got, handed_over = over_engines(cameras, viewer, 3, feed)
    assert sorted(got) == sorted(rtp_packet(1, i) for i in range(PACKETS))
    assert handed_over > 0 or not any(steered)


def test_a_halt_leaves_the_queue(udp: Callable[..., socket.socket]) -> None:
    camera, viewer = udp(), udp()
    with opened() as (fds, address):
        e = engine(sockets=fds)
        add(e, camera, 1, viewer)
        camera.sendto(rtp_packet(1), address)
        e.stop(drain=False)
        e.run()
        assert e.stats()["packets_received"] == 0
        assert len(os.read(fds[0], 100)) == len(rtp_packet(1))


def _shrink_send_buffer(fds: list[int]) -> None:
    """So that an engine opens lanes, which join the sockets' SO_REUSEPORT group."""
    for fd in fds:
        with socket.socket(fileno=os.dup(fd)) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)


def _where(fds: list[int], sources: list[socket.socket], address: tuple[str, int]) -> list[int]:
    """By which of the sockets one datagram of each source comes."""
    for i, source in enumerate(sources):
        source.sendto(f"{i}".encode(), address)
    by = {}
    for number, fd in enumerate(fds):
        with socket.socket(fileno=os.dup(fd)) as sock:
            by |= {int(datagram): number for datagram in queued(sock)}
            sock.setblocking(False)
    assert len(by) == len(sources), "some went to no ingress socket"
    return [by[i] for i in range(len(sources))]


@pytest.mark.parametrize("workers", [1, 2])
def test_steering_outlives_whoever_dies(udp: Callable[..., socket.socket], workers: int) -> None:
    """Lanes come and go with their process, by SIGKILL and while another's are there: every
    source stays with its socket."""
    sources = [udp() for _ in range(64)]
    with opened(workers) as (fds, address):
        _shrink_send_buffer(fds)
        before = _where(fds, sources, address)
        assert len(set(before)) == workers
        for _ in range(2):
            with child(fds, local(1), local(2), workers, "") as lanes:
                assert lanes > 1
                assert _where(fds, sources, address) == before
                with child(fds, local(1), local(2), workers, ""):
                    assert _where(fds, sources, address) == before
            assert _where(fds, sources, address) == before


def test_health_tells_who_lives_and_who_works(udp: Callable[..., socket.socket]) -> None:
    camera, viewer = udp(), udp()
    e = engine(workers=2)
    add(e, camera, 1, viewer)
    assert e.worker_health() == [(0, 0, 0), (0, 0, 0)]
    began = time.monotonic_ns()
    with running_engine(e, 2):
        camera.sendto(rtp_packet(1), target(e.bound))
        receive(viewer, 1)
        eventually(
            lambda: sum(busy for _, busy, _ in e.worker_health()),
            lambda busy: 0 < busy < SETTLE_SECONDS * 1e9,
            "a turn is counted as work",
        )
        asked = time.monotonic_ns()
        eventually(
            lambda: min(alive for alive, *_ in e.worker_health()),
            lambda alive: alive >= asked,
            "sleepers are alive",
        )
    after = time.monotonic_ns()
    assert all(began < alive < after for alive, *_ in e.worker_health()), "they have ended"
    time.sleep(0.01)
    assert all(alive < after for alive, *_ in e.worker_health())


def test_memory_for_what_is_in_hand_is_for_as_many_sockets() -> None:
    with opened() as (fds, _):
        for count, fits in ((1, True), (2, False)):
            memory = open_in_hand(count)
            try:
                if fits:
                    with running_engine(engine(sockets=fds, in_hand=memory)) as e:
                        assert e.stats()["packets_recovered"] == 0
                else:
                    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
                        engine(sockets=fds, in_hand=memory)
            finally:
                os.close(memory)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        open_in_hand(0)
