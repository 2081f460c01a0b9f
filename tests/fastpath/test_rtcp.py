"""RTCP through the engine: sender reports down, reports and requests up, and nothing unasked."""

from __future__ import annotations

import errno
import os
import time
from typing import TYPE_CHECKING

import pytest
from fastpath.engines import add, bound_to, engine, local, records_of, running
from rtcp_packets import BYE, PSFB, RR, SDES, bye, cname, parts, pli, receiver_report, sender_report
from support import eventually, queued, receive, rtp_packet, target

from rtpfanout._fastpath import CLASSES, FEEDBACK_FIELDS, KEYFRAME_FORMATS, RTCP

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine

    MakeSocket = Callable[..., socket.socket]

SSRC = 0x11223344
OFF, MUX, NEXT_PORT = RTCP.values()


def feed(e: Engine, source: socket.socket, sequence: int, *subscribers: socket.socket) -> None:
    packet = rtp_packet(SSRC, sequence, timestamp=3000 * sequence)
    source.sendto(packet, target(e.bound))
    for subscriber in subscribers:
        assert receive(subscriber, 1) == [packet]


def taken(e: Engine, name: str, count: int = 1) -> None:
    eventually(lambda: e.stats()[f"rtcp_{name}"], lambda n: n == count, f"{count} {name}")


def test_a_sender_report_goes_to_who_asked(udp: MakeSocket) -> None:
    source, asked, silent = udp(), udp(), udp()
    with running() as e:
        handle = add(e, source, SSRC, asked, silent)
        assert e.find_rtcp(handle, records_of(bound_to(asked), local(9))) == [OFF, OFF]
        e.set_rtcp(handle, records_of(bound_to(asked)), MUX)
        assert e.find_rtcp(handle, records_of(bound_to(asked), local(9))) == [MUX, OFF]
        feed(e, source, 1, asked, silent)
        report = sender_report(SSRC, 3000) + cname(SSRC, "rover-7")
        source.sendto(report + bye(SSRC), target(e.bound))
        assert receive(asked, 1) == [report]
        taken(e, "taken_sender_report")
        feed(e, source, 2, asked, silent)
        assert queued(silent) == []
        feedback = e.feedback(handle)
        assert (feedback["sender_reports"], feedback["copies_rtcp"], feedback["reporters"]) == (
            1, 1, 1,
        )  # fmt: skip
        assert time.monotonic_ns() - feedback["sender_report_ns"] < 60e9
        assert e.all_feedback() == {handle: feedback}
        e.remove_session(handle)
        (farewell,) = receive(asked, 1)
        assert [part.kind for part in parts(farewell)] == [RR, SDES, BYE]
        assert queued(silent) == []


def test_many_requests_become_one(udp: MakeSocket) -> None:
    source = udp()
    viewers = [udp() for _ in range(40)]
    with running() as e:
        handle = add(e, source, SSRC, *viewers)
        records = records_of(*map(bound_to, viewers))
        e.set_rtcp(handle, records, MUX)
        feed(e, source, 1, *viewers)
        source.sendto(sender_report(SSRC, 3000), target(e.bound))
        (reported,) = receive(source, 1)  # who reports is reported to
        assert [(part.kind, part.count) for part in parts(reported)] == [(RR, 1), (SDES, 1)]
        for viewer in viewers:
            receive(viewer, 1)
            viewer.sendto(receiver_report(5, SSRC) + pli(5, SSRC), target(e.bound))
        taken(e, "taken_keyframe_request", len(viewers))
        (asked,) = receive(source, 1)
        assert [part.kind for part in parts(asked)] == [RR, SDES, PSFB]
        assert queued(source) == []
        assert e.feedback(handle)["keyframe_requests"] == len(viewers)
        assert e.feedback(handle)["keyframe_requests_sent"] == 1


def test_what_a_subscriber_reports_is_listed(udp: MakeSocket) -> None:
    source, viewer, other = udp(), udp(), udp()
    with running() as e:
        handle = add(e, source, SSRC, viewer, other)
        e.set_rtcp(handle, records_of(bound_to(viewer)), MUX)
        feed(e, source, 1, viewer, other)
        rows = e.subscribers(handle, 0, 10)
        assert [row[7] for row in rows] == [(MUX, 0, 0.0, 0, -1.0, -1.0), None]
        source.sendto(sender_report(SSRC, 3000, 0x1234_5678 << 16), target(e.bound))
        receive(viewer, 1)
        report = receiver_report(5, SSRC, fraction=64, lost=-3, lsr=0x1234_5678, dlsr=0)
        viewer.sendto(report, target(e.bound))
        taken(e, "taken_receiver_report")
        rtcp, at_ns, fraction, lost, jitter, round_trip = e.subscribers(handle, 0, 1)[0][7] or ()
        assert (rtcp, fraction, lost) == (MUX, 0.25, -3)
        assert time.monotonic_ns() - at_ns < 60e9
        assert jitter == pytest.approx(-1) or jitter == pytest.approx(0.001)
        assert 0 <= round_trip < 10


def test_calls_that_are_wrong() -> None:
    e = engine()
    handle = e.add_session(local(1), SSRC, 0)
    network = e.add_session(local(1), SSRC + 1, 0, prefix=8)
    with pytest.raises(OSError, match=os.strerror(errno.EHOSTUNREACH)):
        e.request_keyframe(network)
    for call in (
        lambda h: e.set_rtcp(h, local(9).record, MUX),
        lambda h: e.find_rtcp(h, local(9).record),
        lambda h: e.set_keyframe_format(h, KEYFRAME_FORMATS["fir"]),
        lambda h: e.set_report_class(h, None),
        lambda h: e.repair_source(h, True),
        e.request_keyframe,
        e.feedback,
    ):
        with pytest.raises(KeyError):
            call(handle + 100)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        e.set_keyframe_format(handle, 4)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        e.set_report_class(handle, 4)
    e.set_rtcp(handle, local(9).record, MUX)  # nobody is a subscriber
    assert e.find_rtcp(handle, local(9).record) == [OFF]
    assert set(e.feedback(handle)) == {*FEEDBACK_FIELDS, "sender_report_ns", "reporters"}
    assert e.all_feedback() == {}


def test_rows_of_a_store_have_it() -> None:
    e = engine()
    handle = e.add_session(local(1), SSRC, 0)
    monitor = CLASSES["monitor"]
    rows = [
        (7, 0, 0, monitor, 10, local(9).record, OFF),
        (7, 0, 0, monitor, 11, local(11).record, MUX),
        (7, 0, 0, monitor, 12, local(13).record, NEXT_PORT),
    ]
    assert e.add_subscriber_rows({7: handle}, rows, 0) == ([(7, 3, 12)], [])
    records = records_of(local(9), local(11), local(13))
    assert e.find_rtcp(handle, records) == [OFF, MUX, NEXT_PORT]
