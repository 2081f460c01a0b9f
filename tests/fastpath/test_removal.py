"""Removal under traffic: after the call returned no packet leaves, and others lose nothing."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from engine_support import running_engine
from fastpath.engines import add, bound_to, engine, subscribe
from support import eventually, queued, receive, rtp_packet, target

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine

RACES = 240


class Camera(threading.Thread):
    """Sends packets of one SSRC, some at a time, until told to stop; `allowed` in all."""

    def __init__(self, sock: socket.socket, e: Engine, ssrc: int) -> None:
        super().__init__()
        self.sock, self.to, self.ssrc = sock, target(e.bound), ssrc
        self.stopped = threading.Event()
        self.sent = 0
        self.allowed = 1 << 60

    def run(self) -> None:
        while not self.stopped.is_set():
            for _ in range(min(8, self.allowed - self.sent)):
                self.sock.sendto(rtp_packet(self.ssrc, self.sent), self.to)
                self.sent += 1
            time.sleep(0.0002)

    def stop(self) -> None:
        self.stopped.set()
        self.join()


def test_nothing_leaves_after_the_call(udp: Callable[..., socket.socket]) -> None:
    """The session's copies are all counted at the grace period's end, and none is added
    later, though its packets keep coming; what was sent is what arrived."""
    e, camera, viewer = engine(), udp(), udp()
    traffic = Camera(camera, e, 1)
    heard = 0
    with running_engine(e):
        traffic.start()
        for race in range(RACES):
            handle = add(e, camera, 1, viewer)
            heard += len(receive(viewer, 1))
            if race % 2:
                e.remove_session(handle)
            else:
                e.remove_subscribers(handle, [bound_to(viewer)])
            sent = e.stats()["packets_sent"]
            received = e.stats()["packets_received"]
            eventually(
                lambda: e.stats()["packets_received"],
                lambda now, before=received: now > before + 8,
                "more traffic",
            )
            assert e.stats()["packets_sent"] == sent
            heard += len(queued(viewer))
            if race % 2 == 0:
                e.remove_session(handle)
        traffic.stop()
    heard += len(queued(viewer))
    assert e.stats()["packets_sent"] == heard


def test_others_lose_nothing(udp: Callable[..., socket.socket]) -> None:
    """A standing subscriber hears every packet while others of its session come and go."""
    e, camera, standing, passing = engine(), udp(), udp(), udp()
    handle = add(e, camera, 1, standing)
    traffic = Camera(camera, e, 1)
    traffic.allowed = 200
    heard: list[bytes] = []
    with running_engine(e):
        traffic.start()
        races = 0
        while races < RACES or traffic.sent < 5000:
            races += 1
            subscribe(e, handle, passing)
            other = add(e, passing, 1, passing)
            e.remove_subscribers(handle, [bound_to(passing)])
            e.remove_session(other)
            heard += queued(standing)
            traffic.allowed = len(heard) + 200  # no queue overflows, however slow we are
            queued(passing)
        traffic.stop()
        eventually(
            lambda: e.stats()["packets_received"] + e.stats()["kernel_drops"],
            lambda n: n == traffic.sent,
            "all packets",
        )
    heard += queued(standing)
    assert e.stats()["kernel_drops"] == 0
    assert heard == [rtp_packet(1, n) for n in range(traffic.sent)]
