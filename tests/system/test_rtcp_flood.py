"""RTCP of strangers, as fast as a thread sends: it costs nobody a packet, a report or an answer."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from rtcp_packets import pli, receiver_report, sender_report
from support import address_of, eventually, queued, receive, rtp_packet, send_segmented, transfer

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support import ServerProcess

SSRC = 0x11223344
A_SECOND = 200_000
BURST = 50
ROUNDS = 15
ROUND = 20_000  # what a tenth of a second brings; the server's queue holds three of them
VIEWERS = 10
PACKETS = 10


def last_reported(server: ServerProcess, session: str, viewers: list[socket.socket]) -> list[int]:
    """What each has said last that it lost."""
    page = server.stub.ListSubscribers(pb.ListSubscribersRequest(session_id=session))
    lost = {one.subscriber_address: one.report.lost for one in page.subscribers}
    return [lost[address_of(viewer)] for viewer in viewers]


@pytest.mark.slow("floods 300,000 datagrams, 200,000 a second at most")
def test_a_flood_of_strangers_costs_nobody_anything(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    """They speak of the session's SSRC and of others, from one address and from many; and one has
    the address of a viewer that has none of its own to say."""
    source, other_source, other_viewer, silent = udp(), udp(), udp(), udp()
    strangers = [udp(f"127.8.{n}.5") for n in range(8)]
    with ExitStack() as stack:
        viewers = [stack.enter_context(udp()) for _ in range(VIEWERS)]
        session = server.create(address_of(source), SSRC)
        server.stub.BatchAddSubscribers(
            pb.BatchAddSubscribersRequest(
                session_id=session,
                subscriber_addresses=[address_of(viewer) for viewer in (*viewers, silent)],
                rtcp="mux",
                subscriber_class="pilot",
            )
        )
        server.create(address_of(other_source), SSRC + 1, address_of(other_viewer))
        source.sendto(rtp_packet(SSRC, 0, timestamp=0), server.ingest_target)
        for viewer in (*viewers, silent):
            receive(viewer, 1)
        junk = [pli(9, SSRC), receiver_report(9, SSRC, fraction=255), pli(9, 5), b"\x80\xc9\0\1ab"]
        begin = time.monotonic()
        sent = 0

        def flood(number: int) -> None:
            nonlocal sent
            for burst in range(ROUND // BURST // 2):
                who = silent if burst % 8 == 7 else strangers[(number + burst) % len(strangers)]
                send_segmented(who, [junk[burst % len(junk)]] * BURST, server.ingest_target)
                sent += BURST
                time.sleep(max(0, begin + sent / A_SECOND - time.monotonic()))

        before = server.metrics()["process_resident_memory_bytes"]
        for number in range(ROUNDS):
            flood(number)
            for viewer in viewers:
                viewer.sendto(receiver_report(7, SSRC, lost=number + 1), server.ingest_target)
            flood(number)
            packets = [rtp_packet(SSRC + 1, number * PACKETS + n) for n in range(PACKETS)]
            moved = transfer(other_source, server.ingest_target, packets, [other_viewer])
            assert moved == [packets], "other sessions lose nothing"
            server.settled()  # so nothing is queued any more when the next begins
        # What is left of a bucket of theirs is nothing, and a request is one to the source.
        flood(0)
        viewers[0].sendto(pli(7, SSRC), server.ingest_target)
        source.sendto(rtp_packet(SSRC, 1, timestamp=3000), server.ingest_target)
        took = time.monotonic() - begin
        told = server.settled()
        assert server.stats(session).feedback.receiver_reports >= ROUNDS * VIEWERS
        assert last_reported(server, session, viewers) == [ROUNDS] * VIEWERS
        assert server.stats(session).feedback.keyframe_requests_sent >= 1
        assert told['rtpfanout_rtcp_dropped_total{reason="rate"}'] > sent / 2
        assert told["rtpfanout_kernel_receive_drops_total"] == 0
        grown = told["process_resident_memory_bytes"] - before
        print(f"\n{sent:,} datagrams, {sent / took:,.0f}/s, {grown / 1024:,.0f} KiB more memory")
        assert grown < 16 << 20
        assert all(queued(stranger) == [] for stranger in strangers), "none is answered"


def test_sources_that_are_not_told_beforehand_are_heard_beside_strangers(
    server: ServerProcess, udp: Callable[..., socket.socket]
) -> None:
    """Whose packets come is expected to send reports, though a whole network might."""
    source, viewer, stranger = udp("127.7.0.9"), udp(), udp("127.8.0.5")
    session = server.stub.CreateSession(
        pb.CreateSessionRequest(
            source_address="127.7.0.0/16", source_policy="cidr", ssrc=SSRC, media_type="video"
        )
    )
    server.stub.AddSubscriber(
        pb.AddSubscriberRequest(
            session_id=session.session_id, subscriber_address=address_of(viewer), rtcp="mux"
        )
    )
    for number in range(3):
        packet = rtp_packet(SSRC, number, timestamp=3000 * number)
        assert transfer(source, server.ingest_target, [packet], [viewer]) == [[packet]]
    for _ in range(100):
        send_segmented(stranger, [pli(9, SSRC)] * BURST, server.ingest_target)
    source.sendto(sender_report(SSRC, 6000), server.ingest_target)
    eventually(
        lambda: server.stats(session.session_id).feedback.sender_reports,
        lambda reports: reports == 1,
        "the report is taken",
    )
