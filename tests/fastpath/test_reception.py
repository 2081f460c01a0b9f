"""How sessions are received, from real encoders and beside GStreamer's own count."""

from __future__ import annotations

import itertools
import json
import struct
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fastpath.engines import add, bound_to, engine, local, running
from harmed_captures import CLOCK, Harm, capture
from support import eventually, requires, rtp_packet, target, udp_socket

from rtpfanout._fastpath import CONDITIONS, ENCODINGS, RECEPTION_FIELDS, Engine

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable

SSRC = 0x5EED
FRAMES, GOP = 90, 30
VIDEO = ("-f", "lavfi", "-i", f"testsrc2=size=320x240:rate=30:duration={FRAMES // 30}")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=2")


def reception(e: Engine, handle: int) -> dict[str, Any]:
    return e.session_reception(handle, time.monotonic_ns())


def from_anywhere(e: Engine, ssrc: int = SSRC) -> int:
    """A session that any process of this host may feed."""
    return e.add_session(local(0), ssrc, time.monotonic_ns(), prefix=8)


def settled(e: Engine, handle: int) -> dict[str, Any]:
    """When nothing more comes."""
    counts = [0, 0]

    def look() -> list[int]:
        time.sleep(0.2)
        counts.append(reception(e, handle)["received"])
        return counts[-2:]

    eventually(look, lambda seen: 0 < seen[0] == seen[1], "packets came, and came no more")
    return reception(e, handle)


def run(*command: str) -> str:
    return subprocess.run(
        command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    ).stdout


def frames_of(clip: Path) -> tuple[int, int]:
    """How many ffprobe finds, and how many of them are keyframes."""
    shown = run(
        *("ffprobe", "-v", "error", "-select_streams", "v", "-show_packets"),
        *("-of", "json", str(clip)),
    )
    packets = json.loads(shown)["packets"]
    return len(packets), sum("K" in packet["flags"] for packet in packets)


def quick_of(encodings: Iterable[str], quick: str) -> list[Any]:
    """One of them; the others are left out of a quick run."""
    slow = pytest.mark.slow("encodes, and sends for three seconds as a camera does")
    return [pytest.param(name, marks=() if name == quick else slow) for name in encodings]


ENCODERS = {
    "H264": ("mp4", "-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", str(GOP)),
    "H265": ("mp4", "-c:v", "libx265", "-preset", "ultrafast", "-x265-params", f"keyint={GOP}"),
    "VP8": ("webm", "-c:v", "libvpx", "-deadline", "realtime", "-g", str(GOP)),
    "VP9": (
        "webm",
        "-c:v",
        "libvpx-vp9",
        "-deadline",
        "realtime",
        "-cpu-used",
        "8",
        "-g",
        str(GOP),
    ),
    "JPEG": ("avi", "-c:v", "mjpeg", "-huffman", "default", "-pix_fmt", "yuvj420p"),
}


@pytest.mark.parametrize("encoding", quick_of(ENCODERS, "H264"))
def test_frames_of_ffmpeg_are_those_of_ffprobe(encoding: str, tmp_path: Path) -> None:
    """Nothing is told of the payloads: what they are is found out."""
    requires("ffmpeg", "ffprobe")
    kind, *encoder = ENCODERS[encoding]
    clip = tmp_path / f"clip.{kind}"
    pixels = [] if encoding == "JPEG" else ["-pix_fmt", "yuv420p"]
    run("ffmpeg", "-v", "error", *VIDEO, *encoder, *pixels, str(clip))
    frames, keyframes = frames_of(clip)
    with running() as e:
        handle = from_anywhere(e)
        bitstream = {"H264": "h264_mp4toannexb", "H265": "hevc_mp4toannexb"}.get(encoding)
        run(
            *("ffmpeg", "-v", "error", "-re", "-i", str(clip), "-c", "copy", "-strict", "-2"),
            *(("-bsf:v", bitstream) if bitstream else ()),
            *("-ssrc", str(SSRC), "-f", "rtp", f"rtp://127.0.0.1:{e.bound.port}?pkt_size=1200"),
        )
        found = settled(e, handle)
        sets = e.parameter_sets(handle)
    assert (found["frames"], found["keyframes"]) == (frames, keyframes)
    assert found["encoding"] == encoding
    assert found["encoding_from"] == ("static" if encoding == "JPEG" else "sniffed")
    assert found["encoding_sureness"] >= 95
    assert found["clock_rate"] == 90_000
    assert found["lost"] == found["timestamp_jumps"] == found["restarts"] == 0
    assert found["jitter_ns"] is not None
    assert len(sets) == {"H264": 2, "H265": 3}.get(encoding, 0)


def test_sound_of_ffmpeg() -> None:
    requires("ffmpeg")
    with running() as e:
        handle = from_anywhere(e)
        to = f"rtp://127.0.0.1:{e.bound.port}"
        run(
            *("ffmpeg", "-v", "error", "-re", *SOUND, "-ac", "2", "-c:a", "libopus"),
            *("-ssrc", str(SSRC), "-f", "rtp", to),
        )
        found = settled(e, handle)
    assert found["encoding"] == "OPUS"
    assert found["clock_rate"] == 48_000
    assert found["frames"] == found["received"]
    assert found["keyframes"] is None


def test_a_transport_stream_has_no_frames_to_tell() -> None:
    requires("ffmpeg")
    with running() as e:
        handle = from_anywhere(e)
        run(
            *("ffmpeg", "-v", "error", "-re", *VIDEO, "-t", "1", "-c:v", "mpeg2video"),
            *("-rtp_muxer_options", f"ssrc={SSRC}", "-f", "rtp_mpegts"),
            f"rtp://127.0.0.1:{e.bound.port}",
        )
        found = settled(e, handle)
    assert (found["encoding"], found["payload_type"]) == ("MP2T", 33)
    assert found["frames"] is None
    assert found["frame_rate"] is None


PIPELINES = {
    "H264": ("x264enc", f"key-int-max={GOP}", "tune=zerolatency", "!", "rtph264pay"),
    "H265": ("x265enc", f"key-int-max={GOP}", "tune=zerolatency", "!", "rtph265pay"),
    "VP8": ("vp8enc", f"keyframe-max-dist={GOP}", "deadline=1", "!", "rtpvp8pay"),
    "VP9": ("vp9enc", f"keyframe-max-dist={GOP}", "deadline=1", "cpu-used=8", "!", "rtpvp9pay"),
    "JPEG": ("jpegenc", "!", "rtpjpegpay"),
}


@pytest.mark.parametrize("encoding", quick_of(PIPELINES, "H265"))
def test_frames_of_gstreamer(encoding: str) -> None:
    requires("gst-launch-1.0")
    with running() as e:
        handle = from_anywhere(e)
        run(
            *("gst-launch-1.0", "-q", "videotestsrc", f"num-buffers={FRAMES}", "is-live=true", "!"),
            *("video/x-raw,width=320,height=240,framerate=30/1,format=I420", "!"),
            *(*PIPELINES[encoding], f"ssrc={SSRC}", "!", "udpsink", "host=127.0.0.1"),
            *(f"port={e.bound.port}", "sync=false"),
        )
        found = settled(e, handle)
        sets = e.parameter_sets(handle)
    expected = (FRAMES, FRAMES if encoding == "JPEG" else FRAMES // GOP)
    assert (found["frames"], found["keyframes"]) == expected
    assert found["encoding"] == encoding
    assert found["lost"] == 0
    assert len(sets) == {"H264": 2, "H265": 3}.get(encoding, 0)


def reports(sock: socket.socket) -> dict[int, tuple[int, int]]:
    """Of the next RR (RFC 3550 6.4.2), by SSRC: packets lost, highest sequence number."""
    found = {}
    data = sock.recv(2048)
    while len(data) >= 4:
        count, kind, words = data[0] & 31, data[1], struct.unpack("!H", data[2:4])[0]
        for block in range(count if kind == 201 else 0):
            at = 8 + 24 * block
            ssrc, lost, highest = struct.unpack("!III", data[at : at + 12])
            lost &= 0xFFFFFF
            found[ssrc] = (lost - (1 << 24) if lost >> 23 else lost, highest)
        data = data[4 * (words + 1) :]
    return found


HARMS = [Harm(), Harm(3), Harm(0, 2), Harm(0, 0, 3), Harm(3, 2, 3)]


@pytest.mark.slow("GStreamer reports after some seconds of packets")
def test_loss_as_gstreamer_reports_it() -> None:
    """Twenty captures at once, in order of arrival, to an engine and to an rtpsession."""
    requires("gst-launch-1.0")
    sent = {
        ssrc: capture(ssrc, HARMS[ssrc % len(HARMS)], kind=96, frames=90) for ssrc in range(1, 21)
    }
    with running() as e, udp_socket() as from_, udp_socket() as answers, udp_socket() as spare:
        port = spare.getsockname()[1]
        spare.close()
        handles = {ssrc: add(e, from_, ssrc) for ssrc in sent}
        receiver = subprocess.Popen(
            [
                *("gst-launch-1.0", "-q", "rtpsession", "name=s", "probation=0"),
                *("bandwidth=100000000", "rtcp-min-interval=100000000"),
                *("udpsrc", f"port={port}", "address=127.0.0.1"),
                f"caps=application/x-rtp,media=video,clock-rate={CLOCK},payload=96",
                *("!", "s.recv_rtp_sink", "s.recv_rtp_src", "!", "fakesink", "sync=false"),
                *("s.send_rtcp_src", "!", "udpsink", "host=127.0.0.1", "sync=false"),
                *("async=false", f"port={answers.getsockname()[1]}"),
            ],
            stdin=subprocess.DEVNULL,
        )
        try:
            eventually(lambda: bound(port), bool, "GStreamer listens")
            began = time.monotonic_ns()
            for arrival in sorted(itertools.chain(*sent.values()), key=lambda a: a.at_ns):
                wait = arrival.at_ns - 10**9 - (time.monotonic_ns() - began)
                time.sleep(max(0, wait) / 1e9)
                from_.sendto(arrival.packet, target(e.bound))
                from_.sendto(arrival.packet, ("127.0.0.1", port))
            ours = {ssrc: settled(e, handle) for ssrc, handle in handles.items()}
            theirs: dict[int, tuple[int, int]] = {}
            answers.settimeout(20)
            while len(theirs) < len(sent):
                for ssrc, (lost, highest) in reports(answers).items():
                    if highest & 0xFFFF == ours[ssrc]["highest_sequence"] & 0xFFFF:
                        theirs[ssrc] = (lost, highest)
        finally:
            receiver.terminate()
            receiver.wait(10)
    for ssrc, (lost, _) in theirs.items():
        # one off at the most: GStreamer's first packets are counted otherwise
        assert abs(lost - ours[ssrc]["cumulative_lost"]) <= 1, (ssrc, lost, ours[ssrc])
        assert ours[ssrc]["received"] == len(sent[ssrc])


def bound(port: int) -> bool:
    """Whether some socket has the UDP port of IPv4, from /proc/net (proc(5))."""
    return f":{port:04X} " in Path("/proc/net/udp").read_text()


def test_what_is_told_by_name() -> None:
    e = engine()
    handle = e.add_session(local(4000), 1, 0)
    found = e.session_reception(handle, 10**9)
    assert found.keys() > RECEPTION_FIELDS.keys()
    assert found["condition"] == "never_fed"
    assert found["condition"] in CONDITIONS
    assert found["ssrc"] is found["payload_type"] is found["clock_rate"] is None
    assert found["encoding"] == found["encoding_from"] == ""
    assert e.all_session_receptions(10**9) == {handle: found}
    assert e.parameter_sets(handle) == []
    assert "H264" in ENCODINGS
    assert "" not in ENCODINGS


def test_what_is_told_of_payloads() -> None:
    e = engine()
    handle = e.add_session(local(4000), 1, 0)
    e.set_media(handle, "VP8", payload_type=96, clock_rate=90_000)
    found = e.session_reception(handle, 10**9)
    assert (found["clock_rate"], found["clock_from"]) == (90_000, "given")
    with pytest.raises(ValueError, match="'VP7' is none of H264"):
        e.set_media(handle, "VP7")
    with pytest.raises(ValueError, match="payload type 128"):
        e.set_media(handle, "VP8", payload_type=128)
    with pytest.raises(KeyError):
        e.set_media(handle + 1, "VP8")
    with pytest.raises(KeyError):
        e.session_reception(handle + 1, 0)
    with pytest.raises(KeyError):
        e.parameter_sets(handle + 1)


def test_conditions_change_once() -> None:
    lately = 10**9
    with running() as e, udp_socket() as camera:
        handle = add(e, camera, SSRC)
        assert e.conditions(time.monotonic_ns(), lately) == []
        camera.sendto(rtp_packet(SSRC, 1, b"x"), target(e.bound))
        eventually(lambda: reception(e, handle)["received"], lambda n: n == 1, "it came")
        now = e.session_stats(handle, 0)["last_packet_ns"] + 1
        assert e.conditions(int(now), lately) == [(handle, "flowing", True, 0)]
        assert e.conditions(int(now), lately) == []
        assert e.conditions(int(now) + 5 * 10**9, lately) == [(handle, "silent", False, 0)]
        assert e.session_reception(handle, int(now))["condition"] == "silent"


def test_several_ssrcs_at_once_are_not_taken_for_restarts() -> None:
    """The first is followed; of the others it is known that they came."""
    with running() as e, udp_socket() as camera:
        handle = e.add_session(bound_to(camera), 0, time.monotonic_ns(), ssrc_policy="any")
        for i in range(50):
            for ssrc in (7, 8):
                camera.sendto(rtp_packet(ssrc, 1000 * ssrc + i, b"x"), target(e.bound))
        eventually(
            lambda: e.session_stats(handle, 0)["packets_received"], lambda n: n == 100, "all came"
        )
        found = reception(e, handle)
    assert (found["ssrc"], found["received"], found["out_of_sequence"]) == (7, 50, 50)
    assert found["lost"] == found["restarts"] == 0


def test_a_source_that_restarts_is_followed() -> None:
    with running() as e, udp_socket() as camera:
        handle = e.add_session(bound_to(camera), 7, time.monotonic_ns(), ssrc_policy="follow")
        for i in range(50):
            camera.sendto(rtp_packet(7, i, b"x"), target(e.bound))
        time.sleep(0.3)
        for i in range(20):
            camera.sendto(rtp_packet(8, 9000 + i, b"x"), target(e.bound))
        eventually(lambda: reception(e, handle)["received"], lambda n: n == 70, "all came")
        found = reception(e, handle)
        looks = [e.conditions(time.monotonic_ns(), 10**12) for _ in range(2)]
    assert looks == [[(handle, "flowing", True, 1)], []]
    assert (found["ssrc"], found["restarts"], found["lost"]) == (8, 1, 0)
    assert found["expected"] == 70
    assert found["out_of_sequence"] == 0


@pytest.mark.slow("sends for five seconds as a camera does")
def test_a_copy_without_parameter_sets_is_said(tmp_path: Path) -> None:
    """As ffmpeg sends from a file whose header has them: a viewer without that sees nothing."""
    requires("ffmpeg")
    clip = tmp_path / "clip.mp4"
    _, *encoder = ENCODERS["H264"]
    run("ffmpeg", "-v", "error", *VIDEO, *encoder, "-pix_fmt", "yuv420p", str(clip))
    told: list[str] = []
    with running() as e:
        handle = from_anywhere(e)
        to = f"rtp://127.0.0.1:{e.bound.port}?pkt_size=1200"
        sender = subprocess.Popen(
            [
                *("ffmpeg", "-v", "error", "-re", "-stream_loop", "1", "-i", str(clip)),
                *("-c", "copy", "-ssrc", str(SSRC), "-f", "rtp", to),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

        def look() -> list[str]:
            time.sleep(0.2)
            told.extend(condition for _, condition, *_ in e.conditions(time.monotonic_ns(), 10**9))
            return told

        try:
            eventually(look, lambda seen: "no_parameter_sets" in seen, "it is said")
        finally:
            sender.terminate()
            sender.wait(10)
        assert e.parameter_sets(handle) == []
    assert told == ["flowing", "no_parameter_sets"]
