"""`rtpfanout send`: an RTP test source, synthetic or out of a capture file."""

import random
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from rtpfanout.cli.address import parse_address, parse_target
from rtpfanout.cli.moving import MovingSocket, read_move_key
from rtpfanout.cli.output import Output, OutputFormat, say, write_fields, write_json
from rtpfanout.cli.session import parse_ssrc
from rtpfanout.cli.source import MAX_SIZE, MIN_SIZE, Due, TestSource
from rtpfanout.cli.stop import Count, Duration, StopFlag
from rtpfanout.cli.udp import bound_address, open_socket, source_for
from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import Address

DEFAULT_FRAME_RATE = 30.0
DEFAULT_BURST = 14
_PROGRESS_SECONDS = 0.5


def send(
    target: Annotated[
        Address,
        typer.Argument(
            parser=parse_target, metavar="TARGET", help="The server's ingress, ip:port."
        ),
    ],
    ssrc: Annotated[
        int | None,
        typer.Option(
            parser=parse_ssrc,
            metavar="SSRC",
            help="Decimal or 0x hex; default random. With --pcap: send only this one.",
        ),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.01, help="Packets per second, evenly spaced unless --burst is given."),
    ] = None,
    frame_rate: Annotated[
        float | None, typer.Option(min=0.01, help="Frames per second.  [default: 30]")
    ] = None,
    burst: Annotated[
        int | None, typer.Option(min=1, help="Packets per frame, sent at once.  [default: 14]")
    ] = None,
    size: Annotated[
        int,
        typer.Option(
            min=MIN_SIZE, max=MAX_SIZE, help="Bytes of each packet: UDP payload with RTP header."
        ),
    ] = 1200,
    count: Count = None,
    duration: Duration = None,
    payload_type: Annotated[int, typer.Option(min=0, max=127)] = 96,
    bind: Annotated[
        Address | None,
        typer.Option(parser=parse_address, metavar="IP:PORT", help="Send from this address."),
    ] = None,
    pcap: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Send the RTP packets of a pcap or pcapng file, bytes unchanged."
        ),
    ] = None,
    move_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The session's move key: sign where we send from, at the start and, with another "
            "port, on SIGUSR1.",
        ),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Send RTP, synthetic or from a capture file.

    Ends on Ctrl-C, after --count or --duration, or at the end of --pcap.
    Synthetic packets carry their send time, so `rtpfanout recv` can tell latency.
    With --pcap the capture's own pace is kept unless --rate is given. Fragmented packets are put
    together, and frames that the capturing host merged (GSO, GRO) are cut again.
    """
    if bind is not None and bind.ip.version != target.ip.version:
        raise typer.BadParameter("TARGET and --bind must both be IPv4 or both IPv6")
    if move_key_file is not None and ssrc is None:
        raise typer.BadParameter("--move-key-file needs --ssrc, which is signed too")
    if pcap is not None:
        if frame_rate or burst:
            raise typer.BadParameter("--pcap goes at its own pace or at --rate, not by frames")
        from rtpfanout.cli.capture import Capture

        capture = Capture(pcap, ssrc)
        packets = capture.packets(rate)
    else:
        ssrc = random.getrandbits(32) if ssrc is None else ssrc
        frame_rate, burst = _pace(rate, frame_rate, burst)
        packets = TestSource(ssrc, frame_rate, burst, size, payload_type).packets()

    with ExitStack() as stack:
        stop = stack.enter_context(StopFlag())
        udp: socket.socket | MovingSocket
        if move_key_file is None:
            udp = stack.enter_context(closing(open_socket(bind or source_for(target))))
            source = bound_address(udp)
        else:
            assert ssrc is not None
            mover = read_move_key(move_key_file, ssrc)
            udp = stack.enter_context(MovingSocket(target, bind, mover))
            source = udp.address
            udp.announce()
        say(
            f"sending from {source} to {target}"
            + (f", ssrc {ssrc:#010x}" if ssrc is not None else "")
        )
        sender = Sender(udp, target, packets)
        sender.run(stop, count, duration)
    if pcap is not None:
        for line in capture.told():
            say(line)
    sent = sender.sent
    summary: dict[str, Any] = {
        "target": str(target),
        "source": str(source),
        "ssrc": ssrc,
        "packets": sent.packets,
        "bytes": sent.bytes,
        "failed": sent.failed,
        "seconds": round(sent.seconds, 3),
        "packets_per_second": round(sent.rate, 1),
        "max_lag_ms": round(sent.max_lag * 1000, 3),
    }
    if pcap is not None:
        summary |= {
            "passed_over": capture.skipped,
            "fragments": capture.fragments,
            "merged": capture.merged,
            "cut_short": capture.cut_short,
        }
    if output is OutputFormat.JSON:
        write_json(summary)
    else:
        write_fields(summary | {"ssrc": "-" if ssrc is None else f"{ssrc:#010x}"})
    if sent.failed:
        raise RtpFanoutError(
            f"{sent.failed} packets were not sent ({sent.last_failure}); "
            "check the route to the target, and --size against its MTU"
        )
    if pcap is not None and capture.damage:
        raise RtpFanoutError(f"{pcap} is damaged, what follows was not sent: {capture.damage}")


@dataclass
class Sent:
    """What a sender has done so far; `max_lag` is the latest behind schedule, seconds."""

    packets: int = 0
    bytes: int = 0
    failed: int = 0
    last_failure: str = ""
    seconds: float = 0.0
    max_lag: float = 0.0

    @property
    def rate(self) -> float:
        return self.packets / self.seconds if self.seconds else 0.0


class Sender:
    """Sends packets when they are due, by absolute deadlines so that no delay adds up."""

    def __init__(
        self, udp: socket.socket | MovingSocket, target: Address, packets: Iterator[Due]
    ) -> None:
        self.sent = Sent()
        self._udp = udp
        self._to = target.sockaddr
        self._packets = packets
        self._draws = sys.stderr.isatty()
        self._next_draw = 0.0

    def run(self, stop: StopFlag, limit: int | None, duration: float | None) -> None:
        """Send until stopped, `limit` packets, `duration` seconds or the last packet."""
        begin = time.monotonic()
        for due, make in islice(self._packets, limit):
            if duration is not None and due >= duration:
                stop.sleep_until(begin + duration)
                break
            if not stop.sleep_until(begin + due):
                break
            now = time.monotonic()
            self.sent.max_lag = max(self.sent.max_lag, now - begin - due)
            self._send(make())
            self.sent.seconds = time.monotonic() - begin
            if self._draws and now >= self._next_draw:
                self._next_draw = now + _PROGRESS_SECONDS
                self._draw()
        self.sent.seconds = time.monotonic() - begin
        if self._draws:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def _send(self, packet: bytes) -> None:
        try:
            self._udp.sendto(packet, self._to)
        except OSError as error:
            self.sent.failed += 1
            self.sent.last_failure = error.strerror or str(error)
        else:
            self.sent.packets += 1
            self.sent.bytes += len(packet)

    def _draw(self) -> None:
        sent = self.sent
        line = f"sent {sent.packets:,} packets, {sent.rate:,.0f}/s, {sent.bytes:,} bytes"
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def _pace(rate: float | None, frame_rate: float | None, burst: int | None) -> tuple[float, int]:
    """Frames per second and packets per frame out of the two that were given."""
    if rate is None:
        return frame_rate or DEFAULT_FRAME_RATE, burst or DEFAULT_BURST
    if frame_rate is not None:
        raise typer.BadParameter("give --rate or --frame-rate, not both")
    return rate / (burst or 1), burst or 1
