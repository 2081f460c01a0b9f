"""Senders as their manuals start them, and a player that opens a file: two commands of ours.

Nothing is tuned: SSRC and port are random, keyframes come when the encoder likes, and GStreamer's
H.265 tells its parameter sets once. A player can't open what is not yet described, and would
wait for the next keyframe; so between it and the server is what keeps the packets until then.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import pytest
from cli_support import run
from players import bound, ffmpeg, free_pair
from support import eventually, requires, udp_socket, unmet

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import ServerProcess

NAME = "rover-7/front"
FRAMES = 20
PATIENCE = 240
pytestmark = [pytest.mark.lent_servers, pytest.mark.timeout(3 * PATIENCE)]
SLOW = pytest.mark.slow("waits for an encoder that takes its time, twice")

FFMPEG = "ffmpeg -nostdin -loglevel error -re -f lavfi -i"
FFMPEG_VIDEO = {
    "H264": "testsrc2 -c:v libx264",
    "H265": "testsrc2 -c:v libx265",
    "VP8": "testsrc2 -c:v libvpx",
    "JPEG": "testsrc2 -c:v mjpeg -huffman default",
}
GSTREAMER = "gst-launch-1.0 -q"
GSTREAMER_VIDEO = {
    "H264": "videotestsrc is-live=true ! x264enc tune=zerolatency ! rtph264pay",
    "H265": "videotestsrc is-live=true ! x265enc tune=zerolatency ! rtph265pay",
    "VP8": "videotestsrc is-live=true ! vp8enc deadline=1 ! rtpvp8pay",
    "JPEG": "videotestsrc is-live=true ! jpegenc ! rtpjpegpay",
}


@contextmanager
def running(command: str) -> Iterator[None]:
    """Beside what follows; it must not have ended by itself."""
    process = subprocess.Popen(
        shlex.split(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ours(server: ServerProcess, *arguments: object) -> str:
    done = run(*arguments, RTP_FANOUT_SERVER=str(server.grpc))
    assert done.returncode == 0, done.stderr
    return done.stdout


class Tape:
    """Takes what comes to a port from the start, and plays it to another one."""

    def __init__(self) -> None:
        self._socket = udp_socket()
        self._socket.settimeout(None)
        self.port = self._socket.getsockname()[1]
        self._came: SimpleQueue[bytes | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._record)]
        self._threads[0].start()

    def _record(self) -> None:
        while packet := self._socket.recv(65536):
            self._came.put(packet)
        self._came.put(None)

    def play_to(self, port: int) -> None:
        """From the first packet on, and no faster than a player takes them."""

        def play() -> None:
            with udp_socket() as out:
                while packet := self._came.get():
                    out.sendto(packet, ("127.0.0.1", port))
                    time.sleep(0.0005)

        self._threads.append(threading.Thread(target=play))
        self._threads[-1].start()

    def close(self) -> None:
        with udp_socket() as out:
            out.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join()
        self._socket.close()


@pytest.fixture
def tape() -> Iterator[Tape]:
    tape = Tape()
    yield tape
    tape.close()


@pytest.fixture
def played(server: ServerProcess, tmp_path: Path, tape: Tape) -> Callable[..., list[str]]:
    """What a player gives of a sender, by way of the server: a hash of each frame."""

    def described() -> str:
        # Without --wait, which is for busy machines, it gives the sender five seconds.
        to = f"127.0.0.1:{tape.port}"
        return ours(server, "subscriber", "add", NAME, to, "--sdp", "-", "--wait", 60)

    def play(command: str, *wanted: str) -> list[str]:
        sdp, port = tmp_path / "stream.sdp", free_pair()
        ours(server, "session", "create", "any", "--name", NAME)
        with ThreadPoolExecutor(1) as beside:
            text = beside.submit(described)
            eventually(
                lambda: server.stub.GetSession(pb.GetSessionRequest(session_id=NAME)),
                lambda session: session.subscriber_count == 1,
                "the subscriber",
            )
            with running(command.format(ip=server.ingest.ip, port=server.ingest.port)):
                sdp.write_text(text.result().replace(f" {tape.port} ", f" {port} "))
                player = ffmpeg(
                    *("-protocol_whitelist", "file,udp,rtp", "-i", str(sdp)),
                    *(*wanted, "-f", "framemd5", "-"),
                    stdout=subprocess.PIPE,
                    text=True,
                )
                try:
                    eventually(lambda: bound(port), bool, "the player")
                    tape.play_to(port)
                    return hashes(player.communicate(timeout=PATIENCE)[0])
                finally:
                    player.kill()
                    player.wait()

    return play


def hashes(framemd5: str) -> list[str]:
    lines = [line for line in framemd5.splitlines() if not line.startswith("#")]
    return [line.split(",")[-1].strip() for line in lines]


def as_encoded(source: str, directory: Path) -> list[str]:
    """The frames of the same encoder's first seconds, as they are decoded from a file."""
    path = directory / "encoded.mkv"
    encode = shlex.split(f"-f lavfi -i {source} -frames:v 100")
    assert ffmpeg(*encode, str(path)).wait(PATIENCE) == 0
    decoder = ffmpeg("-i", str(path), "-f", "framemd5", "-", stdout=subprocess.PIPE, text=True)
    return hashes(decoder.communicate(timeout=PATIENCE)[0])


def requires_elements(pipeline: str) -> None:
    """Of GStreamer, which has its encoders in packages of their own."""
    requires("gst-launch-1.0", "gst-inspect-1.0")
    for element in (part.split()[0] for part in pipeline.split("!")):
        found = subprocess.run(["gst-inspect-1.0", "--exists", element], check=False)
        if found.returncode != 0:
            unmet(f"needs GStreamer's {element}")


@pytest.mark.parametrize(
    "codec",
    [pytest.param(codec, marks=[SLOW] if codec == "VP8" else []) for codec in FFMPEG_VIDEO],
)
def test_each_picture_of_ffmpeg_is_as_it_was_encoded(
    codec: str, played: Callable[..., list[str]], tmp_path: Path
) -> None:
    """From the first one on."""
    requires("ffmpeg")
    source = FFMPEG_VIDEO[codec]
    sender = f"{FFMPEG} {source} -f rtp rtp://{{ip}}:{{port}}"
    # Else the player leaves out pictures whose time it has to guess.
    each = ("-fps_mode", "passthrough", "-frames:v", str(FRAMES))
    assert played(sender, *each) == as_encoded(source, tmp_path)[:FRAMES]


@pytest.mark.parametrize("codec", GSTREAMER_VIDEO)
def test_a_picture_of_gstreamer_is_seen(codec: str, played: Callable[..., list[str]]) -> None:
    pipeline = GSTREAMER_VIDEO[codec]
    requires("ffmpeg")
    requires_elements(pipeline)
    sender = f"{GSTREAMER} {pipeline} ! udpsink host={{ip}} port={{port}}"
    got = played(sender, "-frames:v", str(FRAMES))
    assert len(set(got)) == FRAMES, "there is snow in the picture"


@pytest.mark.parametrize(
    "sender",
    [
        f"{FFMPEG} sine -c:a libopus -f rtp rtp://{{ip}}:{{port}}",
        f"{GSTREAMER} audiotestsrc is-live=true ! opusenc ! rtpopuspay "
        "! udpsink host={ip} port={port}",
    ],
    ids=["ffmpeg", "gstreamer"],
)
def test_a_tone_is_heard(sender: str, played: Callable[..., list[str]]) -> None:
    requires(sender.split()[0], "ffmpeg")
    assert len(set(played(sender, "-frames:a", "50"))) > 20


@pytest.fixture
def public() -> Iterator[Path]:
    """Not below pytest's own directories, which only root can pass."""
    with tempfile.TemporaryDirectory(prefix="rtpfanout-test-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.slow("plays a clip of seconds")
def test_a_clip_of_vlc_is_seen(played: Callable[..., list[str]], public: Path) -> None:
    """It has no SDP to offer: an MPEG transport stream says itself what is in it."""
    requires("cvlc", "ffmpeg", "setpriv")
    clip = public / "clip.mp4"
    made = ffmpeg(*shlex.split("-f lavfi -i testsrc2 -t 20 -c:v libx264"), str(clip))
    assert made.wait(PATIENCE) == 0
    clip.chmod(0o644)
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups" if os.geteuid() == 0 else ""
    got = played(
        f"env HOME={public} {nobody} cvlc -I dummy -q {clip} "
        "--sout '#rtp{{mux=ts,dst={ip},port={port}}}'",
        "-frames:v",
        str(FRAMES),
    )
    assert len(set(got)) == FRAMES
