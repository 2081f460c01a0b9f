"""Real programs open `rtsp://HOST/NAME`, by UDP and over the connection, and show each picture."""

from __future__ import annotations

import importlib.util
import json
import shlex
import signal
import subprocess
import sys
from itertools import count
from typing import TYPE_CHECKING

import pytest
from cli_support import background, run
from filming import FRAMES, Camera, clip, copied, follow_each_other, frames_of, in_band
from rtsp_client import RtspClient
from rtsp_scene import Scene, scene_of
from support import requires, unmet

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = count(1)
SECONDS = 120

OPENCV = """
import sys, hashlib, cv2
cv2.setNumThreads(1)
video = cv2.VideoCapture(sys.argv[1], cv2.CAP_FFMPEG)
assert video.isOpened()
for _ in range(int(sys.argv[2])):
    there, picture = video.read()
    assert there
    print(hashlib.md5(picture.tobytes()).hexdigest(), flush=True)
"""


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with scene_of() as scene:
        yield scene


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    requires("ffmpeg")
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def camera(scene: Scene) -> Camera:
    return Camera({"bind_address": str(scene.server.ingest)})


def named(scene: Scene, camera: Camera, *, media_type: str = "video", below: str = "") -> str:
    """A session of that camera; its name without what is below."""
    name = f"rover-{next(NAMES)}/front"
    request = pb.CreateSessionRequest(
        source_address=camera.address, ssrc=camera.ssrc, media_type=media_type, name=name + below
    )
    scene.server.stub.CreateSession(request)
    return name


def await_keyframes(scene: Scene, name: str) -> None:
    """Until a player that begins now is told all it needs."""
    request = pb.GetSubscriberSdpRequest(
        session_id=name, subscriber_address="127.0.0.1:9", wait_secs=30
    )
    assert not scene.server.stub.GetSubscriberSdp(request).notes


def ffmpeg_shows(url: str, over: str, *, streams: str = "0:v") -> list[str]:
    """The hashes of the first frames."""
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", "-rtsp_transport", over, "-i", url,
         "-map", streams, "-fps_mode", "passthrough", f"-frames:{streams[-1]}", str(FRAMES),
         "-f", "framemd5", "-"],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [line.split(",")[-1].strip() for line in lines if line and line[0] != "#"]


def gone(scene: Scene, name: str) -> None:
    """No player is left, and each said that it went."""
    scene.await_subscribers(name, 0)


@pytest.mark.parametrize(
    ("encoder", "over"),
    [("h264", "udp"), ("h264", "tcp"), ("h265", "tcp"), ("vp8", "udp"), ("mjpeg", "tcp")],
)
def test_ffmpeg(scene: Scene, camera: Camera, clips: Path, encoder: str, over: str) -> None:
    path, name = clip(clips, encoder), named(scene, camera)
    with camera.films(*copied(in_band(path))):
        await_keyframes(scene, name)
        shown = ffmpeg_shows(f"rtsp://{scene.door}/{name}", over)
        gone(scene, name)
    assert len(shown) == FRAMES
    assert follow_each_other(shown, frames_of(path))


def test_three_commands(clips: Path) -> None:
    """Nothing is known of the camera beforehand."""
    free = ("--bind-address", "127.0.0.1:0", "--grpc-bind-address", "127.0.0.1:0")
    keys = ("--set", "store.path=:memory:", "--set", "rtsp_bind_address=127.0.0.1:0")
    quiet = ("--metrics-bind-address", "127.0.0.1:0", "--log-format", "json")
    with background("serve", *keys, *free, *quiet) as command:
        ready = json.loads(command.wait_for('.*"event": "ready".*')[0])
        at = {"RTP_FANOUT_SERVER": ready["grpc_bind_address"]}
        made = run("session", "create", "any", "--name", "rover-7/front", **at)
        assert made.returncode == 0, made.stderr
        path = clip(clips, "h264")
        with Camera(ready).films(*copied(in_band(path))):
            # However slowly the camera starts here; a player waits five seconds.
            run("sdp", "rover-7/front", "--for", "127.0.0.1:9", "--wait", 60, **at)
            url = f"rtsp://{ready['rtsp_bind_address']}/rover-7/front"
            shown = ffmpeg_shows(url, "udp")
        assert follow_each_other(shown, frames_of(path))
        assert command.finish(signal.SIGTERM)[0] == 0


def test_sound_and_picture_of_one_name(scene: Scene, camera: Camera, clips: Path) -> None:
    path, name = clip(clips, "h264"), named(scene, camera, below="/video")
    sound = Camera({"bind_address": str(scene.server.ingest)})
    request = pb.CreateSessionRequest(
        source_address=sound.address, ssrc=sound.ssrc, media_type="audio", name=f"{name}/audio"
    )
    scene.server.stub.CreateSession(request)
    tone = ("-f", "lavfi", "-i", "sine", "-c:a", "libopus", "-ar", "48000", "-ac", "2")
    with camera.films(*copied(in_band(path))), sound.films(*tone):
        await_keyframes(scene, f"{name}/video")
        await_keyframes(scene, f"{name}/audio")
        url = f"rtsp://{scene.door}/{name}"
        assert follow_each_other(ffmpeg_shows(url, "tcp"), frames_of(path))
        assert len(set(ffmpeg_shows(url, "udp", streams="0:a"))) > 1


@pytest.mark.parametrize("protocols", ["udp", "tcp"])
def test_gstreamer(
    scene: Scene, camera: Camera, clips: Path, tmp_path: Path, protocols: str
) -> None:
    requires("gst-launch-1.0")
    path, name, out = clip(clips, "h264"), named(scene, camera), tmp_path / "shown.h264"
    whole = "video/x-h264,stream-format=byte-stream,alignment=au"
    pipeline = (
        f"rtspsrc location=rtsp://{scene.door}/{name} protocols={protocols} latency=100 !"
        f" rtph264depay wait-for-keyframe=true ! {whole} ! identity eos-after=40 !"
        f" filesink location={out}"
    )
    with camera.films(*copied(in_band(path))):
        await_keyframes(scene, name)
        command = ["gst-launch-1.0", "-q", *shlex.split(pipeline)]
        subprocess.run(command, timeout=SECONDS, check=True)
        gone(scene, name)
    shown = frames_of(out)
    assert len(shown) >= FRAMES
    assert follow_each_other(shown, frames_of(path))


def test_opencv(scene: Scene, camera: Camera, clips: Path) -> None:
    """It asks for packets over the connection by itself."""
    if importlib.util.find_spec("cv2") is None:
        unmet("needs OpenCV")
    path, name = clip(clips, "h264"), named(scene, camera)
    program = [sys.executable, "-c", OPENCV]
    with camera.films(*copied(in_band(path))):
        await_keyframes(scene, name)
        url = f"rtsp://{scene.door}/{name}"
        done = subprocess.run(
            [*program, url, str(FRAMES)], capture_output=True, text=True, timeout=SECONDS,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert scene.value('rtpfanout_rtsp_playing{over="udp"}') == 0
        gone(scene, name)
    # The same decoder on the file: what it makes of a frame is its own affair.
    alone = subprocess.run(
        [*program, str(path), "50"], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert follow_each_other(done.stdout.split(), alone.stdout.split())


def test_players_come_and_go_beside_others(scene: Scene, camera: Camera, clips: Path) -> None:
    path, name = clip(clips, "h264"), named(scene, camera)
    url = f"rtsp://{scene.door}/{name}"
    with camera.films(*copied(in_band(path))):
        await_keyframes(scene, name)
        others = [RtspClient(scene.door) for _ in range(10)]
        for index, other in enumerate(others):
            other.set_up(name, "RTP/AVP/TCP;interleaved=0-1")
            other.ask("PLAY", name)
            if index % 2:
                other.close()
        shown = ffmpeg_shows(url, "udp")
        assert follow_each_other(shown, frames_of(path))
        for other in others:
            other.close()
        gone(scene, name)


def test_a_name_that_is_not_there_is_told_by_the_player(scene: Scene) -> None:
    requires("ffmpeg")
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-i", f"rtsp://{scene.door}/rover-0", "-f", "null", "-"],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert "DESCRIBE failed: 404 no session has the name 'rover-0'" in done.stderr
