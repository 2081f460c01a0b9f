"""Control calls: what they return, what they raise, and when they may be made."""

from __future__ import annotations

import errno
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from engine_support import running_engine
from fastpath.engines import (
    add,
    bound_to,
    engine,
    local,
    records_of,
    subscribe,
    subscribers_of,
)
from support import eventually, receive, rtp_packet, target

from rtpfanout.model import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

IPV6 = Address.parse("[2001:db8::1]:7000")
UNKNOWN = 2**64 - 1


def test_bind_errors_carry_the_kernels_errno() -> None:
    first = engine()
    with pytest.raises(OSError, match="in use") as taken:
        engine(str(first.bound))
    assert taken.value.errno == errno.EADDRINUSE
    with pytest.raises(OSError, match="assign") as elsewhere:
        engine("192.0.2.1:0")
    assert elsewhere.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize("limit", ["max_sessions", "max_subscribers", "receive_queue_packets"])
def test_limits_are_positive_and_32_bits(limit: str) -> None:
    with pytest.raises(OSError, match="Invalid") as zero:
        engine(**{limit: 0})
    assert zero.value.errno == errno.EINVAL
    for value in (-1, 2**32):
        with pytest.raises(OverflowError):
            engine(**{limit: value})


def test_as_many_sessions_as_the_table_can_tell_apart() -> None:
    engine(max_sessions=2**20 - 1)
    with pytest.raises(OSError, match="Invalid"):
        engine(max_sessions=2**20)


def test_what_the_socket_is() -> None:
    e = engine(receive_queue_packets=64)
    assert str(e.bound.ip) == "127.0.0.1"
    assert e.bound.port > 0
    assert (e.sockets.sends_ipv4, e.sockets.sends_ipv6) == (True, False)
    assert e.sockets.receive_buffer_bytes == 2 * e.sockets.requested_receive_buffer_bytes
    assert e.sockets.send_buffer_bytes > 0


def test_session_errors() -> None:
    e = engine(max_sessions=2)
    e.add_session(local(1), 7, 0)
    with pytest.raises(FileExistsError) as clash:
        e.add_session(local(1), 7, 0)
    assert clash.value.errno == errno.EEXIST
    handle = e.add_session(local(2), 7, 0)  # the same SSRC from another source is another one
    with pytest.raises(FileExistsError):  # said of a full engine as well
        e.add_session(local(1), 7, 0)
    with pytest.raises(BlockingIOError) as full:
        e.add_session(local(3), 7, 0)
    assert full.value.errno == errno.EAGAIN
    e.remove_session(handle)
    for call in (
        e.remove_session,
        e.session_latency,
        lambda h: e.subscribers(h, 0, 1),
        lambda h: e.session_stats(h, 0),
    ):
        with pytest.raises(KeyError):
            call(handle)
    e.add_session(local(3), 7, 0)


@pytest.mark.parametrize("ssrc", [-1, 2**32])
def test_ssrc_is_32_bits(ssrc: int) -> None:
    with pytest.raises(OverflowError):
        engine().add_session(local(1), ssrc, 0)


def test_subscriber_errors_change_nothing() -> None:
    e = engine(max_subscribers=2)
    handle = e.add_session(local(1), 7, 0)
    assert e.add_subscribers(handle, b"", 0) == 0
    with pytest.raises(BlockingIOError):
        e.add_subscribers(handle, records_of(*map(local, (10, 11, 12))), 0)
    with pytest.raises(OSError, match="not supported") as family:
        e.add_subscribers(handle, records_of(local(10), IPV6), 0)
    assert family.value.errno == errno.EAFNOSUPPORT
    with pytest.raises(ValueError, match="24 bytes each"):
        e.add_subscribers(handle, local(10).record[:-1], 0)
    not_addresses: list[Any] = [local(10), "127.0.0.1:11"]
    with pytest.raises(AttributeError):
        e.remove_subscribers(handle, not_addresses)
    assert e.subscribers(handle, 0, 10) == []
    assert e.add_subscribers(handle, records_of(*map(local, (10, 11, 10))), 0) == 2
    for call in (
        lambda: e.add_subscribers(UNKNOWN, local(10).record, 0),
        lambda: e.subscribers(UNKNOWN, 0, 1),
        lambda: e.remove_subscribers(UNKNOWN, [local(10)]),
    ):
        with pytest.raises(KeyError):
            call()
    assert e.remove_subscribers(handle, []) == []
    assert e.remove_subscribers(handle, [local(12), IPV6]) == [False, False]
    assert subscribers_of(e, handle) == [local(10), local(11)]
    strangers_too = [local(12), local(11), IPV6, local(11)]
    assert e.remove_subscribers(handle, strangers_too) == [False, True, False, False]
    assert subscribers_of(e, handle) == [local(10)]


@pytest.mark.parametrize(
    ("bind", "possible"), [("127.0.0.1:0", "4"), ("[::1]:0", "6"), ("[::]:0", "46")]
)
def test_subscribers_are_those_the_socket_can_reach(bind: str, possible: str, ipv6: None) -> None:  # noqa: ARG001
    e = engine(bind)
    assert (e.sockets.sends_ipv4, e.sockets.sends_ipv6) == ("4" in possible, "6" in possible)
    handle = e.add_session(local(1), 7, 0)
    for version, address in (("4", local(10)), ("6", IPV6)):
        if version in possible:
            assert e.add_subscribers(handle, address.record, 0) == 1
        else:
            with pytest.raises(OSError, match="not supported"):
                e.add_subscribers(handle, address.record, 0)


def test_pages_of_subscribers() -> None:
    """`since` tells them apart even when all were added at one time."""
    e = engine()
    handle = e.add_session(local(1), 7, 0)
    addresses = [local(port) for port in range(100, 110)]
    e.add_subscribers(handle, records_of(*addresses), 5_000)
    e.remove_subscribers(handle, [addresses[3]])
    e.add_subscribers(handle, addresses[3].record, 5_000)
    first = e.subscribers(handle, 0, 4)
    rest = e.subscribers(handle, first[-1][1], 1000)
    assert e.subscribers(handle, 0, 0) == []
    assert [entry[0] for entry in first + rest] == [*addresses[:3], *addresses[4:], addresses[3]]
    times = [since for _, since, *_ in first + rest]
    assert times[0] == 5_000
    assert times == sorted(set(times))
    assert e.subscribers(handle, times[-1], 1000) == []
    for huge in (2**58, 2**64 - 1):
        with pytest.raises(MemoryError):
            e.subscribers(handle, 0, huge)


def test_each_subscriber_has_its_own_counts(udp: Callable[..., socket.socket]) -> None:
    """From the moment it was added; one that comes back starts anew."""
    e, camera, viewers = engine(), udp(), [udp(), udp()]
    handle = add(e, camera, 1, viewers[0])
    refused = Address.parse("255.255.255.255:9")  # needs SO_BROADCAST
    subscribe(e, handle, refused)

    def counts() -> dict[Address, tuple[int, int]]:
        return {a: (sent, failed) for a, _, sent, failed, *_ in e.subscribers(handle, 0, 10)}

    with running_engine(e):
        camera.sendto(rtp_packet(1), target(e.bound))
        assert receive(viewers[0], 1) == [rtp_packet(1)]
        eventually(counts, lambda c: c[refused] == (0, 1), "a failure counted")
        subscribe(e, handle, viewers[1])
        camera.sendto(rtp_packet(1, 1), target(e.bound))
        assert receive(viewers[1], 1) == [rtp_packet(1, 1)]
        expected = {bound_to(viewers[0]): (2, 0), refused: (0, 2), bound_to(viewers[1]): (1, 0)}
        eventually(counts, lambda c: c == expected, "every copy counted")
        e.remove_subscribers(handle, [bound_to(viewers[0])])
        subscribe(e, handle, viewers[0])
        assert counts()[bound_to(viewers[0])] == (0, 0)


def test_addresses_come_back_as_they_went(ipv6: None) -> None:  # noqa: ARG001
    e = engine("[::]:0")
    handle = e.add_session(local(1), 7, 0)
    addresses = [
        Address.parse(text)
        for text in ("192.0.2.1:1", "[2001:db8::1]:65535", "[fe80::1%1]:9", "[fe80::1%2]:9")
    ]
    assert e.add_subscribers(handle, records_of(*addresses), 0) == 4
    assert subscribers_of(e, handle) == addresses
    assert e.add_subscribers(handle, Address.parse("[::ffff:192.0.2.1]:1").record, 0) == 0


def test_handles_are_never_used_again() -> None:
    e = engine(max_sessions=3)
    seen = set()
    for i in range(2000):
        handle = e.add_session(local(1), i, 0)
        assert handle not in seen
        seen.add(handle)
        e.remove_session(handle)


def test_ten_thousand_sessions(udp: Callable[..., socket.socket]) -> None:
    """Found each, among as many others; gone when removed."""
    count, camera, viewer = 10_000, udp(), udp()
    e = engine(max_sessions=count)
    handles = [add(e, camera, ssrc, viewer) for ssrc in range(count)]
    with running_engine(e):
        for ssrc in range(0, count, 97):
            camera.sendto(rtp_packet(ssrc), target(e.bound))
            assert receive(viewer, 1) == [rtp_packet(ssrc)]
        while e.all_session_stats(0)[handles[ssrc]]["packets_sent"] == 0:
            time.sleep(0.001)  # counted after the packet has left
        everything = e.all_session_stats(0)
        assert list(everything) == handles
        assert [s["packets_sent"] for s in everything.values()] == [
            int(ssrc % 97 == 0) for ssrc in range(count)
        ]
        for handle in handles[1:]:
            e.remove_session(handle)
        assert list(e.all_session_stats(0)) == handles[:1]
        camera.sendto(rtp_packet(97), target(e.bound))
        camera.sendto(rtp_packet(0), target(e.bound))
        assert receive(viewer, 1) == [rtp_packet(0)]
    assert e.stats()["dropped_unknown_ssrc"] == 1


def test_tick_names_all_idle_sessions_in_one_call() -> None:
    e = engine(max_sessions=10_000)
    idle = [e.add_session(local(1), i, 1000) for i in range(9_000)]
    for i in range(9_000, 10_000):
        e.add_session(local(1), i, 1001)
    assert e.tick(10_000, 0) == []
    assert e.tick(1000 + 499, 500) == []
    assert e.tick(1000 + 500, 500) == idle
    assert e.tick(1000 + 500, 500) == idle  # until somebody removes them
    for handle in idle:
        e.remove_session(handle)
    assert e.tick(1000 + 500, 500) == []
    assert len(e.tick(1000 + 501, 500)) == 1_000


def test_a_session_has_a_timeout_of_its_own() -> None:
    e = engine(max_sessions=3)
    first, second, third = (e.add_session(local(1), i, 1000) for i in range(3))
    e.set_idle_timeout(second, 50)
    e.set_idle_timeout(third, 0)
    assert e.tick(1050, 0) == [second]
    assert e.tick(2**63, 500) == [first, second]
    e.set_idle_timeout(third, None)
    assert e.tick(1500, 500) == [first, second, third]
    e.remove_session(third)
    with pytest.raises(KeyError):
        e.set_idle_timeout(third, 1)


def test_control_before_run_and_after_stop(udp: Callable[..., socket.socket]) -> None:
    e, camera, viewer = engine(), udp(), udp()
    handle = add(e, camera, 1, viewer)
    camera.sendto(rtp_packet(1), target(e.bound))  # waits in the kernel
    with running_engine(e):
        assert receive(viewer, 1) == [rtp_packet(1)]
    assert e.session_stats(handle, 0)["packets_sent"] == 1
    other = add(e, camera, 2, viewer)
    e.remove_subscribers(handle, [bound_to(viewer)])
    e.remove_session(handle)
    assert list(e.all_session_stats(0)) == [other]
    assert e.stats()["packets_sent"] == 1
    e.stop()
    e.run()  # has ended: returns


def test_stop_before_run_drains_and_returns(udp: Callable[..., socket.socket]) -> None:
    e, camera, viewer = engine(), udp(), udp()
    add(e, camera, 1, viewer)
    for sequence in range(100):
        camera.sendto(rtp_packet(1, sequence), target(e.bound))
    e.stop()
    e.run()
    assert receive(viewer, 100) == [rtp_packet(1, sequence) for sequence in range(100)]


def test_one_loop_and_the_gil_is_free(udp: Callable[..., socket.socket]) -> None:
    """This thread goes on while run() is in C; a second run() is refused at once."""
    e, camera, viewer = engine(), udp(), udp()
    add(e, camera, 1, viewer)
    with running_engine(e):
        for sequence in range(50):
            camera.sendto(rtp_packet(1, sequence), target(e.bound))
            receive(viewer, 1)
        with pytest.raises(OSError, match="busy") as busy:
            e.run()
        assert busy.value.errno == errno.EBUSY


def test_control_calls_from_many_threads() -> None:
    """Each thread sees its own sessions whole, whatever the others do."""
    e = engine(max_sessions=64)
    errors: list[BaseException] = []

    def work(ssrc: int) -> None:
        try:
            for round_ in range(150):
                handle = e.add_session(local(1), ssrc, round_)
                assert e.add_subscribers(handle, records_of(local(5), local(6)), 0) == 2
                e.tick(round_, 0)
                assert e.remove_subscribers(handle, [local(5), local(9)]) == [True, False]
                assert subscribers_of(e, handle) == [local(6)]
                assert e.all_session_stats(round_)[handle]["subscribers"] == 1
                e.remove_session(handle)
        except BaseException as error:
            errors.append(error)

    with running_engine(e):
        threads = [threading.Thread(target=work, args=(ssrc,)) for ssrc in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []
    assert e.all_session_stats(0) == {}


def test_rate_and_last_packet(udp: Callable[..., socket.socket]) -> None:
    e, camera = engine(), udp()
    handle = e.add_session(bound_to(camera), 1, 1_000)
    with running_engine(e):
        for sequence in range(40):
            camera.sendto(rtp_packet(1, sequence), target(e.bound))
        eventually(
            lambda: e.session_stats(handle, 1_000)["packets_received"], lambda n: n == 40, "40"
        )
    stats = e.session_stats(handle, 1_000 + 2_000_000_000)
    assert stats["packets_per_second"] == 20.0
    assert stats["last_packet_ns"] > 1_000
