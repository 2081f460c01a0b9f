"""SDP both ways, with real programs: what they print is taken, what we print they open."""

from __future__ import annotations

import ctypes
import json
import shlex
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import background, run, run_json
from filming import FRAMES, VIDEO, Camera, clip, copied, follow_each_other, frames_of, in_band
from players import bound, ffmpeg, free_pair
from support import eventually, requires

from rtpfanout.client import SessionClient
from rtpfanout.errors import NotKnownError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FREE_PORTS = (
    "--bind-address", "127.0.0.1:0",
    "--grpc-bind-address", "127.0.0.1:0",
    "--metrics-bind-address", "127.0.0.1:0",
    "--log-format", "json",
)  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[dict[str, Any]]:
    with background("serve", "--set", "store.path=:memory:", *FREE_PORTS) as command:
        yield json.loads(command.wait_for('.*"event": "ready".*')[0])
        assert command.finish(signal.SIGTERM)[0] == 0


@pytest.fixture
def at(served: dict[str, Any]) -> dict[str, str]:
    """What commands need in their environment."""
    return {"RTP_FANOUT_SERVER": served["grpc_bind_address"]}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `clip` keeps them, for all tests here."""
    requires("ffmpeg")
    return tmp_path_factory.mktemp("clips")


def played(sdp: Path, *, streams: str = "0:v") -> list[str]:
    """The hashes of the first frames that ffmpeg shows of what it opens."""
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-protocol_whitelist", "file,udp,rtp",
         "-i", str(sdp), "-map", streams, "-fps_mode", "passthrough",
         f"-frames:{streams[-1]}", str(FRAMES), "-f", "framemd5", "-"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [line.split(",")[-1].strip() for line in lines if line and line[0] != "#"]


@pytest.mark.parametrize("encoder", VIDEO)
def test_three_commands_and_a_player_shows_it(
    served: dict[str, Any], at: dict[str, str], clips: Path, tmp_path: Path, encoder: str
) -> None:
    path, camera, name = clip(clips, encoder), Camera(served), f"three/{encoder}"
    viewer, sdp = f"127.0.0.1:{free_pair()}", tmp_path / "viewer.sdp"
    made = run("session", "create", camera.address, "--name", name, **at)
    assert made.returncode == 0, made.stderr
    with camera.films(*copied(in_band(path))):
        to = ("subscriber", "add", name, viewer, "--rtcp", "mux")
        added = run(*to, "--sdp", sdp, "--wait", 20, **at)
        assert added.returncode == 0, added.stderr
        assert "come yet" not in added.stderr
        shown = played(sdp)
    assert "a=rtcp-mux" in sdp.read_text()
    assert len(shown) == FRAMES
    assert follow_each_other(shown, frames_of(path))


@pytest.mark.parametrize(
    ("encoder", "rtpmap"),
    [
        (("libopus", "-ar", "48000", "-ac", "2"), "opus/48000/2"),
        (("pcm_mulaw", "-ar", "8000", "-ac", "1"), "PCMU/8000"),
        (("pcm_alaw", "-ar", "8000", "-ac", "1"), "PCMA/8000"),
        (("pcm_s16be", "-ar", "44100", "-ac", "2"), "L16/44100/2"),
    ],
    ids=["opus", "pcmu", "pcma", "l16"],
)
def test_sound_is_heard(
    served: dict[str, Any],
    at: dict[str, str],
    tmp_path: Path,
    encoder: tuple[str, ...],
    rtpmap: str,
) -> None:
    requires("ffmpeg")
    camera, name = Camera(served), f"sound/{encoder[0]}"
    viewer, sdp = f"127.0.0.1:{free_pair()}", tmp_path / "viewer.sdp"
    who = (camera.address, "--ssrc", camera.ssrc, "--name", name, "-m", "audio")
    assert run("session", "create", *who, **at).returncode == 0
    with camera.films("-f", "lavfi", "-i", "sine", "-c:a", *encoder):
        added = run("subscriber", "add", name, viewer, "--sdp", sdp, "--wait", 20, **at)
        assert added.returncode == 0, added.stderr
        assert f" {rtpmap}\n" in sdp.read_text().replace("\r", "")
        assert len(set(played(sdp, streams="0:a"))) > 1


def test_a_transport_stream_is_shown(
    served: dict[str, Any], at: dict[str, str], clips: Path, tmp_path: Path
) -> None:
    path, camera, name = clip(clips, "h264"), Camera(served), "mp2t"
    viewer, sdp = f"127.0.0.1:{free_pair()}", tmp_path / "viewer.sdp"
    who = (camera.address, "--ssrc", camera.ssrc, "--name", name)
    assert run("session", "create", *who, **at).returncode == 0
    with camera.films(*copied(in_band(path)), muxer="rtp_mpegts"):
        added = run("subscriber", "add", name, viewer, "--sdp", sdp, "--wait", 20, **at)
        assert added.returncode == 0, added.stderr
        assert "a=rtpmap:33 MP2T/90000" in sdp.read_text()
        assert follow_each_other(played(sdp), frames_of(path))


@pytest.mark.parametrize("encoder", ["h264", "h265"])
def test_parameter_sets_that_ffmpeg_prints_reach_the_player(
    served: dict[str, Any], at: dict[str, str], clips: Path, tmp_path: Path, encoder: str
) -> None:
    """`-c copy` sends none: without its SDP nobody could begin."""
    path, camera, name = clip(clips, encoder), Camera(served), f"printed/{encoder}"
    printed, sdp = tmp_path / "ffmpeg.sdp", tmp_path / "viewer.sdp"
    viewer = f"127.0.0.1:{free_pair()}"
    ffmpeg(
        *(*copied(path), "-frames:v", "1", "-sdp_file", str(printed)),
        *("-f", "rtp", "rtp://127.0.0.1:9"),
    ).wait(30)
    who = (camera.address, "--ssrc", camera.ssrc, "--name", name)
    made = run_json("session", "create", *who, "--sdp", printed, **at)
    assert made["encoding"]["name"] == encoder.upper()
    assert "sprop" in made["encoding"]["fmtp"]
    with camera.films(*copied(path)):
        added = run("subscriber", "add", name, viewer, "--sdp", sdp, "--wait", 20, **at)
        assert added.returncode == 0, added.stderr
        shown = played(sdp)
    assert follow_each_other(shown, frames_of(path))


def test_parameter_sets_that_came_once_are_told_to_who_comes_later(
    served: dict[str, Any], at: dict[str, str], clips: Path, tmp_path: Path
) -> None:
    path, camera, name = clip(clips, "h264"), Camera(served), "once"
    sdp, viewer = tmp_path / "viewer.sdp", f"127.0.0.1:{free_pair()}"
    who = (camera.address, "--ssrc", camera.ssrc, "--name", name)
    assert run("session", "create", *who, "--encoding", "H264", **at).returncode == 0
    with camera.films("-framerate", "25", "-i", str(sent_once(path)), "-c", "copy"):
        added = run("subscriber", "add", name, viewer, "--sdp", sdp, "--wait", 20, **at)
        assert added.returncode == 0, added.stderr
        assert "sprop-parameter-sets=" in sdp.read_text()
        shown = played(sdp)
    assert follow_each_other(shown, frames_of(path))


def sent_once(path: Path) -> Path:
    """The clip thirty times over, its parameter sets before the first picture alone."""
    annexb = ("-i", str(path), "-c", "copy", "-f", "h264", "-bsf:v")
    bare, head = path.with_suffix(".bare"), path.with_suffix(".head")
    drop, only = "filter_units=remove_types=7|8", "filter_units=pass_types=7|8"
    assert ffmpeg(*annexb, f"h264_mp4toannexb,{drop}", str(bare)).wait(60) == 0
    assert ffmpeg(*annexb, f"h264_mp4toannexb,{only}", "-frames:v", "1", str(head)).wait(60) == 0
    once = path.with_suffix(".h264")
    once.write_bytes(head.read_bytes() + 30 * bare.read_bytes())
    return once


def test_audio_and_video_of_one_name_in_one_description(
    served: dict[str, Any], at: dict[str, str], clips: Path, tmp_path: Path
) -> None:
    video, audio = Camera(served), Camera(served)
    sdp, viewer = tmp_path / "viewer.sdp", f"127.0.0.1:{free_four()}"
    for camera, media in ((video, "video"), (audio, "audio")):
        who = (camera.address, "--ssrc", camera.ssrc, "--name", f"rover/front/{media}", "-m", media)
        assert run("session", "create", *who, **at).returncode == 0
    tone = ("-f", "lavfi", "-i", "sine", "-c:a", "libopus", "-ar", "48000", "-ac", "2")
    path = clip(clips, "h264")
    with video.films(*copied(in_band(path))), audio.films(*tone):
        options = ("--all", "--sdp", sdp, "--wait", 20)
        added = run("subscriber", "add", "rover/front", viewer, *options, **at)
        assert added.returncode == 0, added.stderr
        text = sdp.read_text()
        assert text.count("m=") == 2
        assert "s=rover/front\n" in text.replace("\r", "")
        assert follow_each_other(played(sdp), frames_of(path))
        assert len(set(played(sdp, streams="0:a"))) > 1
    asked = run("sdp", "rover/front", "--for", viewer, "--all", **at)
    assert asked.stdout.count("m=") == 2
    assert run("sdp", "rover/rear", "--for", viewer, "--all", **at).returncode == 3


def free_four() -> int:
    """An even port that is free, as are the three above it."""
    while True:
        port = free_pair()
        if not any(bound(port + more) for more in (2, 3)):
            return port


def test_gstreamer_takes_it_as_it_is(
    served: dict[str, Any], at: dict[str, str], clips: Path, tmp_path: Path
) -> None:
    requires("gst-launch-1.0")
    path, camera, name = clip(clips, "h264"), Camera(served), "gst"
    port = free_pair()
    sdp, out = tmp_path / "viewer.sdp", tmp_path / "out.h264"
    who = (camera.address, "--ssrc", camera.ssrc, "--name", name)
    assert run("session", "create", *who, **at).returncode == 0
    with camera.films(*copied(in_band(path))):
        run("subscriber", "add", name, f"127.0.0.1:{port}", "--sdp", sdp, "--wait", 20, **at)
        ((told_port, caps),) = gstreamer_caps(sdp.read_bytes())
        assert told_port == port
        assert "sprop-parameter-sets" in caps
        whole = "video/x-h264,stream-format=byte-stream,alignment=au"
        pipeline = (
            f"udpsrc address=127.0.0.1 port={port} caps={caps!r} ! rtpjitterbuffer latency=100 !"
            f" rtph264depay wait-for-keyframe=true ! {whole} ! identity eos-after=40 !"
            f" filesink location={out}"
        )
        subprocess.run(["gst-launch-1.0", "-q", *shlex.split(pipeline)], timeout=120, check=True)
    shown = frames_of(out)
    assert len(shown) >= FRAMES
    assert follow_each_other(shown, frames_of(path))


def gstreamer_caps(text: bytes) -> list[tuple[int, str]]:
    """Port and caps of each media, by GStreamer's own reading, as its sdpdemux has them."""
    pointer = ctypes.c_void_p
    try:
        gst = ctypes.CDLL("libgstreamer-1.0.so.0")
        lib = ctypes.CDLL("libgstsdp-1.0.so.0")
    except OSError as error:
        pytest.skip(f"GStreamer's library for SDP is not there: {error}")
    gst.gst_init(None, None)
    gst.gst_caps_to_string.restype, gst.gst_caps_to_string.argtypes = ctypes.c_char_p, [pointer]
    lib.gst_sdp_message_get_media.restype = pointer
    lib.gst_sdp_message_get_media.argtypes = [pointer, ctypes.c_uint]
    lib.gst_sdp_media_get_caps_from_media.restype = pointer
    lib.gst_sdp_media_get_caps_from_media.argtypes = [pointer, ctypes.c_int]
    lib.gst_sdp_media_get_port.argtypes = [pointer]
    lib.gst_sdp_media_get_format.restype = ctypes.c_char_p
    lib.gst_sdp_media_get_format.argtypes = [pointer, ctypes.c_uint]
    message = pointer()
    lib.gst_sdp_message_new(ctypes.byref(message))
    assert lib.gst_sdp_message_parse_buffer(text, len(text), message) == 0
    found = []
    for index in range(lib.gst_sdp_message_medias_len(message)):
        media = lib.gst_sdp_message_get_media(message, index)
        number = int(lib.gst_sdp_media_get_format(media, 0))
        caps = lib.gst_sdp_media_get_caps_from_media(media, number)
        shown = gst.gst_caps_to_string(caps).decode()
        found.append(
            (
                lib.gst_sdp_media_get_port(media),
                shown.replace("application/x-unknown", "application/x-rtp"),
            )
        )
    return found


def test_who_has_no_parameter_sets_is_told(
    served: dict[str, Any], at: dict[str, str], clips: Path
) -> None:
    path, camera, name = clip(clips, "h264"), Camera(served), "without"
    who = (camera.address, "--ssrc", camera.ssrc, "--name", name)
    assert run("session", "create", *who, "--encoding", "H264", **at).returncode == 0
    with camera.films(*copied(path)):
        told = run("sdp", name, "--for", "127.0.0.1:5000", "--wait", 1, **at)
    assert f"{name}: no parameter sets have come yet" in told.stderr
    assert "sprop" not in told.stdout


def test_nothing_comes_and_nobody_said_what_it_is(
    served: dict[str, Any], at: dict[str, str]
) -> None:
    camera = Camera(served)
    who = (camera.address, "--ssrc", camera.ssrc, "--name", "nothing")
    assert run("session", "create", *who, **at).returncode == 0
    done = run("sdp", "nothing", "--for", "127.0.0.1:5000", "--wait", 0, **at)
    assert done.returncode == 1
    assert "error: nothing: no packet has come yet" in done.stderr
    with SessionClient(served["grpc_bind_address"]) as client:
        with pytest.raises(NotKnownError):
            client.get_subscriber_sdp("nothing", "127.0.0.1:5000")
        client.update_session("nothing", encoding={"name": "VP8", "payload_type": 97})
        answer = client.get_subscriber_sdp("nothing", "127.0.0.1:5000")
        assert "a=rtpmap:97 VP8/90000" in answer.sdp
        assert list(answer.notes) == ["nothing: no packet has come yet"]
        client.update_session("nothing", encoding={})
        assert not client.get_session("nothing").HasField("encoding")


def test_packets_that_are_of_another_type_are_told(
    served: dict[str, Any], at: dict[str, str], clips: Path
) -> None:
    camera, name = Camera(served), "other"
    who = (camera.address, "--ssrc", camera.ssrc, "--name", name)
    assert run("session", "create", *who, "--encoding", "98:VP8", **at).returncode == 0
    with (
        camera.films(*copied(clip(clips, "vp8"))),
        SessionClient(served["grpc_bind_address"]) as client,
    ):
        eventually(
            lambda: list(client.get_subscriber_sdp(name, "127.0.0.1:5000").notes),
            [f"{name}: its packets have payload type 96, and not 98 as was told"].__eq__,
            "the note",
        )
