"""RIST (TR-06-1) at both ends, by GStreamer: its receiver's reports and requests reach us."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from support import eventually, requires, udp_socket

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import ServerProcess

SINK = """videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=30/1
 ! x264enc tune=zerolatency key-int-max=30 bitrate=500 ! mpegtsmux ! rtpmp2tpay
 ! ristsink address=127.0.0.1 port={port}"""
SOURCE = "ristsrc address=127.0.0.1 port={port} ! rtpmp2tdepay ! filesink location={file}"


def even_port() -> int:
    """RIST has RTP at an even one, and RTCP behind it."""
    while True:
        with udp_socket() as sock:
            port = int(sock.getsockname()[1])
        if port % 2 == 0:
            return port


@pytest.mark.slow("GStreamer encodes and reports for several seconds")
def test_a_receiver_of_rist_reports(
    start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    requires("gst-launch-1.0")
    gst = shutil.which("gst-launch-1.0")
    assert gst
    server = start_server(bind_address=f"127.0.0.1:{even_port()}")
    viewer, file = even_port(), tmp_path / "got.ts"
    session = server.stub.CreateSession(
        pb.CreateSessionRequest(
            source_address="127.0.0.1", source_policy="ip", ssrc_policy="any", media_type="video"
        )
    ).session_id
    server.stub.AddSubscriber(
        pb.AddSubscriberRequest(
            session_id=session, subscriber_address=f"127.0.0.1:{viewer}", rtcp="next_port"
        )
    )
    with ExitStack() as stack:
        for pipeline in (
            SOURCE.format(port=viewer, file=file),
            SINK.format(port=server.ingest_target[1]),
        ):
            process = stack.enter_context(
                subprocess.Popen([gst, "-q", *pipeline.split()], stderr=subprocess.DEVNULL)
            )
            stack.callback(process.kill)
        (report,) = eventually(
            lambda: [
                one.report
                for one in server.stub.ListSubscribers(
                    pb.ListSubscribersRequest(session_id=session)
                ).subscribers
                if one.report.HasField("round_trip_seconds")
            ],
            bool,
            "a report with a round trip",
        )
        assert report.round_trip_seconds < 5
        feedback = server.stats(session).feedback
        assert feedback.sender_reports > 0
        assert feedback.copies_rtcp > 0
        assert feedback.reports_sent > 0, "the sender is reported to, as well"
        eventually(lambda: file.stat().st_size, lambda size: size > 10_000, "a picture")
