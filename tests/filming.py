"""A camera that films a clip, and the pictures that a player should show of it."""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from players import ffmpeg, free_pair

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FRAMES = 20
"""That a player is to show."""
GOP = 10
SSRCS = count(100)
VIDEO = {
    "h264": ("libx264", "-preset", "ultrafast", "-g", "10", "-bf", "0", "-pix_fmt", "yuv420p"),
    "h265": ("libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p",
             "-x265-params", "keyint=10:min-keyint=10:bframes=0:log-level=none"),
    "vp8": ("libvpx", "-deadline", "realtime", "-g", "10"),
    "vp9": ("libvpx-vp9", "-deadline", "realtime", "-g", "10"),
    "mjpeg": ("mjpeg", "-pix_fmt", "yuvj420p", "-huffman", "0"),
}  # fmt: skip


def clip(directory: Path, encoder: str) -> Path:
    """Two seconds of a moving picture, whose frames differ."""
    path = directory / f"{encoder}.mkv"
    if not path.exists():
        picture = ("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25", "-frames:v", "50")
        assert ffmpeg(*picture, "-c:v", *VIDEO[encoder], str(path)).wait(60) == 0
    return path


def in_band(path: Path) -> Path:
    """The same with parameter sets before each keyframe, where there are such."""
    if path.stem not in ("h264", "h265"):
        return path
    whole = path.with_suffix(".ts")
    if not whole.exists():
        assert ffmpeg("-i", str(path), "-c", "copy", str(whole)).wait(60) == 0
    return whole


def frames_of(path: Path, *options: str) -> list[str]:
    """The hash of each frame that a decoder makes of it."""
    done = subprocess.run(
        ["ffmpeg", "-nostdin", "-loglevel", "error", *options, "-i", str(path), "-map", "0:v",
         "-fps_mode", "passthrough", "-f", "framemd5", "-"],
        capture_output=True, text=True, timeout=40, check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    return [line.split(",")[-1].strip() for line in lines if line and line[0] != "#"]


class Camera:
    """ffmpeg that sends to a server's ingest, over and over, from a port of its own."""

    def __init__(self, served: Any) -> None:
        """`served` is what the server said when it was ready."""
        self._to = served["bind_address"]
        self.port = free_pair()
        self.ssrc = next(SSRCS)
        self.address = f"127.0.0.1:{self.port}"

    @contextmanager
    def films(self, *source: str, muxer: str = "rtp") -> Iterator[None]:
        ports = f"localrtpport={self.port}&localrtcpport={self.port + 1}&pkt_size=1200"
        ssrc = ("-strict", "experimental", "-ssrc", str(self.ssrc))  # so it calls VP9 by RTP
        if muxer != "rtp":
            ssrc = ("-rtp_muxer_options", f"ssrc={self.ssrc}")
        sender = ffmpeg("-re", *source, *ssrc, "-f", muxer, f"rtp://{self._to}?{ports}")
        try:
            yield
        finally:
            sender.kill()
            sender.wait()


def copied(path: Path) -> tuple[str, ...]:
    return ("-stream_loop", "-1", "-i", str(path), "-map", "0:v", "-c", "copy")


def follow_each_other(shown: list[str], clip: list[str]) -> bool:
    """Whether they are frames of the clip, none of them left out.

    What a decoder of H.265 shows before the first keyframe is a guess.
    """
    good = next(i for i, frame in enumerate(shown) if frame in clip)
    begin = clip.index(shown[good]) - good
    pairs = list(enumerate(shown, begin))[good:]
    return good < GOP and all(frame == clip[at % len(clip)] for at, frame in pairs)
