"""Control calls: what they return, what they raise, and when they may be made."""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

import pytest
from fastpath.engines import add, bound_to, engine, local
from support import eventually, receive, rtp_packet, running_engine, target

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


def test_what_the_socket_is() -> None:
    e = engine(receive_queue_packets=64)
    assert str(e.bound.ip) == "127.0.0.1"
    assert e.bound.port > 0
    assert (e.sends_ipv4, e.sends_ipv6) == (True, False)
    assert e.receive_buffer_bytes == 2 * e.requested_receive_buffer_bytes
    assert e.send_buffer_bytes > 0


def test_session_errors() -> None:
    e = engine(max_sessions=2)
    e.add_session(local(1), 7, 0)
    with pytest.raises(FileExistsError) as clash:
        e.add_session(local(1), 7, 0)
    assert clash.value.errno == errno.EEXIST
    handle = e.add_session(local(2), 7, 0)  # the same SSRC from another source is another one
    with pytest.raises(BlockingIOError) as full:
        e.add_session(local(3), 7, 0)
    assert full.value.errno == errno.EAGAIN
    e.remove_session(handle)
    for call in (e.remove_session, e.subscribers, lambda h: e.session_stats(h, 0)):
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
    assert e.add_subscribers(handle, []) == []
    with pytest.raises(BlockingIOError):
        e.add_subscribers(handle, [local(port) for port in (10, 11, 12)])
    with pytest.raises(OSError, match="not supported") as family:
        e.add_subscribers(handle, [local(10), IPV6])
    assert family.value.errno == errno.EAFNOSUPPORT
    with pytest.raises(AttributeError):
        e.add_subscribers(handle, [local(10), "127.0.0.1:11"])  # type: ignore[list-item]
    assert e.subscribers(handle) == []
    assert e.add_subscribers(handle, [local(10), local(11), local(10)]) == [True, True, False]
    for call in (e.add_subscribers, e.subscribers, e.remove_subscriber):
        arguments = {
            e.add_subscribers: ([local(10)],),
            e.subscribers: (),
            e.remove_subscriber: (local(10),),
        }[call]
        with pytest.raises(KeyError):
            call(UNKNOWN, *arguments)
    for stranger in (local(12), IPV6):
        with pytest.raises(KeyError):
            e.remove_subscriber(handle, stranger)
    assert e.subscribers(handle) == [local(10), local(11)]


def test_addresses_come_back_as_they_went(ipv6: None) -> None:  # noqa: ARG001
    e = engine("[::]:0")
    handle = e.add_session(local(1), 7, 0)
    addresses = [
        Address.parse(text)
        for text in ("192.0.2.1:1", "[2001:db8::1]:65535", "[fe80::1%1]:9", "[fe80::1%2]:9")
    ]
    assert e.add_subscribers(handle, addresses) == [True] * 4
    assert e.subscribers(handle) == addresses
    assert e.add_subscribers(handle, [Address.parse("[::ffff:192.0.2.1]:1")]) == [False]


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


def test_tick_names_idle_sessions_a_batch_at_a_time() -> None:
    e = engine(max_sessions=1000)
    handles = {e.add_session(local(1), i, 1000) for i in range(300)}
    assert e.tick(10_000, 0) == []
    assert e.tick(1000 + 499, 500) == []
    some = e.tick(1000 + 500, 500)
    assert len(some) == 256
    for handle in some:
        e.remove_session(handle)
    assert set(some) | set(e.tick(1000 + 500, 500)) == handles


def test_control_before_run_and_after_stop(udp: Callable[..., socket.socket]) -> None:
    e, camera, viewer = engine(), udp(), udp()
    handle = add(e, camera, 1, viewer)
    camera.sendto(rtp_packet(1), target(e.bound))  # waits in the kernel
    with running_engine(e):
        assert receive(viewer, 1) == [rtp_packet(1)]
    assert e.session_stats(handle, 0)["packets_sent"] == 1
    other = add(e, camera, 2, viewer)
    e.remove_subscriber(handle, bound_to(viewer))
    e.remove_session(handle)
    assert list(e.all_session_stats(0)) == [other]
    assert e.stats()["packets_sent"] == 1
    e.stop()
    e.run()  # was stopped: drains what is queued and returns


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
                assert e.add_subscribers(handle, [local(5), local(6)]) == [True, True]
                e.tick(round_, 0)
                e.remove_subscriber(handle, local(5))
                assert e.subscribers(handle) == [local(6)]
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
