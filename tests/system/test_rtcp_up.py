"""What a session's source is told by RTCP beside reports and requests for keyframes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtcp_packets import (
    PSFB,
    RR,
    RTPFB,
    bitrate_of,
    nacked,
    parts,
    receiver_report,
    remb,
    sender_report,
)
from support import address_of, eventually, receive, rtp_packet

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from rtcp_packets import Part
    from support import ServerProcess

    MakeSocket = Callable[..., socket.socket]

SSRC = 0x11223344


def of_kind(datagrams: list[bytes], kind: int, count: int) -> list[Part]:
    return [
        part
        for datagram in datagrams
        for part in parts(datagram)
        if (part.kind, part.count) == (kind, count)
    ]


def test_a_source_is_asked_for_what_is_missing(server: ServerProcess, udp: MakeSocket) -> None:
    """Once; what it sends again comes to the subscriber, and nothing is asked for any more."""
    source, viewer = udp(), udp()
    session = server.create(address_of(source), SSRC, address_of(viewer))
    numbers = [1, 2, 5, 6, 7, 9, 10, 11, 12]
    for number in numbers:  # nobody has said that it shall be asked
        source.sendto(rtp_packet(SSRC, number, timestamp=1), server.ingest_target)
    assert len(receive(viewer, len(numbers))) == len(numbers)
    server.stub.UpdateSession(pb.UpdateSessionRequest(session_id=session, repair_source=True))
    source.sendto(sender_report(SSRC, 1), server.ingest_target)  # it is answered where it speaks
    for number in numbers:
        source.sendto(rtp_packet(SSRC, 100 + number, timestamp=3000), server.ingest_target)
    receive(viewer, len(numbers))
    asked: list[int] = []
    while len(asked) < 3:
        asked += [n for part in of_kind(receive(source, 1), RTPFB, 1) for n in nacked(part)]
    assert asked == [103, 104, 108]
    repairs = [rtp_packet(SSRC, number, timestamp=3000) for number in asked]
    for packet in repairs:
        source.sendto(packet, server.ingest_target)
        assert receive(viewer, 1) == [packet]
    feedback = server.stats(session).feedback
    assert feedback.packets_repaired == 3
    before = feedback.packets_asked
    source.sendto(rtp_packet(SSRC, 113, timestamp=3000), server.ingest_target)
    receive(viewer, 1)
    assert server.stats(session).feedback.packets_asked == before


def test_what_a_class_reports_is_told_to_the_source(server: ServerProcess, udp: MakeSocket) -> None:
    source = udp()
    classes = ("pilot", "monitor", "monitor")
    viewers = [udp() for _ in classes]
    created = server.stub.CreateSession(
        pb.CreateSessionRequest(
            source_address=address_of(source), ssrc=SSRC, media_type="video", report_class="monitor"
        )
    )
    assert created.report_class == "monitor"
    session = created.session_id
    said = zip(viewers, classes, (200, 64, 32), (100_000, 3_000_000, 2_000_000), strict=True)
    for viewer, kind in zip(viewers, classes, strict=True):
        server.stub.AddSubscriber(
            pb.AddSubscriberRequest(
                session_id=session,
                subscriber_address=address_of(viewer),
                rtcp="mux",
                subscriber_class=kind,
            )
        )
    source.sendto(rtp_packet(SSRC, 1, timestamp=1), server.ingest_target)
    for viewer, _kind, fraction, bitrate in said:
        receive(viewer, 1)
        report = receiver_report(7, SSRC, fraction=fraction) + remb(7, SSRC, bitrate)
        viewer.sendto(report, server.ingest_target)
    eventually(
        lambda: server.stats(session).feedback.receiver_reports,
        lambda reports: reports == 3,
        "what all three report",
    )
    source.sendto(sender_report(SSRC, 1), server.ingest_target)
    ours = receive(source, 1)
    (report,) = of_kind(ours, RR, 1)
    assert report.body[8] == 64, "the worse of the two"
    (bitrate,) = of_kind(ours, PSFB, 15)
    assert 1_999_000 < bitrate_of(bitrate) <= 2_000_000, "the lesser of the two"
    assert server.stats(session).feedback.bitrates_sent == 1
