"""Who may feed a session: networks, latching, moves, pause, limits, as Python sees them."""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from fastpath.engines import add, bound_to, engine, local, running, subscribe
from support import eventually, receive, rtp_packet, target

from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine

SSRC = 7
MILLISECOND = 10**6
UNKNOWN = 2**64 - 1


def network(ip: str) -> Address:
    return Address.parse(f"[{ip}]:0" if ":" in ip else f"{ip}:0")


def session(e: Engine, source: Address, **rule: Any) -> int:
    return e.add_session(source, SSRC, time.monotonic_ns(), **rule)


def dropped(e: Engine) -> dict[str, int]:
    return {k.removeprefix("dropped_"): n for k, n in e.stats().items() if n and "dropped_" in k}


def send(e: Engine, source: socket.socket, data: bytes) -> None:
    """And waits until it is counted as one thing or the other."""
    before = sum(dropped(e).values()) + e.stats()["packets_forwarded"]
    source.sendto(data, target(e.bound))
    eventually(
        lambda: sum(dropped(e).values()) + e.stats()["packets_forwarded"],
        lambda n: n == before + 1,
        "the packet",
    )


def one_notice(e: Engine) -> tuple[Any, ...]:
    assert select.select([e.notice_fd], [], [], 30)[0]
    (notice,) = e.notices()
    assert not select.select([e.notice_fd], [], [], 0)[0]
    return notice


def test_many_sources_at_once() -> None:
    first, second = Address.parse("127.0.0.1:5000"), Address.parse("[2001:db8::7]:5001")
    e = engine("[::]:0", max_sessions=3)
    records = first.record + second.record + first.record
    exact = b"\xff"
    one, other, again = e.add_sessions(records, exact * 3, [7, 7, 7], 1)
    assert again is None, "it is there already"
    (third, full) = e.add_sessions(records[:24] + records[:24], exact * 2, [8, 9], 1)
    assert third is not None
    assert full is None, "three are as many as there may be"
    assert sorted(e.all_session_stats(1)) == sorted([one, other, third])
    e.remove_session(one)
    assert e.add_session(first, 7, 1) not in (one, other)
    with pytest.raises(FileExistsError):
        e.add_session(second, 7, 1)
    assert e.add_sessions(b"", b"", [], 1) == []
    for prefixes, ssrcs in ((exact * 2, [7]), (exact, [7, 8])):
        with pytest.raises(ValueError, match="for 2 sources"):
            e.add_sessions(records[:48], prefixes, ssrcs, 1)
    with pytest.raises(ValueError, match="24 bytes each"):
        e.add_sessions(records[:47], exact * 2, [7, 8], 1)


def test_many_networks_at_once() -> None:
    e = engine("[::]:0")
    texts = ("127.0.0.0", "127.0.0.0", "127.0.0.0", "2001:db8::")
    records = b"".join(Address(ipaddress.ip_address(text), 0).record for text in texts)
    one, again, other, ipv6 = e.add_sessions(records, bytes((104, 104, 120, 32)), [7, 7, 7, 7], 1)
    assert again is None, "the very same network is there"
    assert None not in (one, other, ipv6)
    for prefix, text in ((8, "127.0.0.0"), (24, "127.0.0.0"), (32, "2001:db8::")):
        with pytest.raises(FileExistsError):
            e.add_session(Address(ipaddress.ip_address(text), 0), 7, 1, prefix=prefix)
    e.add_session(Address(ipaddress.ip_address("127.0.0.0"), 0), 7, 1, prefix=16)


@pytest.mark.parametrize(
    ("ip", "prefix", "message"),
    [
        ("10.0.0.0", 33, "prefix 33 of 10.0.0.0 is not a number from 0 to 32"),
        ("10.0.0.0", -1, "prefix -1 of 10.0.0.0"),
        ("2001:db8::", 129, "prefix 129 of 2001:db8:: is not a number from 0 to 128"),
    ],
)
def test_a_prefix_is_of_the_address(ip: str, prefix: int, message: str) -> None:
    e = engine()
    handle = session(e, local(1))
    with pytest.raises(ValueError, match=message):
        e.add_session(network(ip), SSRC, 0, prefix=prefix)
    with pytest.raises(ValueError, match=message):
        e.move_session(handle, network(ip), prefix=prefix)
    with pytest.raises(ValueError, match=message):
        e.move_session(handle, local(1), relatch=(network(ip), prefix), relatch_after_ns=1)


def test_networks_clash_by_what_they_hold() -> None:
    e = engine()
    session(e, network("10.1.2.3"), prefix=24)
    with pytest.raises(FileExistsError):
        session(e, network("10.1.2.99"), prefix=24)
    with pytest.raises(FileExistsError):
        session(e, network("10.1.2.0"), prefix=24, latch=True)
    handle = session(e, network("10.1.2.0"), prefix=25)
    with pytest.raises(FileExistsError):
        e.move_session(handle, network("10.1.2.7"), prefix=24)
    session(e, network("10.1.2.0"), latch=True)  # of that one address
    e.move_session(handle, local(1), relatch=(network("10.1.2.0"), 24), relatch_after_ns=1)


def test_sixteen_networks_of_one_ssrc() -> None:
    e = engine()
    for prefix in range(8, 24):
        session(e, network("10.0.0.0"), prefix=prefix)
    plain = session(e, local(1))
    relatch: dict[str, Any] = {"relatch": (network("10.0.0.0"), 8), "relatch_after_ns": 1}
    calls: tuple[Callable[[], Any], ...] = (
        lambda: session(e, network("10.0.0.0"), prefix=24),
        lambda: session(e, local(2), **relatch),
        lambda: e.move_session(plain, local(1), **relatch),
    )
    for call in calls:
        with pytest.raises(OSError, match="Too many links") as full:
            call()
        assert full.value.errno == errno.EMLINK
    e.add_session(network("10.0.0.0"), SSRC + 1, 0, prefix=24)


@pytest.mark.parametrize(
    "call",
    [
        lambda e: e.move_session(UNKNOWN, local(1)),
        lambda e: e.pause_session(UNKNOWN, True),
        lambda e: e.limit_session(UNKNOWN, 1),
    ],
)
def test_unknown_handles(call: Callable[[Engine], None]) -> None:
    with pytest.raises(KeyError):
        call(engine())


def knock(e: Engine, source: socket.socket, *packets: bytes) -> tuple[Any, ...]:
    """They wait; the notice."""
    for packet in packets:
        source.sendto(packet, target(e.bound))
    return one_notice(e)


def test_a_source_latches_moves_and_latches_again(
    udp: Callable[[], socket.socket],
) -> None:
    first, second, viewer = udp(), udp(), udp()
    everybody = (network("127.0.0.0"), 8)
    with running() as e:
        handle = session(e, everybody[0], prefix=8, latch=True)
        subscribe(e, handle, viewer)
        assert knock(e, first, rtp_packet(SSRC, 1)) == ("source", handle, bound_to(first))
        e.move_session(
            handle, bound_to(first), relatch=everybody, relatch_after_ns=20 * MILLISECOND, pins=True
        )
        first.sendto(rtp_packet(SSRC, 2), target(e.bound))
        assert receive(viewer, 2) == [rtp_packet(SSRC, 1), rtp_packet(SSRC, 2)]
        time.sleep(0.05)
        assert knock(e, second, rtp_packet(SSRC, 3)) == ("source", handle, bound_to(second))
        e.move_session(handle, bound_to(second))
        for camera in (first, second):
            camera.sendto(rtp_packet(SSRC, 5), target(e.bound))
        assert receive(viewer, 1) == [rtp_packet(SSRC, 5)]
        what = {"latching": 1, "wrong_source": 1}
        eventually(lambda: dropped(e), lambda d: d == what, "what waited before a move")
        assert e.session_stats(handle, time.monotonic_ns())["packets_received"] == 3
        e.move_session(handle, network("127.0.0.1"), prefix=32)
        send(e, first, rtp_packet(SSRC, 6))
        assert receive(viewer, 1) == [rtp_packet(SSRC, 6)]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("policy", ["exact", "follow", "any"])
def test_what_came_before_the_pin_leaves_first(
    udp: Callable[[], socket.socket], policy: str, workers: int
) -> None:
    """From each port, which the kernel may steer to different workers; it is received once."""
    cameras, stranger, viewer = [udp() for _ in range(4)], udp("127.0.0.2"), udp()
    with running(workers=workers) as e:
        handle = session(e, network("127.0.0.0"), prefix=8, latch=True, ssrc_policy=policy)
        subscribe(e, handle, viewer)
        sent: list[list[bytes]] = [
            [rtp_packet(SSRC, 100 * n + i, bytes([n])) for i in range(20)] for n in range(4)
        ]
        for camera, packets in zip(cameras, sent, strict=True):
            for packet in packets[:-1]:
                camera.sendto(packet, target(e.bound))
                stranger.sendto(packet, target(e.bound))
        what, which, _source = eventually(e.notices, bool, "a notice")[0]
        assert (what, which) == ("source", handle)
        eventually(lambda: e.stats()["packets_received"], (8 * 19).__eq__, "the packets")
        e.move_session(handle, local(0), ssrc_policy=policy, pins=True)
        for camera, packets in zip(cameras, sent, strict=True):
            camera.sendto(packets[-1], target(e.bound))
        got = receive(viewer, 80)
        for n, packets in enumerate(sent):
            assert [packet for packet in got if packet[-1] == n] == packets
        stats = eventually(
            lambda: e.session_stats(handle, time.monotonic_ns()),
            lambda s: s["dropped_latching"] == 4 * 19,
            "what the stranger sent",
        )
        assert stats["packets_received"] == 80


def test_what_waited_is_received_once(udp: Callable[[], socket.socket]) -> None:
    camera = udp()
    with running() as e:
        handle = session(e, network("127.0.0.0"), prefix=8, latch=True)
        knock(e, camera, *(rtp_packet(SSRC, i) for i in range(20)))
        e.move_session(handle, bound_to(camera), pins=True)
        camera.sendto(rtp_packet(SSRC, 20), target(e.bound))
        eventually(lambda: e.stats()["packets_forwarded"], (21).__eq__, "the packets")
        came = e.session_reception(handle, time.monotonic_ns())
        assert (came["received"], came["expected"], came["lost"]) == (21, 21, 0)
        assert (came["duplicates"], came["reordered"], came["restarts"]) == (0, 0, 0)


def test_nothing_from_before_a_pause_leaves_after_it(udp: Callable[[], socket.socket]) -> None:
    camera, viewer = udp(), udp()
    with running() as e:
        handle = session(e, network("127.0.0.0"), prefix=8, latch=True)
        subscribe(e, handle, viewer)
        knock(e, camera, rtp_packet(SSRC, 1))
        e.move_session(handle, bound_to(camera), pins=True)
        e.pause_session(handle, True)
        e.pause_session(handle, False)
        camera.sendto(rtp_packet(SSRC, 2), target(e.bound))
        assert receive(viewer, 1) == [rtp_packet(SSRC, 2)]
        eventually(lambda: dropped(e), lambda d: d == {"latching": 1}, "what waited")


@pytest.mark.usefixtures("ipv6")
def test_networks_of_ipv6(udp: Callable[..., socket.socket]) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six, running("[::]:0") as e:
        six.bind(("::1", 0))
        handle = session(e, network("::"), prefix=0)
        six.sendto(rtp_packet(SSRC, 1), ("::1", e.bound.port))
        eventually(lambda: e.stats()["packets_forwarded"], lambda n: n == 1, "the packet")
        # no IPv4 address is in ::/0
        udp().sendto(rtp_packet(SSRC, 2), ("127.0.0.1", e.bound.port))
        eventually(lambda: dropped(e), lambda d: d == {"wrong_source": 1}, "the stranger")
        e.move_session(handle, network("0.0.0.0"), prefix=0)
        udp().sendto(rtp_packet(SSRC, 2), ("127.0.0.1", e.bound.port))
        eventually(lambda: e.stats()["packets_forwarded"], lambda n: n == 2, "the packet")


@pytest.mark.usefixtures("ipv6")
def test_anybody_is_of_both_families(udp: Callable[..., socket.socket]) -> None:
    four, six = udp(), udp("::1")
    with running("[::]:0") as e:
        at = {four: ("127.0.0.1", e.bound.port), six: ("::1", e.bound.port)}
        handle = e.add_session(None, SSRC, time.monotonic_ns(), latch=True)
        for first, second in ((four, six), (six, four)):
            first.sendto(rtp_packet(SSRC, 1), at[first])
            assert one_notice(e) == ("source", handle, bound_to(first))
            e.move_session(handle, bound_to(first), relatch=(None, 0), relatch_after_ns=1)
            second.sendto(rtp_packet(SSRC, 2), at[second])
            assert one_notice(e) == ("source", handle, bound_to(second))
            e.move_session(handle, None, latch=True)
        with pytest.raises(FileExistsError):
            e.add_session(None, SSRC, 0, prefix=0)
        e.move_session(handle, None, prefix=0)
        for n, source in enumerate(at):
            source.sendto(rtp_packet(SSRC, 3), at[source])
            eventually(lambda: e.stats()["packets_forwarded"], (n + 1).__eq__, "the packet")
        eventually(lambda: dropped(e), lambda d: d == {"latching": 4}, "what waited in vain")


def test_pause_and_limit(udp: Callable[[], socket.socket]) -> None:
    camera, viewer = udp(), udp()
    with running() as e:
        handle = add(e, camera, SSRC, viewer)
        e.pause_session(handle, True)
        send(e, camera, rtp_packet(SSRC, 1))
        e.pause_session(handle, False)
        send(e, camera, rtp_packet(SSRC, 2))
        assert receive(viewer, 1) == [rtp_packet(SSRC, 2)]
        e.limit_session(handle, 1)
        packets = [rtp_packet(SSRC, i, bytes(1188)) for i in range(60)]
        for packet in packets:
            send(e, camera, packet)
        stats = e.session_stats(handle, time.monotonic_ns())
        assert stats["dropped_paused"] == 1
        assert stats["dropped_rate_limit"] == 60 - 65536 // 1200
        assert dropped(e) == {"paused": 1, "rate_limit": 60 - 65536 // 1200}
        e.limit_session(handle, 0)
        send(e, camera, packets[0])
        assert dropped(e)["rate_limit"] == 60 - 65536 // 1200


def test_what_we_sent_ourselves_is_a_loop(udp: Callable[[], socket.socket]) -> None:
    with running("0.0.0.0:0") as e:
        session(e, network("127.0.0.0"), prefix=8)
        assert e.send(local(e.bound.port), rtp_packet(SSRC, 1))
        eventually(lambda: e.stats()["packets_forwarded"], lambda n: n == 1, "not known as ours")
        e.set_local_addresses([network("127.0.0.1"), network("2001:db8::1")])
        assert e.send(local(e.bound.port), rtp_packet(SSRC, 2))
        eventually(lambda: dropped(e), lambda d: d == {"loop": 1}, "a loop")
        send(e, udp(), rtp_packet(SSRC, 3))
        assert e.stats()["packets_forwarded"] == 2


def test_two_servers_subscribed_to_each_other_do_not_ring(udp: Callable[[], socket.socket]) -> None:
    camera, viewer = udp(), udp()
    with running() as one, running() as other:
        handles = [session(e, network("127.0.0.1"), prefix=32) for e in (one, other)]
        subscribe(one, handles[0], other.bound, bound_to(viewer))
        subscribe(other, handles[1], one.bound, bound_to(viewer))
        for i in range(20):
            send(one, camera, rtp_packet(SSRC, i))
        eventually(lambda: dropped(other), lambda d: d == {"loop": 20}, "the way back to end")
        assert one.stats()["packets_forwarded"] == 20
        assert dropped(one) == {}
        assert receive(viewer, 20) == [rtp_packet(SSRC, i) for i in range(20)]
