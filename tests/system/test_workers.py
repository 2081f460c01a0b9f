"""Workers of a running server: how many, where, and what is said about them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cli_support import run
from procs import worker_threads
from support import address_of, eventually, rtp_packet, transfer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support import ServerProcess

    StartServer = Callable[..., ServerProcess]

AVAILABLE = sorted(os.sched_getaffinity(0))


def worker_cpus(server: ServerProcess) -> dict[str, set[int]]:
    return {name: os.sched_getaffinity(task) for name, task in worker_threads(server.pid).items()}


def test_by_default_one_for_each_cpu(server: ServerProcess) -> None:
    ready = server.logged("ready")
    assert ready["workers"] == len(AVAILABLE)
    assert 1 <= ready["receiving_workers"] <= len(AVAILABLE)
    assert set(map(type, (ready["gso"], ready["gro"]))) == {bool}
    metrics = server.metrics()
    assert metrics["rtpfanout_workers"] == len(AVAILABLE)
    assert metrics["rtpfanout_receiving_workers"] == ready["receiving_workers"]
    if len(AVAILABLE) > 1:
        assert worker_cpus(server) == {
            f"rtp-worker-{index}": {cpu} for index, cpu in enumerate(AVAILABLE[:64])
        }
    (build,) = [key for key in metrics if key.startswith("rtpfanout_build_info{")]
    for name in ("gso", "gro"):
        assert f'{name}="{"yes" if ready[name] else "no"}"' in build


def test_pinned_workers_serve_every_source(
    start_server: StartServer, udp: Callable[..., socket.socket]
) -> None:
    server = start_server(workers=3, worker_cpus=str(AVAILABLE[-1]), split_threshold=2)
    expected = {f"rtp-worker-{index}": {AVAILABLE[-1]} for index in range(3)}
    assert worker_cpus(server) == expected
    for ssrc in range(8):  # sources of their own, so that the kernel spreads them
        source, subscribers = udp(), [udp() for _ in range(4)]
        session_id = server.create(address_of(source), ssrc, *map(address_of, subscribers))
        packets = [rtp_packet(ssrc, n) for n in range(64)]
        for received in transfer(source, server.ingest_target, packets, subscribers):
            assert received == packets
        eventually(
            lambda id_=session_id: server.stats(id_).packets_sent,
            lambda sent: sent == 4 * 64,
            "all copies are counted",
        )
    metrics = server.settled(received=8 * 64)
    assert metrics["rtp_packets_sent_total"] == 8 * 4 * 64
    for name in ("receives", "sends"):
        assert 0 < metrics[f"rtpfanout_{name}_total"] <= metrics["rtp_packets_sent_total"]


def test_busy_polling_forwards_too(
    start_server: StartServer, udp: Callable[..., socket.socket]
) -> None:
    server = start_server(workers=1, busy_poll_us=200)
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    packets = [rtp_packet(1, n) for n in range(64)]
    assert transfer(source, server.ingest_target, packets, [subscriber]) == [packets]


def test_without_segmentation_each_copy_is_sent_by_itself(
    start_server: StartServer, udp: Callable[..., socket.socket]
) -> None:
    server = start_server(workers=1, segmentation=False)
    assert not server.logged("ready")["gso"]
    source, subscriber = udp(), udp()
    server.create(address_of(source), 1, address_of(subscriber))
    packets = [rtp_packet(1, n) for n in range(64)]
    assert transfer(source, server.ingest_target, packets, [subscriber]) == [packets]
    metrics = server.settled(received=64)
    assert metrics["rtpfanout_sends_total"] == metrics["rtp_packets_sent_total"] == 64


def test_a_cpu_that_does_not_exist_is_one_line_and_code_2() -> None:
    done = run(
        "serve", "--bind-address", "127.0.0.1:0", "--set", f"worker_cpus={AVAILABLE[0]},8191"
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: worker_cpus: there is no CPU 8191 for this process; "
        f"the available ones are {', '.join(map(str, AVAILABLE))}\n"
    )


@pytest.mark.parametrize("text", ["65", "-1", "some"])
def test_workers_are_bounded(text: str) -> None:
    done = run("serve", f"--workers={text}")
    assert done.returncode == 2
    assert "workers" in done.stderr
