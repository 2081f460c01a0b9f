"""`rtpfanout send`: an RTP test source, synthetic or out of a capture file."""

import random
import sys
import time
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from rtpfanout.cli.arguments import Count, Duration, parse_address, parse_target
from rtpfanout.cli.output import Output, OutputFormat, say, write_fields, write_json
from rtpfanout.cli.session_options import parse_ssrc
from rtpfanout.errors import RtpFanoutError
from rtpfanout.listening import bound_address
from rtpfanout.model import Address
from rtpfanout.mover import Mover
from rtpfanout.traffic.moving import MovingSocket
from rtpfanout.traffic.sending import Sender, Sent
from rtpfanout.traffic.source import MAX_SIZE, MIN_SIZE, Codec, Stream, TestSource
from rtpfanout.traffic.stopping import StopFlag
from rtpfanout.traffic.udp import open_socket, source_for

if TYPE_CHECKING:
    import socket

    from rtpfanout.traffic.capture import Capture
    from rtpfanout.traffic.encoder import Encoder

DEFAULT_FRAME_RATE = 30.0
DEFAULT_BURST = 14
LINE_SECONDS = 5.0
"""Between two lines of progress where nothing can be drawn."""

Target = Annotated[
    Address,
    typer.Argument(parser=parse_target, metavar="TARGET", help="The server's ingress, ip:port."),
]
Ssrc = Annotated[
    int | None,
    typer.Option(
        parser=parse_ssrc,
        metavar="SSRC",
        help="Decimal or 0x hex; default random. With --pcap: send only this one.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(min=0.01, help="Packets per second, evenly spaced unless --burst is given."),
]
FrameRate = Annotated[
    float | None, typer.Option(min=0.01, help="Frames per second.  [default: 30]")
]
Burst = Annotated[
    int | None, typer.Option(min=1, help="Packets per frame, sent at once.  [default: 14]")
]
Size = Annotated[
    int,
    typer.Option(
        min=MIN_SIZE, max=MAX_SIZE, help="Bytes of each packet: UDP payload with RTP header."
    ),
]
PayloadType = Annotated[int, typer.Option(min=0, max=127)]
Bind = Annotated[
    Address | None,
    typer.Option(parser=parse_address, metavar="IP:PORT", help="Send from this address."),
]
Pcap = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Send the RTP packets of a pcap or pcapng file, bytes unchanged."
    ),
]
Encode = Annotated[
    Codec | None,
    typer.Option(
        help="Send a real stream: a test picture with a running clock, or with opus a beep a "
        "second, encoded by ffmpeg."
    ),
]
MoveKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The session's move key: sign where we send from, at the start and, with another "
        "port, on SIGUSR1.",
    ),
]


def send(
    target: Target,
    ssrc: Ssrc = None,
    rate: Rate = None,
    frame_rate: FrameRate = None,
    burst: Burst = None,
    size: Size = 1200,
    count: Count = None,
    duration: Duration = None,
    payload_type: PayloadType = 96,
    bind: Bind = None,
    pcap: Pcap = None,
    encode: Encode = None,
    move_key_file: MoveKeyFile = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Send RTP: synthetic, from a capture file, or a real encoder's.

    Ends on Ctrl-C, after --count or --duration, or at the end of --pcap.
    Synthetic packets carry their send time, so `rtpfanout recv` can tell latency.
    With --pcap the capture's own pace is kept unless --rate is given. Fragmented packets are put
    together, and frames that the capturing host merged (GSO, GRO) are cut again.
    With --encode ffmpeg's stream is sent as it comes, with a keyframe a second and its
    sender reports; --frame-rate and --size (the longest packet) are its.
    """
    if bind is not None and bind.ip.version != target.ip.version:
        raise typer.BadParameter("TARGET and --bind must both be IPv4 or both IPv6")
    if move_key_file is not None and ssrc is None:
        raise typer.BadParameter("--move-key-file needs --ssrc, which is signed too")
    if encode is not None and (pcap or rate or burst):
        raise typer.BadParameter("--encode goes at its own pace: no --pcap, --rate or --burst")
    if pcap is not None and (frame_rate or burst):
        raise typer.BadParameter("--pcap goes at its own pace or at --rate, not by frames")
    frame_rate, burst = _pace(rate, frame_rate, burst)
    capture = None
    with ExitStack() as stack:
        stop = stack.enter_context(StopFlag())
        if pcap is not None:
            capture = _capture(pcap, ssrc)
            packets = capture.packets(rate)
        else:
            ssrc = random.getrandbits(32) if ssrc is None else ssrc
            packets = TestSource(ssrc, frame_rate, burst, size, payload_type).packets()
        udp, source = _socket(stack, target, bind, move_key_file, ssrc)
        if encode is not None:
            assert ssrc is not None
            stream = Stream(encode, ssrc, payload_type, frame_rate, size)
            encoder = stack.enter_context(_encoder(stream))
            packets = encoder.packets(stop, partial(_report, udp, target))
        named = "" if ssrc is None else f", ssrc {ssrc:#010x}"
        say(f"sending from {source} to {target}{named}")
        with Progress() as progress:
            sender = Sender(udp, target, packets, progress.tell)
            sender.run(stop, count, duration)
    ends = {"target": str(target), "source": str(source), "ssrc": ssrc}
    _tell(ends, sender.sent, capture, output)


def _socket(
    stack: ExitStack, target: Address, bind: Address | None, key: Path | None, ssrc: int | None
) -> "tuple[socket.socket | MovingSocket, Address]":
    """What is sent by, and from where."""
    if key is None:
        plain = stack.enter_context(closing(open_socket(bind or source_for(target))))
        return plain, bound_address(plain)
    assert ssrc is not None
    moving = stack.enter_context(MovingSocket(target, bind, _mover(key, ssrc), say))
    source = moving.address
    moving.announce()
    return moving, source


def _report(udp: "socket.socket | MovingSocket", target: Address, report: bytes) -> None:
    with suppress(OSError):  # as if it were lost on the way
        udp.sendto(report, target.sockaddr)


def _tell(
    ends: dict[str, Any], sent: Sent, capture: "Capture | None", output: OutputFormat
) -> None:
    """What was sent. Raises RtpFanoutError where that is not all."""
    summary: dict[str, Any] = ends | {
        "packets": sent.packets,
        "bytes": sent.bytes,
        "failed": sent.failed,
        "seconds": round(sent.seconds, 3),
        "packets_per_second": round(sent.rate, 1),
        "max_lag_ms": round(sent.max_lag * 1000, 3),
    }
    if capture is not None:
        for line in capture.told():
            say(line)
        summary |= {
            "passed_over": capture.skipped,
            "fragments": capture.fragments,
            "merged": capture.merged,
            "cut_short": capture.cut_short,
        }
    if output is OutputFormat.JSON:
        write_json(summary)
    else:
        ssrc = ends["ssrc"]
        write_fields(summary | {"ssrc": "-" if ssrc is None else f"{ssrc:#010x}"})
    if sent.failed:
        raise RtpFanoutError(
            f"{sent.failed} packets were not sent ({sent.last_failure}); "
            "check the route to the target, and --size against its MTU"
        )
    if capture is not None and capture.damage:
        raise RtpFanoutError(
            f"{capture.path} is damaged, what follows was not sent: {capture.damage}"
        )


def _encoder(stream: Stream) -> "Encoder":
    from rtpfanout.traffic.encoder import Encoder

    return Encoder(stream)


def _capture(path: Path, ssrc: int | None) -> "Capture":
    from rtpfanout.traffic.capture import Capture

    return Capture(path, ssrc)


def _pace(rate: float | None, frame_rate: float | None, burst: int | None) -> tuple[float, int]:
    """Frames per second and packets per frame out of the two that were given."""
    if rate is None:
        return frame_rate or DEFAULT_FRAME_RATE, burst or DEFAULT_BURST
    if frame_rate is not None:
        raise typer.BadParameter("give --rate or --frame-rate, not both")
    return rate / (burst or 1), burst or 1


def _mover(path: Path, ssrc: int) -> Mover:
    """The file's bytes as they are, as `session create` reads them."""
    try:
        return Mover(path.read_bytes(), ssrc)
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise typer.BadParameter(f"{path}: {error}") from None


class Progress:
    """How far a sender is: in place on a terminal, elsewhere a line now and then."""

    def __init__(self) -> None:
        self._draws = sys.stderr.isatty()
        self._next_line = time.monotonic() + LINE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._draws:
            _draw("")

    def tell(self, sent: Sent) -> None:
        """What was sent so far."""
        line = f"sent {sent.packets:,} packets, {sent.rate:,.0f}/s, {sent.bytes:,} bytes"
        if sent.failed:
            line += f", {sent.failed:,} failed: {sent.last_failure}"
        if self._draws:
            _draw(line)
        elif (now := time.monotonic()) >= self._next_line:
            self._next_line = now + LINE_SECONDS
            say(line)


def _draw(line: str) -> None:
    print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
