"""ffmpeg as a test source: a moving picture with a clock in it, or a beep a second, as RTP.

What it sends to a socket of ours on loopback leaves as it is by the socket of `send`, which so
chooses the address, counts, and signs where it is.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

from rtpfanout.closing import Closing
from rtpfanout.errors import RtpFanoutError, StartError
from rtpfanout.model import Address
from rtpfanout.traffic import rtp
from rtpfanout.traffic.source import Codec, Stream
from rtpfanout.traffic.udp import ReceiveSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rtpfanout.traffic.source import Due
    from rtpfanout.traffic.stopping import StopFlag

WIDTH, HEIGHT = 640, 360
_END_SECONDS = 5.0


# The encoders that ffmpeg may have been built with, the best first, each with its options.
_ENCODERS: dict[Codec, dict[str, tuple[str, ...]]] = {
    Codec.H264: {
        "libx264": ("-preset", "veryfast", "-tune", "zerolatency", "-b:v", "1M"),
        "libopenh264": ("-b:v", "1M"),
    },
    Codec.H265: {
        "libx265": (
            *("-preset", "ultrafast", "-tune", "zerolatency", "-b:v", "1M"),
            *("-x265-params", "log-level=error"),
        ),
    },
    Codec.VP8: {"libvpx": ("-deadline", "realtime", "-cpu-used", "8", "-b:v", "1M")},
    Codec.OPUS: {"libopus": ("-b:a", "64k"), "opus": ("-strict", "-2", "-b:a", "64k")},
}


class Encoder(Closing):
    """One ffmpeg that runs from `with` to its end; see `packets`."""

    def __init__(self, stream: Stream) -> None:
        """Raises StartError."""
        codec, ssrc = stream.codec, stream.ssrc
        encoder = _encoder(codec)
        self._ssrc = ssrc
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close)
        self._udp = ReceiveSocket(Address.parse("127.0.0.1:0"))
        port = self._udp.address.port
        command = [
            *("ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error", "-re", "-f", "lavfi"),
            *("-i", _scene(stream), *_ENCODERS[codec][encoder], "-c", encoder),
            *(() if codec is Codec.OPUS else _picture(stream.frame_rate)),
            # Its number is signed there.
            *("-ssrc", str(ssrc - (ssrc >> 31 << 32)), "-payload_type", str(stream.payload_type)),
            *("-f", "rtp", f"rtp://127.0.0.1:{port}?rtcpport={port}&pkt_size={stream.size}"),
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._words,
            start_new_session=True,  # Ctrl-C is for `send`, which ends it
        )

    def packets(self, stop: StopFlag, report: Callable[[bytes], object]) -> Iterator[Due]:
        """Each as soon as it is there; `report` is given ffmpeg's RTCP, which is no packet.

        Raises RtpFanoutError when ffmpeg ends by itself.
        """
        begin = time.monotonic()
        while not stop:
            datagram = self._udp.receive()
            if datagram is None:
                self._check()
            elif rtp.is_report(datagram.data):
                report(datagram.data)
            elif self._is_ours(datagram.data):
                yield time.monotonic() - begin, partial(bytes, datagram.data)

    def close(self) -> None:
        """Ends ffmpeg."""
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._udp.close()
        self._words.close()

    def _is_ours(self, data: bytes) -> bool:
        """Others may send to loopback, too."""
        return len(data) >= rtp.MIN_HEADER and int.from_bytes(data[8:12], "big") == self._ssrc

    def _check(self) -> None:
        code = self._process.poll()
        if code is not None:
            raise RtpFanoutError(f"ffmpeg ended with code {code}: {self._last_words()}")

    def _last_words(self) -> str:
        self._words.seek(0)
        lines = self._words.read().decode(errors="replace").splitlines()
        return lines[-1].strip() if lines else "it said nothing"


def _scene(stream: Stream) -> str:
    """testsrc draws its clock itself, so that no font is needed."""
    if stream.codec is Codec.OPUS:
        return "sine=frequency=440:beep_factor=4:sample_rate=48000"
    return f"testsrc=size={WIDTH}x{HEIGHT}:rate={stream.frame_rate:g}:decimals=3"


def _picture(frame_rate: float) -> tuple[str, ...]:
    """A keyframe a second, so that whoever comes later soon has a picture."""
    return "-pix_fmt", "yuv420p", "-g", str(max(1, round(frame_rate)))


def _encoder(codec: Codec) -> str:
    """The best one that this ffmpeg has. Raises StartError."""
    environment = os.environ | {"AV_LOG_FORCE_NOCOLOR": "1"}
    try:
        listed = subprocess.run(
            ["ffmpeg", "-hide_banner", "-encoders"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            check=False,
        )
    except FileNotFoundError:
        raise StartError(
            "--encode needs ffmpeg, which is not in PATH; install it, as by `apt install ffmpeg`"
        ) from None
    except OSError as error:
        raise StartError(f"ffmpeg cannot be run: {error.strerror}") from None
    there = {words[1] for line in listed.stdout.splitlines() if len(words := line.split()) > 1}
    for name in _ENCODERS[codec]:
        if name in there:
            return name
    missing = " and ".join(_ENCODERS[codec])
    raise StartError(
        f"this ffmpeg cannot encode {codec}: it was built without {missing}; "
        "`ffmpeg -encoders` lists what it has"
    )
