"""More comes in than can be sent: who asks for more than others pays for it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest
from engine_support import running_engine
from fastpath.engines import bound_to, engine, packet_of, send_segmented, subscribe

from rtpfanout.model import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine

SESSIONS, SUBSCRIBERS, SECONDS, SETTLING = 8, 400, 6, 3
LOOKS = 5
"""A machine whose CPUs others take for a while is not overloaded by us: look again."""


def target_number(i: int, sink: socket.socket) -> Address:
    """One of the 127.0.0.0/8 addresses, all of which a socket bound to 0.0.0.0 has."""
    return Address.parse(f"127.0.{i // 250 + 1}.{i % 250 + 1}:{sink.getsockname()[1]}")


def flood(camera: socket.socket, e: Engine, ssrcs: list[int], stop: threading.Event) -> None:
    """As much as the engine's queue takes, every session in turn, the last ten times as often."""
    hog = ssrcs[-1]
    sequence = 0
    while not stop.is_set():
        for ssrc in [*ssrcs[:-1], *[hog] * 10]:
            packets = [packet_of(200, ssrc, sequence % 97 + i) for i in range(7)]
            send_segmented(camera, packets, e)
        sequence += 7
        time.sleep(0.001)


@pytest.mark.slow("shares settle in seconds of flood")
@pytest.mark.timeout(240)
def test_every_session_gets_the_same_share(udp: Callable[..., socket.socket]) -> None:
    """Eight sessions of 400 subscribers without segmentation are more than a core can send."""
    camera, sink = udp(), udp()
    sink.setsockopt(1, 8, 1)  # SO_RCVBUF at its least: nobody reads what arrives
    e = engine(max_subscribers=SUBSCRIBERS, receive_queue_packets=65536, segmentation=False)
    ssrcs = list(range(1, SESSIONS + 1))
    handles = []
    for ssrc in ssrcs:
        handle = e.add_session(bound_to(camera), ssrc, time.monotonic_ns())
        subscribe(e, handle, *[target_number(i, sink) for i in range(SUBSCRIBERS)])
        handles.append(handle)
    stop = threading.Event()
    with running_engine(e):
        sender = threading.Thread(target=flood, args=(camera, e, ssrcs, stop))
        sender.start()
        try:
            time.sleep(SETTLING)
            for _look in range(LOOKS):
                before = e.all_session_stats(time.monotonic_ns())
                time.sleep(SECONDS)
                after = e.all_session_stats(time.monotonic_ns())
                goodput = [after[h]["packets_sent"] - before[h]["packets_sent"] for h in handles]
                jain = sum(goodput) ** 2 / (len(goodput) * sum(x * x for x in goodput))
                dropped = [after[h]["dropped_overload"] for h in handles]
                print(f"goodput {goodput}, Jain's index {jain:.4f}, dropped {dropped}")
                if jain >= 0.99:
                    break
        finally:
            stop.set()
            sender.join()
    assert jain >= 0.99
    assert dropped[-1] > max(dropped[:-1])
