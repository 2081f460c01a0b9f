"""`rtpfanout recv`: counts what arrives, and what should have."""

import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtpfanout import rtp, signed
from rtpfanout.cli.address import parse_address, parse_target
from rtpfanout.cli.join import MemberSocket, parse_token
from rtpfanout.cli.live import LiveView
from rtpfanout.cli.output import Output, OutputFormat, rich_table, say, write_json, write_table
from rtpfanout.cli.reception import Reception
from rtpfanout.cli.stop import Count, Duration, StopFlag
from rtpfanout.cli.udp import ReceiveSocket
from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import Address

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "SSRC",
    "PACKETS",
    "BYTES",
    "LOST",
    "REORDERED",
    "DUPLICATES",
    "JITTER ms",
    "P50 ms",
    "P99 ms",
    "MAX ms",
)
_MAX_SSRCS = 10_000
_LIVE_ROWS = 20
_DRAW_SECONDS = 0.25
_SETTLE_SECONDS = 0.3
"""Packets that come this soon after the last expected one are counted too."""


def recv(
    bind: Annotated[
        Address | None,
        typer.Argument(
            parser=parse_address,
            metavar="BIND",
            help="Where to receive, ip:port; any free port with --server.",
        ),
    ] = None,
    count: Count = None,
    duration: Duration = None,
    expect: Annotated[
        int | None,
        typer.Option(
            min=1, help="End when this many came; exit with 1 when fewer did or any was lost."
        ),
    ] = None,
    clock_rate: Annotated[
        int, typer.Option(min=1, help="Hz of the RTP time stamps, for the jitter.")
    ] = rtp.CLOCK_RATE,
    join: Annotated[
        signed.Token | None,
        typer.Option(
            parser=parse_token,
            metavar="TOKEN",
            help="Join by a token of `rtpfanout session token`, or by @FILE that holds it.",
        ),
    ] = None,
    consent: Annotated[
        bool, typer.Option("--consent", help="Consent to what the API sends to this address.")
    ] = False,
    server: Annotated[
        Address | None,
        typer.Option(
            parser=parse_target,
            metavar="IP:PORT",
            help="The server's ingress, for --join and --consent.",
        ),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Count the RTP packets that arrive, per SSRC.

    Ends on Ctrl-C, or after --count, --duration or --expect.
    Latency is that of packets from `rtpfanout send`, by the clocks of both
    machines; jitter is that of RFC 3550, from the kernel's arrival times.
    With --join or --consent it fails when the server never let it in.
    """
    if join is not None and consent:
        raise typer.BadParameter("give --join or --consent, not both: joining is consent")
    if (server is None) != (join is None and not consent):
        raise typer.BadParameter("--server goes with --join TOKEN or with --consent")
    if bind is None:
        if server is None:
            raise typer.BadParameter("give BIND, where to receive: ip:port")
        bind = Address.parse("0.0.0.0:0" if server.ip.version == 4 else "[::]:0")
    with ExitStack() as stack:
        stop = stack.enter_context(StopFlag())
        udp: ReceiveSocket | MemberSocket = stack.enter_context(ReceiveSocket(bind))
        say(f"receiving on {udp.address}")
        if server is not None:
            assert isinstance(udp, ReceiveSocket)
            udp = stack.enter_context(MemberSocket(udp, server, join))
        receiver = Receiver(udp, clock_rate)
        with LiveView(sys.stderr.isatty()) as view:
            receiver.run(stop, view, count if expect is None else count or expect, duration)
            if expect is not None and not stop:
                receiver.run(stop, view, None, _SETTLE_SECONDS)
    if output is OutputFormat.JSON:
        write_json(receiver.summary())
    else:
        write_table(COLUMNS, receiver.rows())
        if receiver.not_rtp:
            say(f"{receiver.not_rtp} datagrams were not RTP")
    if receiver.uncounted:
        say(f"{receiver.uncounted} packets of SSRCs beyond the first {_MAX_SSRCS} are not counted")
    if udp.kernel_drops:
        say(f"this receiver was too slow: the kernel dropped {udp.kernel_drops} datagrams here")
    if isinstance(udp, MemberSocket):
        udp.check()
    if expect is not None:
        _check_expectation(receiver, expect)


class Receiver:
    """Counts the datagrams of one socket by SSRC."""

    def __init__(self, udp: ReceiveSocket | MemberSocket, clock_rate: int) -> None:
        self.packets = 0
        self.not_rtp = 0
        self.uncounted = 0  # packets of SSRCs beyond _MAX_SSRCS
        self.receptions: dict[int, Reception] = {}
        self._udp = udp
        self._clock_rate = clock_rate
        self._begin = time.monotonic()
        self._seconds = 0.0

    @property
    def lost(self) -> int:
        """Sequence numbers missing, over all SSRCs."""
        return sum(reception.sequence.lost for reception in self.receptions.values())

    @property
    def distinct(self) -> int:
        """Packets without their duplicates, over all SSRCs."""
        return self.packets - sum(r.sequence.duplicates for r in self.receptions.values())

    def run(
        self, stop: StopFlag, view: LiveView, limit: int | None, duration: float | None
    ) -> None:
        """Receive until stopped, `limit` packets in all, or for `duration` seconds."""
        end = None if duration is None else time.monotonic() + duration
        while not stop and (limit is None or self.packets < limit):
            if end is not None and time.monotonic() >= end:
                break
            datagram = self._udp.receive()
            if datagram is not None:
                self._count(datagram.data, datagram.arrival_ns)
            view.update_every(_DRAW_SECONDS, self._table)
        if stop:
            self._drain()
        self._seconds = time.monotonic() - self._begin

    def rows(self) -> list[tuple[object, ...]]:
        """One row of `COLUMNS` per SSRC, the busiest first."""
        busiest = sorted(self.receptions.items(), key=lambda item: -item[1].packets)
        return [
            (
                f"{ssrc:#010x}",
                reception.packets,
                reception.bytes,
                reception.sequence.lost,
                reception.sequence.reordered,
                reception.sequence.duplicates,
                f"{reception.jitter.milliseconds:.3f}",
                shown_ms(reception.latency.percentile_ms(50)),
                shown_ms(reception.latency.percentile_ms(99)),
                shown_ms(reception.latency.max_ms),
            )
            for ssrc, reception in busiest
        ]

    def summary(self) -> dict[str, Any]:
        """All counts, ready for JSON."""
        return {
            "address": str(self._udp.address),
            "seconds": round(self._seconds, 3),
            "packets": self.packets,
            "lost": self.lost,
            "not_rtp": self.not_rtp,
            "kernel_drops": self._udp.kernel_drops,
            "sources": [
                {
                    "ssrc": ssrc,
                    "packets": reception.packets,
                    "bytes": reception.bytes,
                    "lost": reception.sequence.lost,
                    "reordered": reception.sequence.reordered,
                    "duplicates": reception.sequence.duplicates,
                    "restarts": reception.sequence.restarts,
                    "jitter_ms": round(reception.jitter.milliseconds, 4),
                    "latency_ms": {
                        "count": reception.latency.count,
                        "p50": reception.latency.percentile_ms(50),
                        "p99": reception.latency.percentile_ms(99),
                        "max": reception.latency.max_ms,
                    },
                }
                for ssrc, reception in self.receptions.items()
            ],
        }

    def _drain(self) -> None:
        """Count what had arrived when the end came; it still waits in the kernel."""
        end_ns = time.time_ns()
        while datagram := self._udp.receive(wait=False):
            if datagram.arrival_ns > end_ns:
                break
            self._count(datagram.data, datagram.arrival_ns)

    def _count(self, data: bytes, arrival_ns: int) -> None:
        try:
            packet = rtp.parse(data, strict=False)
        except ValueError:
            self.not_rtp += 1
            return
        reception = self.receptions.get(packet.ssrc)
        if reception is None:
            if len(self.receptions) >= _MAX_SSRCS:
                self.uncounted += 1
                return
            reception = self.receptions[packet.ssrc] = Reception(self._clock_rate)
        reception.add(packet, len(data), arrival_ns)
        self.packets += 1

    def _table(self) -> "Table":
        seconds = time.monotonic() - self._begin
        title = f"{self._udp.address}: {self.packets:,} packets in {seconds:.0f} s"
        return rich_table(COLUMNS, self.rows()[:_LIVE_ROWS], title=title)


def shown_ms(value: float | None) -> str:
    """Milliseconds for people."""
    return "-" if value is None else f"{value:.3f}"


def _check_expectation(receiver: Receiver, expect: int) -> None:
    if receiver.distinct < expect:
        raise RtpFanoutError(f"{receiver.distinct} of {expect} expected packets came")
    if receiver.lost:
        raise RtpFanoutError(f"{receiver.lost} packets were lost on the way")
