"""A real encoder's H.264 through the server to real decoders: each frame as if sent directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from players import bound, ffmpeg, free_pair
from support import SETTLE_SECONDS, eventually, requires, udp_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import ServerProcess

SSRC = 0x5EED
FRAMES = 90
WANTED = 60
"""Frames each decoder is to give: the first after its start, so that it ends by itself."""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """FRAMES of moving test picture, in packets of 1200 bytes at most."""
    requires("ffmpeg")
    path = tmp_path / "clip.mp4"
    ffmpeg(
        *("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=30"),
        *("-frames:v", str(FRAMES), "-c:v", "libx264", "-preset", "ultrafast"),
        *("-g", "15", "-bf", "0", "-pix_fmt", "yuv420p", str(path)),
    ).wait(60)
    return path


class Decoder:
    """ffmpeg on a port of its own; `hashes` are those of the frames, in order."""

    def __init__(self, directory: Path, name: str, sdp: str, port: int) -> None:
        self.port = port
        self._frames = directory / f"{name}.framemd5"
        description = directory / f"{name}.sdp"
        description.write_text(sdp.format(port=port))
        self.process = ffmpeg(
            *("-protocol_whitelist", "file,udp,rtp", "-reorder_queue_size", "0"),
            *("-i", str(description), "-fps_mode", "passthrough"),
            *("-frames:v", str(WANTED), "-f", "framemd5", str(self._frames)),
        )
        eventually(lambda: bound(port), bool, f"ffmpeg listens on {port}")

    @property
    def hashes(self) -> list[str]:
        lines = self._frames.read_text().splitlines()
        return [line.split(",")[-1].strip() for line in lines if not line.startswith("#")]


def description(clip: Path, tmp_path: Path) -> str:
    """The SDP of the clip, the port left open."""
    path = tmp_path / "sent.sdp"
    ffmpeg(
        *("-i", str(clip), "-c", "copy", "-frames:v", "1", "-sdp_file", str(path)),
        *("-f", "rtp", "rtp://127.0.0.1:9"),
    ).wait(30)
    lines = path.read_text().replace("{", "{{").replace("}", "}}").splitlines()
    return "\n".join(
        "m=video {port} RTP/AVP 96" if line.startswith("m=video") else line for line in lines
    )


@pytest.fixture
def decoders(clip: Path, tmp_path: Path) -> Iterator[Callable[[str], Decoder]]:
    sdp = description(clip, tmp_path)
    running: list[Decoder] = []

    def start(name: str) -> Decoder:
        running.append(Decoder(tmp_path, name, sdp, free_pair()))
        return running[-1]

    yield start
    for decoder in running:
        decoder.process.kill()
        decoder.process.wait()


def test_h264_through_the_server_decodes_as_received_directly(
    server: ServerProcess, clip: Path, decoders: Callable[[str], Decoder]
) -> None:
    direct, one, two = decoders("direct"), decoders("one"), decoders("two")
    source_port, rtcp = free_pair(), udp_socket()
    server.create(
        f"127.0.0.1:{source_port}", SSRC, *(f"127.0.0.1:{decoder.port}" for decoder in (one, two))
    )
    elsewhere = f"rtcpport={rtcp.getsockname()[1]}&pkt_size=1200"
    copied = ("-map", "0:v", "-c", "copy", "-ssrc", str(SSRC), "-f", "rtp")
    sender = ffmpeg(
        *("-re", "-i", str(clip)),
        *(*copied, f"rtp://127.0.0.1:{direct.port}?{elsewhere}"),
        *(*copied, f"rtp://{server.ingest}?localrtpport={source_port}&{elsewhere}"),
    )
    assert sender.wait(60) == 0
    for decoder in (direct, one, two):
        assert decoder.process.wait(SETTLE_SECONDS) == 0
    rtcp.close()
    assert len(direct.hashes) == WANTED
    assert len(set(direct.hashes)) == WANTED  # the picture moves
    assert one.hashes == direct.hashes
    assert two.hashes == direct.hashes
    metrics = server.settled()
    assert metrics["rtpfanout_packets_forwarded_total"] > FRAMES
    assert metrics.dropped() == {}
