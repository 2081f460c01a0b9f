"""`rtpfanout recv`: counts what arrives, and what should have."""

import shutil
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from rtpfanout import signed
from rtpfanout.cli.arguments import Count, Duration, parse_address, parse_target, parse_token
from rtpfanout.cli.live import LiveView
from rtpfanout.cli.output import (
    Output,
    OutputFormat,
    rich_table,
    say,
    shown_ms,
    write_json,
    write_table,
)
from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import Address
from rtpfanout.traffic import rtp
from rtpfanout.traffic.counting import MAX_SSRCS, Receptions
from rtpfanout.traffic.joining import MemberSocket
from rtpfanout.traffic.stopping import StopFlag
from rtpfanout.traffic.udp import ReceiveSocket

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    "SSRC",
    "PT",
    "FROM",
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
NARROW = ("SSRC", "PT", "FROM", "PACKETS", "LOST", "JITTER ms", "P99 ms")
"""What fits into 80 columns."""
_WIDE = 130
"""Columns of a terminal on which all is shown."""
_LIVE_ROWS = 20
_DRAW_SECONDS = 0.25
_LINE_SECONDS = 5.0
"""Between two lines of progress where nothing can be drawn."""
_SETTLE_SECONDS = 0.3
"""Packets that come this soon after the last expected one are counted too."""

Bind = Annotated[
    Address | None,
    typer.Argument(
        parser=parse_address,
        metavar="BIND",
        help="Where to receive, ip:port; any free port with --server.",
    ),
]
Expect = Annotated[
    int | None,
    typer.Option(
        min=1, help="End when this many came; exit with 1 when fewer did or any was lost."
    ),
]
ClockRate = Annotated[
    int, typer.Option(min=1, help="Hz of the RTP time stamps, for the jitter; 48000 for Opus.")
]
Join = Annotated[
    signed.Token | None,
    typer.Option(
        parser=parse_token,
        metavar="TOKEN",
        help="Join by a token of `rtpfanout session token`, or by @FILE that holds it.",
    ),
]
Consent = Annotated[
    bool, typer.Option("--consent", help="Consent to what the API sends to this address.")
]
Ingress = Annotated[
    Address | None,
    typer.Option(
        parser=parse_target,
        metavar="IP:PORT",
        help="The server's ingress, for --join and --consent.",
    ),
]


def recv(
    bind: Bind = None,
    count: Count = None,
    duration: Duration = None,
    expect: Expect = None,
    clock_rate: ClockRate = rtp.CLOCK_RATE,
    join: Join = None,
    consent: Consent = False,
    server: Ingress = None,
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
            udp = stack.enter_context(MemberSocket(udp, server, join, say))
        receptions = Receptions(udp, clock_rate)
        with Progress(receptions, udp.address) as progress:
            limit = count if expect is None else count or expect
            receptions.run(stop, limit, duration, progress.look)
            if expect is not None and not stop:
                receptions.run(stop, None, _SETTLE_SECONDS, progress.look)
    if output is OutputFormat.JSON:
        write_json(receptions.summary())
    else:
        columns = _columns() if sys.stdout.isatty() else COLUMNS
        write_table(columns, _rows(receptions, columns))
        _tell_oddities(receptions)
    if receptions.uncounted:
        say(f"{receptions.uncounted} packets of SSRCs beyond the first {MAX_SSRCS} are not counted")
    if udp.kernel_drops:
        say(f"this receiver was too slow: the kernel dropped {udp.kernel_drops} datagrams here")
    if isinstance(udp, MemberSocket):
        udp.check()
    if expect is not None:
        _check_expectation(receptions, expect)


class Progress(LiveView):
    """How it goes: the table in place on a terminal, elsewhere a line now and then."""

    def __init__(self, receptions: Receptions, address: Address) -> None:
        super().__init__(sys.stderr.isatty())
        self._receptions = receptions
        self._address = address
        self._draws = sys.stderr.isatty()
        self._next_line = time.monotonic() + _LINE_SECONDS
        self._packets_then = 0

    def look(self) -> None:
        """As often as one likes."""
        if self._draws:
            self.update_every(_DRAW_SECONDS, lambda: _table(self._receptions, self._address))
        elif (now := time.monotonic()) >= self._next_line:
            rate = (self._receptions.packets - self._packets_then) / _LINE_SECONDS
            self._next_line, self._packets_then = now + _LINE_SECONDS, self._receptions.packets
            say(_progress_line(self._receptions, rate))


def _progress_line(receptions: Receptions, rate: float) -> str:
    parts = [f"{receptions.packets:,} packets, {rate:,.0f}/s, {receptions.lost:,} lost"]
    if latest := receptions.latest:
        ssrc, reception = latest
        types = ",".join(map(str, sorted(reception.payload_types)))
        parts.append(f"now ssrc {ssrc:#010x} of payload type {types} from {reception.sender}")
    return "; ".join(parts)


def _tell_oddities(receptions: Receptions) -> None:
    """What the table has no column for."""
    if receptions.reports:
        say(f"{receptions.reports} datagrams were RTCP")
    if strange := receptions.not_rtp - receptions.reports:
        say(f"{strange} datagrams were neither RTP nor RTCP")
    for ssrc, reception in receptions.by_ssrc.items():
        if restarts := reception.sequence.restarts:
            say(f"{ssrc:#010x} began anew {restarts} times")
        if len(reception.senders) > 1:
            say(f"{ssrc:#010x} came from {len(reception.senders)} addresses, FROM is the latest")


def _columns() -> tuple[str, ...]:
    """For this terminal."""
    return COLUMNS if shutil.get_terminal_size().columns >= _WIDE else NARROW


def _rows(receptions: Receptions, columns: tuple[str, ...]) -> list[tuple[object, ...]]:
    """One row per SSRC, the busiest first."""
    chosen = [COLUMNS.index(name) for name in columns]
    return [tuple(row[index] for index in chosen) for row in _full_rows(receptions)]


def _full_rows(receptions: Receptions) -> list[tuple[object, ...]]:
    busiest = sorted(receptions.by_ssrc.items(), key=lambda item: -item[1].packets)
    return [
        (
            f"{ssrc:#010x}",
            ",".join(map(str, sorted(reception.payload_types))),
            reception.sender,
            reception.packets,
            reception.bytes,
            reception.sequence.lost,
            reception.sequence.reordered,
            reception.sequence.duplicates,
            f"{reception.jitter.milliseconds:.3f}",
            *map(shown_ms, reception.latency.summary_ms().values()),
        )
        for ssrc, reception in busiest
    ]


def _table(receptions: Receptions, address: Address) -> "Table":
    title = f"{address}: {receptions.packets:,} packets in {receptions.seconds:.0f} s"
    columns = _columns()
    return rich_table(columns, _rows(receptions, columns)[:_LIVE_ROWS], title=title)


def _check_expectation(receptions: Receptions, expect: int) -> None:
    if receptions.distinct < expect:
        raise RtpFanoutError(f"{receptions.distinct} of {expect} expected packets came")
    if receptions.lost:
        raise RtpFanoutError(f"{receptions.lost} packets were lost on the way")
