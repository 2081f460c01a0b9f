"""RTCP through the whole server: GStreamer at both ends, tshark beside it, crowds that ask."""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from rtcp_packets import PSFB, SDES, SR, bye, cname, parts, pli, receiver_report, sender_report
from support import address_of, eventually, queued, receive, requires, rtp_packet, udp_socket

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import ServerProcess

    MakeSocket = Callable[..., socket.socket]

SSRC = 0x11223344


def pair() -> tuple[socket.socket, socket.socket]:
    """Sockets on a port and the next."""
    while True:
        first, second = udp_socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            second.bind(("127.0.0.1", first.getsockname()[1] + 1))
        except OSError:
            first.close()
            second.close()
        else:
            return first, second


def subscribe(server: ServerProcess, session: str, address: str, **terms: Any) -> None:
    request = pb.AddSubscriberRequest(session_id=session, subscriber_address=address, **terms)
    server.stub.AddSubscriber(request)


def rtcp_target(server: ServerProcess) -> tuple[str, int]:
    host, port = server.ingest_target
    return host, port + 1


def only_subscriber(server: ServerProcess, session: str) -> Any:
    page = server.stub.ListSubscribers(pb.ListSubscribersRequest(session_id=session))
    (subscriber,) = page.subscribers
    return subscriber


def test_what_we_write_is_well_formed(
    server: ServerProcess, udp: MakeSocket, tmp_path: Path
) -> None:
    """tshark takes each apart, and finds nothing malformed."""
    requires("tshark")
    source, viewer = udp(), udp()
    session = server.create(address_of(source), SSRC)
    subscribe(server, session, address_of(viewer), rtcp="mux", subscriber_class="pilot")
    server.stub.UpdateSession(pb.UpdateSessionRequest(session_id=session, keyframe_request="both"))
    written = []
    for number in (1, 2):
        packet = rtp_packet(SSRC, number, timestamp=3000 * number)
        source.sendto(packet, server.ingest_target)
        assert receive(viewer, 1) == [packet]
    source.sendto(sender_report(SSRC, 6000) + cname(SSRC, "r7") + bye(SSRC), server.ingest_target)
    written += receive(viewer, 1)
    written += receive(source, 1)
    viewer.sendto(receiver_report(5, SSRC) + pli(5, SSRC), rtcp_target(server))
    written += receive(source, 1)
    server.delete(session)
    written += receive(viewer, 1)

    capture = tmp_path / "rtcp.pcap"
    with capture.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
        for datagram in written:
            udp_part = struct.pack("!HHHH", 5005, 5005, 8 + len(datagram), 0) + datagram
            total = 20 + len(udp_part)
            ip = struct.pack("!BBHHHBBHII", 0x45, 0, total, 0, 0, 64, 17, 0, 0x7F000001, 0x7F000001)
            file.write(struct.pack("<IIII", 0, 0, total, total) + ip + udp_part)
    told = subprocess.run(
        ["tshark", "-r", str(capture), "-d", "udp.port==5005,rtcp", "-V"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert "Malformed" not in told
    for kind in (
        "Sender Report", "Receiver Report", "Source description", "Goodbye",
        "Picture Loss Indication", "Full Intra Request",
    ):  # fmt: skip
        assert kind in told, told
    assert told.count("CNAME (user and domain)") == len(written)


def test_a_thousand_requests_are_one(server: ServerProcess, udp: MakeSocket) -> None:
    source = udp()
    with ExitStack() as stack:
        viewers = [stack.enter_context(udp_socket(receive_buffer=1 << 14)) for _ in range(1000)]
        session = server.create(address_of(source), SSRC)
        server.stub.BatchAddSubscribers(
            pb.BatchAddSubscribersRequest(
                session_id=session,
                subscriber_addresses=[address_of(viewer) for viewer in viewers],
                rtcp="mux",
            )
        )
        source.sendto(rtp_packet(SSRC, 1, timestamp=1), server.ingest_target)
        for viewer in viewers:
            receive(viewer, 1)
        source.sendto(sender_report(SSRC, 1), server.ingest_target)
        receive(source, 1)  # it reports, so it is reported to
        for viewer in viewers:
            viewer.sendto(pli(7, SSRC), server.ingest_target)
        server.settled(received=1002)
        asked = [
            part
            for datagram in queued(source)
            for part in parts(datagram)
            if (part.kind, part.count) == (PSFB, 1)
        ]
        feedback = server.stats(session).feedback
        taken = server.metrics()['rtpfanout_rtcp_taken_total{kind="keyframe_request"}']
        assert feedback.keyframe_requests == taken
        assert feedback.reporters == 1000
        assert len(asked) == feedback.keyframe_requests_sent == 1


def test_the_reports_of_several_ssrcs_come_together(server: ServerProcess, udp: MakeSocket) -> None:
    """Sound and picture of one source, in one session: its reports leave it back to back."""
    source, viewer = udp(), udp()
    session = server.stub.CreateSession(
        pb.CreateSessionRequest(
            source_address=address_of(source), ssrc_policy="any", media_type="video"
        )
    ).session_id
    subscribe(server, session, address_of(viewer), rtcp="mux")
    ssrcs = (SSRC, SSRC + 5)
    for ssrc in ssrcs:
        source.sendto(rtp_packet(ssrc, 1, timestamp=1), server.ingest_target)
    receive(viewer, 2)
    sent = [sender_report(ssrc, 1) + cname(ssrc, "cam@r7") for ssrc in (*ssrcs, SSRC + 9)]
    for report in sent:
        source.sendto(report, server.ingest_target)
    came: set[bytes] = set()
    while len(came) < 4:
        (datagram,) = receive(viewer, 1)
        if datagram[1] in {SR, SDES}:  # else it is a packet
            came |= {part.body for part in parts(datagram)}
        source.sendto(rtp_packet(SSRC, 2, timestamp=1), server.ingest_target)
    told = {part.body for report in sent[:2] for part in parts(report)}
    assert came == told
    metrics = server.metrics()
    assert metrics['rtpfanout_rtcp_dropped_total{reason="implausible"}'] == 1, "nothing comes of it"


def test_strangers_change_nothing_and_hear_nothing(server: ServerProcess, udp: MakeSocket) -> None:
    """Forged reports and requests; and those of a subscriber without RTCP."""
    source, viewer, silent, stranger = udp(), udp(), udp(), udp("127.0.0.2")
    session = server.create(address_of(source), SSRC, address_of(silent))
    subscribe(server, session, address_of(viewer), rtcp="mux")
    source.sendto(rtp_packet(SSRC, 1, timestamp=1), server.ingest_target)
    receive(viewer, 1)
    receive(silent, 1)
    for who in (stranger, silent):
        for to in (server.ingest_target, rtcp_target(server)):
            who.sendto(receiver_report(9, SSRC, fraction=255), to)
            who.sendto(pli(9, SSRC), to)
    stranger.sendto(sender_report(SSRC, 1), server.ingest_target)
    stranger.sendto(bye(SSRC), rtcp_target(server))
    stranger.sendto(b"\x80\xc9", rtcp_target(server))
    viewer.sendto(sender_report(SSRC + 1, 1), server.ingest_target)
    metrics = server.settled(received=1 + 8 + 4)
    assert metrics.total("rtpfanout_rtcp_taken_total") == 0
    assert metrics['rtpfanout_rtcp_dropped_total{reason="unknown_sender"}'] == 10
    assert metrics['rtpfanout_rtcp_dropped_total{reason="wrong_ssrc"}'] == 1
    assert metrics["rtpfanout_rtcp_sent_total"] == 0
    assert not only_if_report(server, session)
    for sock in (source, viewer, silent, stranger):
        assert queued(sock) == []


def only_if_report(server: ServerProcess, session: str) -> list[Any]:
    page = server.stub.ListSubscribers(pb.ListSubscribersRequest(session_id=session))
    return [subscriber for subscriber in page.subscribers if subscriber.HasField("report")]


class Relay:
    """Carries datagrams from socket to socket, and loses every tenth of some."""

    def __init__(self) -> None:
        self._routes: dict[socket.socket, tuple[socket.socket, tuple[str, int], bool]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def carry(
        self,
        taken_by: socket.socket,
        sent_by: socket.socket,
        to: tuple[str, int],
        *,
        loses: bool = False,
    ) -> None:
        self._routes = {**self._routes, taken_by: (sent_by, to, loses)}

    @property
    def sockets(self) -> list[socket.socket]:
        """All of them."""
        return [*self._routes, *(sent_by for sent_by, _to, _loses in self._routes.values())]

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        count = 0
        while not self._ended.is_set():
            for taken_by in select.select(list(self._routes), [], [], 0.1)[0]:
                datagram = taken_by.recv(65536)
                sent_by, to, loses = self._routes[taken_by]
                count += loses
                if not (loses and count % 10 == 0):
                    sent_by.sendto(datagram, to)


@pytest.fixture
def gst(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Starts a pipeline; the file of what its rtpsession says."""
    requires("gst-launch-1.0")
    running = []

    def start(name: str, pipeline: str, *numbers: int) -> Path:
        log = tmp_path / f"{name}.log"
        told = {"GST_DEBUG": "rtpsource:6,rtpsession:6", "GST_DEBUG_NO_COLOR": "1"}
        gst = shutil.which("gst-launch-1.0")
        assert gst
        running.append(
            subprocess.Popen(
                [gst, "-q", *(pipeline % numbers).split()],
                env=os.environ | told | {"GST_DEBUG_FILE": str(log)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return log

    yield start
    for process in running:
        process.kill()
        process.wait()


def said(log: Path, pattern: str) -> list[Any]:
    return re.findall(pattern, log.read_text(errors="replace") if log.exists() else "")


SINK = """rtpbin name=rb udpsrc address=127.0.0.1 port=%d
 caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=H264,payload=96
 ! rb.recv_rtp_sink_0 rb. ! rtph264depay ! fakesink sync=false
 udpsrc address=127.0.0.1 port=%d ! rb.recv_rtcp_sink_0
 rb.send_rtcp_src_0 ! udpsink host=127.0.0.1 port=%d sync=false async=false"""
SOURCE = """rtpbin name=rb rtp-profile=avpf videotestsrc is-live=true
 ! video/x-raw,width=320,height=240,framerate=30/1
 ! x264enc tune=zerolatency key-int-max=3000 bitrate=500
 ! rtph264pay ssrc=%d config-interval=-1 ! rb.send_rtp_sink_0
 rb.send_rtp_src_0 ! udpsink host=127.0.0.1 port=%d
 rb.send_rtcp_src_0 ! udpsink host=127.0.0.1 port=%d sync=false async=false
 udpsrc address=127.0.0.1 port=%d ! rb.recv_rtcp_sink_0"""


@contextmanager
def both_ends(server: ServerProcess, gst: Callable[..., Path]) -> Iterator[tuple[str, Path, Path]]:
    """A session, and what its source and its sink say. Each link loses a tenth of the packets."""
    with ExitStack() as stack, Relay() as relay:
        # What GStreamer sends comes here; where it listens, it shares its ports with nobody.
        from_source, from_source_rtcp = pair()
        source, source_rtcp = pair()
        viewer, viewer_rtcp = pair()
        from_sink = udp_socket()
        ports = [udp_socket() for _ in range(3)]
        source_in, sink_in, sink_rtcp_in = (sock.getsockname()[1] for sock in ports)
        for sock in ports:
            sock.close()
        relay.carry(from_source, source, server.ingest_target, loses=True)
        relay.carry(from_source_rtcp, source_rtcp, rtcp_target(server))
        relay.carry(source_rtcp, from_source_rtcp, ("127.0.0.1", source_in))
        relay.carry(viewer, from_sink, ("127.0.0.1", sink_in), loses=True)
        relay.carry(viewer_rtcp, from_sink, ("127.0.0.1", sink_rtcp_in))
        relay.carry(from_sink, viewer_rtcp, rtcp_target(server))
        for sock in relay.sockets:
            stack.callback(sock.close)
        session = server.create(address_of(source), SSRC)
        subscribe(server, session, address_of(viewer), rtcp="next_port", subscriber_class="pilot")
        sink_log = gst("sink", SINK, sink_in, sink_rtcp_in, from_sink.getsockname()[1])
        to = (sock.getsockname()[1] for sock in (from_source, from_source_rtcp))
        yield session, gst("source", SOURCE, SSRC, *to, source_in), sink_log


@pytest.mark.slow("GStreamer encodes and reports for several seconds")
def test_gstreamer_at_both_ends(server: ServerProcess, gst: Callable[..., Path]) -> None:
    """Sender reports to the bit at the sink; loss and round trip at the source and in the list; a
    keyframe on request."""
    sr = r"got SR packet: SSRC 11223344, NTP (\w+:\w+), RTP (\d+)"
    with both_ends(server, gst) as (session, source_log, sink_log):
        eventually(lambda: said(sink_log, sr), bool, "a sender report at the sink")
        assert set(said(sink_log, sr)) <= set(said(source_log, sr))

        # Our reports at the source: the loss before us, and a round trip.
        block = r"got RB packet: SSRC \w+, FL +(\w+), PL (\d+)"
        eventually(
            lambda: [int(of_256, 16) for of_256, lost in said(source_log, block) if int(lost) > 0],
            lambda losses: any(10 < loss < 60 for loss in losses),
            "a report of ours with a loss of about a tenth",
        )
        trips = said(source_log, r"NTP \w+:\w+, round trip (\w+):\w+")
        assert trips
        assert set(trips) == {"0000"}  # seconds

        # Those of the sink in the list: the loss behind us.
        report = eventually(
            lambda: only_subscriber(server, session).report,
            lambda r: r.lost > 0 and r.HasField("round_trip_seconds"),
            "a report with loss and a round trip",
        )
        assert 0 < report.fraction_lost < 0.6  # that before us is in it
        assert 0 <= report.round_trip_seconds < 5

        before = server.stats(session).reception.keyframes
        server.stub.RequestKeyframe(pb.RequestKeyframeRequest(session_id=session))
        eventually(
            lambda: server.stats(session).reception.keyframes,
            lambda keyframes: keyframes > before,
            "a keyframe on request",
        )
