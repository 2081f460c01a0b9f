"""Packets through an Engine over loopback: exact copies, gated, every one counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engine_support import running_engine
from fastpath.engines import add, engine, packet_of, subscribe
from support import eventually, queued, receive, rtp_packet, target, transfer

from rtpfanout.model import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    Udp = Callable[..., socket.socket]


@pytest.mark.parametrize("ssrc", [0, 1, 0x80000000, 0xFFFFFFFF])
def test_extreme_ssrcs_are_ordinary(ssrc: int, udp: Udp) -> None:
    e, camera, viewer, other = engine(), udp(), udp(), udp()
    add(e, camera, ssrc, viewer)
    add(e, camera, ssrc ^ 1, other)
    with running_engine(e):
        packets = [rtp_packet(ssrc, i) for i in range(20)]
        assert transfer(camera, target(e.bound), packets, [viewer]) == [packets]
    assert queued(other) == []


def test_every_size(udp: Udp) -> None:
    sizes = [*range(12, 40), 100, 1200, 1460, 1472, 1473, 8972, 9000, 65506, 65507]
    e, camera, viewers = engine(), udp(), [udp() for _ in range(3)]
    add(e, camera, 5, *viewers)
    packets = [packet_of(size, 5, i) for i, size in enumerate(sizes)]
    with running_engine(e):
        assert transfer(camera, target(e.bound), packets, viewers, window=2) == [packets] * 3
    stats = e.stats()
    assert stats["bytes_received"] == sum(sizes)
    assert stats["bytes_sent"] == 3 * sum(sizes)


def test_headers_and_payload_leave_as_they_came(udp: Udp) -> None:
    e, camera, viewer = engine(), udp(), udp()
    add(e, camera, 5, viewer)
    packets = [
        rtp_packet(5, 65535, marker=True, payload_type=127),
        rtp_packet(5, 0, csrcs=tuple(range(15))),
        rtp_packet(5, 1, extension=(0xBEDE, bytes(range(8)))),
        rtp_packet(5, 2, padding=4),
        rtp_packet(5, 3, b"", csrcs=(1,), extension=(0x1000, b""), padding=1),
    ]
    with running_engine(e):
        assert transfer(camera, target(e.bound), packets, [viewer]) == [packets]


def test_each_reason_to_drop(udp: Udp) -> None:
    e, camera, stranger, viewer = engine(), udp(), udp(), udp()
    handle = add(e, camera, 5, viewer)
    good = rtp_packet(5)
    with running_engine(e):
        for datagram in (
            b"",
            b"\x80",
            good[:11],
            bytes([0xA0]) + good[1:-1] + b"\0",  # padding of no bytes
            bytes([0x8F]) + good[1:],  # more CSRCs than bytes
        ):
            camera.sendto(datagram, target(e.bound))
        camera.sendto(b"\0\1\0\0\x21\x12\xa4\x42" + bytes(12), target(e.bound))  # STUN
        camera.sendto(bytes([0x80, 200]) + good[2:], target(e.bound))
        camera.sendto(rtp_packet(6), target(e.bound))
        stranger.sendto(good, target(e.bound))
        camera.sendto(good, target(e.bound))
        assert receive(viewer, 1) == [good]
    stats = e.stats()
    assert {k: v for k, v in stats.items() if k.startswith("dropped_") and v} == {
        "dropped_malformed": 5,
        "dropped_not_rtp": 1,
        "dropped_rtcp": 1,
        "dropped_unknown_ssrc": 1,
        "dropped_wrong_source": 1,
    }
    assert stats["packets_received"] == 10
    assert stats["packets_forwarded"] == stats["packets_sent"] == 1
    assert e.session_stats(handle, 0)["packets_received"] == 1
    assert queued(viewer) == []


def test_padding_count_unchecked_for_srtp(udp: Udp) -> None:
    e, camera, viewer = engine(check_padding=False), udp(), udp()
    add(e, camera, 5, viewer)
    encrypted = bytes([0xA0]) + rtp_packet(5, payload=bytes(20))[1:]
    with running_engine(e):
        assert transfer(camera, target(e.bound), [encrypted], [viewer]) == [[encrypted]]


def test_same_ssrc_from_two_sources_is_two_sessions(udp: Udp) -> None:
    e, cameras, viewers = engine(), [udp(), udp()], [udp(), udp()]
    for camera, viewer in zip(cameras, viewers, strict=True):
        add(e, camera, 5, viewer)
    with running_engine(e):
        for i, camera in enumerate(cameras):
            packets = [rtp_packet(5, n, bytes([i])) for n in range(10)]
            assert transfer(camera, target(e.bound), packets, [viewers[i]]) == [packets]
    assert queued(viewers[0]) == queued(viewers[1]) == []


def test_no_subscribers_is_no_drop(udp: Udp) -> None:
    e, camera = engine(), udp()
    add(e, camera, 5)
    with running_engine(e):
        camera.sendto(rtp_packet(5), target(e.bound))
        eventually(lambda: e.stats()["packets_forwarded"], lambda n: n == 1, "one forwarded")
    assert e.stats()["copies_attempted"] == 0
    assert [sum(counts) for counts, _ in e.latency()] == [0, 0]


def test_families_mix_on_a_dual_stack(udp: Udp, ipv6: None) -> None:  # noqa: ARG001
    e = engine("[::]:0")
    assert e.sockets.sends_ipv4
    assert e.sockets.sends_ipv6
    viewers = [udp(), udp("::1")]
    with running_engine(e):
        for ssrc, host in enumerate(("127.0.0.1", "::1")):
            camera = udp(host)
            add(e, camera, ssrc, *viewers)
            packets = [rtp_packet(ssrc, n) for n in range(10)]
            assert transfer(camera, (host, e.bound.port), packets, viewers) == [packets] * 2


def test_a_bad_subscriber_costs_the_others_nothing(udp: Udp) -> None:
    e, camera, viewers = engine(), udp(), [udp() for _ in range(3)]
    handle = add(e, camera, 5, viewers[0])
    subscribe(e, handle, Address.parse("255.255.255.255:9"))  # needs SO_BROADCAST
    subscribe(e, handle, viewers[1], Address.parse("127.0.0.1:0"))
    subscribe(e, handle, viewers[2])
    packets = [rtp_packet(5, n) for n in range(100)]
    with running_engine(e):
        assert transfer(camera, target(e.bound), packets, viewers) == [packets] * 3
    stats = e.stats()
    assert {k: v for k, v in stats.items() if k.startswith("failed_") and v} == {
        "failed_denied": 100,
        "failed_invalid": 100,
    }
    session = e.session_stats(handle, 0)
    assert (session["copies_attempted"], session["send_failures"]) == (500, 200)


def test_a_closed_port_costs_the_others_nothing(udp: Udp) -> None:
    """Its ICMP errors must not fail the next send (no IP_RECVERR)."""
    e, camera, viewer, gone = engine(), udp(), udp(), udp()
    add(e, camera, 5, gone, viewer)
    gone.close()
    packets = [rtp_packet(5, n) for n in range(200)]
    with running_engine(e):
        assert transfer(camera, target(e.bound), packets, [viewer]) == [packets]
    assert e.stats()["packets_sent"] == 400
    assert e.stats()["receive_errors"] == 0


@pytest.mark.parametrize("subscribers", [255, 256, 257, 1000])
def test_lists_as_long_as_a_batch(subscribers: int, udp: Udp) -> None:
    e, camera, first, last = engine(), udp(), udp(), udp()
    handle = add(e, camera, 5, first)
    between = [Address.parse(f"127.0.0.2:{20000 + i}") for i in range(subscribers - 2)]
    subscribe(e, handle, *between, last)
    packets = [rtp_packet(5, n) for n in range(10)]
    with running_engine(e):
        assert transfer(camera, target(e.bound), packets, [first, last]) == [packets, packets]
    assert e.stats()["copies_attempted"] == 10 * subscribers


def test_latency_once_for_each_packet(udp: Udp) -> None:
    e, camera, viewers = engine(), udp(), [udp() for _ in range(3)]
    handle = add(e, camera, 5, *viewers)
    add(e, camera, 6)
    with running_engine(e):
        transfer(camera, target(e.bound), [rtp_packet(5, n) for n in range(50)], viewers)
        camera.sendto(rtp_packet(6), target(e.bound))  # to nobody: no latency
        eventually(e.stats, lambda s: s["packets_forwarded"] == 51, "51 forwarded")
    for first, last in (e.latency(), e.session_latency(handle)):
        assert sum(first[0]) == sum(last[0]) == 50
        assert 0 < first[1] <= last[1]


def test_kernel_drops_are_exact(udp: Udp) -> None:
    """Whatever was sent was received or is counted as dropped by the kernel."""
    e, camera = engine(receive_queue_packets=16), udp()
    add(e, camera, 5)
    for n in range(1000):
        camera.sendto(packet_of(1200, 5, n), target(e.bound))
    eventually(lambda: e.stats()["kernel_drops"], lambda n: n > 900, "a full queue")
    with running_engine(e):
        stats = eventually(
            e.stats, lambda s: s["packets_received"] + s["kernel_drops"] == 1000, "the sum"
        )
        assert stats["packets_received"] >= 16  # buffer_size is a promise
        for n in range(50):  # and the count stays while packets go through
            camera.sendto(rtp_packet(5, n), target(e.bound))
            eventually(
                e.stats,
                lambda s, n=n: s["packets_received"] + s["kernel_drops"] == 1001 + n,
                "the sum",
            )
    assert e.stats()["kernel_drops"] == stats["kernel_drops"]


def test_buffer_holds_as_many_packets_as_it_says(udp: Udp) -> None:
    e, camera = engine(receive_queue_packets=100), udp()
    for n in range(100):
        camera.sendto(packet_of(1200, 5, n), target(e.bound))
    with running_engine(e):
        eventually(e.stats, lambda s: s["packets_received"] == 100, "all of 100")
    assert e.stats()["kernel_drops"] == 0
