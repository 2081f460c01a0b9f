"""Sessions that take other SSRCs than one fixed one: restarts, strangers, who knocks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from fastpath.engines import bound_to, engine, local, running, subscribe
from support import eventually, queued, receive, rtp_packet, target

from rtpfanout._fastpath import READINGS, SSRC_POLICIES

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine

    Udp = Callable[[], socket.socket]

OLD, NEW = 0x01010101, 0x02020202
FRAME = 14


def session(e: Engine, source: socket.socket, policy: str, *, any_port: bool = False) -> int:
    address = local(0) if any_port else bound_to(source)
    return e.add_session(address, 0, time.monotonic_ns(), ssrc_policy=policy)


def frame(ssrc: int, first: int, count: int = FRAME) -> list[bytes]:
    return [rtp_packet(ssrc, first + i, bytes(1100)) for i in range(count)]


def play(e: Engine, source: socket.socket, packets: list[bytes]) -> None:
    for packet in packets:
        source.sendto(packet, target(e.bound))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_restart_from_another_port_loses_nothing(udp: Udp, workers: int) -> None:
    """Each start is from a port of its own, which the kernel may steer to the other worker."""
    viewer = udp()
    with running(workers=workers) as e:
        handle = session(e, viewer, "follow", any_port=True)
        subscribe(e, handle, viewer)
        for start in range(8):
            ssrc, camera, sent = OLD + start, udp(), []
            begin = sent_at = time.monotonic()
            while sent_at < begin + 0.3:  # beyond the silence of the last
                sent_at = time.monotonic()
                packets = frame(ssrc, len(sent))
                play(e, camera, packets)
                sent += packets
                time.sleep(0.02)
            assert receive(viewer, len(sent)) == sent
            assert [s[0] for s in e.session_ssrcs(handle)] == [ssrc]
        stats = e.session_stats(handle, time.monotonic_ns())
        assert stats["dropped_probation"] == 0


def test_strangers_with_the_old_and_with_a_new_ssrc(udp: Udp) -> None:
    camera, stranger, viewer = udp(), udp(), udp()
    with running() as e:
        handle = session(e, camera, "follow")
        subscribe(e, handle, viewer)
        play(e, camera, frame(OLD, 0))
        assert receive(viewer, FRAME) == frame(OLD, 0)
        time.sleep(0.3)
        play(e, stranger, frame(OLD, FRAME) + frame(NEW, 0))
        eventually(e.stats, lambda s: s["dropped_unknown_ssrc"] == 2 * FRAME, "the strangers")
        play(e, camera, frame(OLD, FRAME))
        assert receive(viewer, FRAME) == frame(OLD, FRAME)
        assert queued(viewer) == []
        knocks = {k[1]: k for k in e.knocks()}
        assert sorted(knocks) == [OLD, NEW]
        source, _, _, reason, handle_of, packets, first, last, _ = knocks[NEW]
        assert (source, reason, packets) == (bound_to(stranger), "unknown_ssrc", FRAME)
        assert handle_of == 0
        assert first <= last <= time.monotonic_ns()


def test_what_waits_in_vain_is_dropped(udp: Udp) -> None:
    """Within a second, and though no other packet comes."""
    camera, viewer = udp(), udp()
    with running() as e:
        handle = session(e, camera, "follow")
        subscribe(e, handle, viewer)
        play(e, camera, frame(OLD, 0) + frame(NEW, 0, 4))
        assert receive(viewer, FRAME) == frame(OLD, 0)
        eventually(e.stats, lambda s: s["dropped_probation"] == 4, "what waited")
        assert e.session_stats(handle, time.monotonic_ns())["dropped_probation"] == 4
        assert queued(viewer) == []


def test_several_ssrcs_at_once(udp: Udp) -> None:
    camera, viewer = udp(), udp()
    with running() as e:
        handle = session(e, camera, "any")
        subscribe(e, handle, viewer)
        packets = frame(OLD, 0) + frame(NEW, 0) + frame(OLD, FRAME)
        play(e, camera, packets)
        assert receive(viewer, len(packets)) == packets
        assert {s[0] for s in e.session_ssrcs(handle)} == {OLD, NEW}
        kinds = {notice[:2] for notice in e.notices()}
        assert kinds == {("ssrc", handle)}


def test_another_ssrc_and_policy(udp: Udp) -> None:
    camera, viewer = udp(), udp()
    with running() as e:
        handle = e.add_session(bound_to(camera), OLD, time.monotonic_ns())
        subscribe(e, handle, viewer)
        play(e, camera, frame(OLD, 0))
        receive(viewer, FRAME)
        e.move_session(handle, bound_to(camera), ssrc=NEW)
        play(e, camera, frame(OLD, FRAME) + frame(NEW, 0))
        assert receive(viewer, FRAME) == frame(NEW, 0)
        e.move_session(handle, bound_to(camera), ssrc=0, ssrc_policy="any")
        play(e, camera, frame(OLD, 0) + frame(NEW, FRAME))
        assert receive(viewer, 2 * FRAME) == frame(OLD, 0) + frame(NEW, FRAME)
        with pytest.raises(FileExistsError):
            e.add_session(bound_to(camera), 9, time.monotonic_ns(), ssrc_policy="follow")
        exact = e.add_session(bound_to(camera), NEW, time.monotonic_ns())
        with pytest.raises(FileExistsError):
            e.move_session(handle, bound_to(camera), ssrc=NEW)
        e.remove_session(exact)
        stats = e.session_stats(handle, time.monotonic_ns())
        assert stats["packets_received"] == 4 * FRAME


def test_policies_of_many(udp: Udp) -> None:
    e = engine()
    camera = bound_to(udp())
    policies = bytes([SSRC_POLICIES["exact"], SSRC_POLICIES["follow"], SSRC_POLICIES["any"]])
    handles = e.add_sessions(camera.record * 3, b"\xff" * 3, [7, 7, 7], 1, policies)
    assert None not in handles[:2]
    assert handles[2] is None, "two of any SSRC have the same source"
    with pytest.raises(ValueError, match="2 policies for 3 sources"):
        e.add_sessions(camera.record * 3, b"\xff" * 3, [7, 7, 7], 1, policies[:2])
    with pytest.raises(KeyError):
        e.add_session(camera, 8, 1, ssrc_policy="some")


def test_the_last_wrong_source(udp: Udp) -> None:
    camera, other, viewer = udp(), udp(), udp()
    with running() as e:
        handle = e.add_session(bound_to(camera), OLD, time.monotonic_ns())
        subscribe(e, handle, viewer)
        assert e.wrong_source(handle) is None
        play(e, other, frame(OLD, 0))
        eventually(lambda: e.wrong_source(handle), bool, "a wrong source")
        assert e.wrong_source(handle) == bound_to(other)
        with pytest.raises(KeyError):
            e.wrong_source(handle + 1)
        e.read_session(handle, READINGS["no_rtcp"])
        packet = rtp_packet(OLD, 1, payload_type=72, marker=True)
        play(e, camera, [packet])
        assert receive(viewer, 1) == [packet]
