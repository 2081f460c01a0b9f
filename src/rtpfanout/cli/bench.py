"""`rtpfanout bench`: what the engine does on this host, beside plain sends."""

import itertools
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from rtpfanout.cli.output import Output, OutputFormat, say, shown_ms, write_json, write_table
from rtpfanout.model import MOST_WORKERS

if TYPE_CHECKING:
    from rtpfanout.traffic.measuring import Cell, Result

DEFAULT_SUBSCRIBERS = [10, 100]
DEFAULT_BURST = [14]
DEFAULT_SIZE = [1200]
DEFAULT_WORKERS = [1]

COLUMNS = (
    "SUBSCRIBERS",
    "BURST",
    "SIZE",
    "WORKERS",
    "COPIES/S",
    "PLAIN",
    "COPIES/CPU-S",
    "PLAIN",
    "RATIO",
    "COPIES/SEND",
    "P50 ms",
    "P99 ms",
    "NOTE",
)


def bench(
    subscribers: Annotated[
        list[int], typer.Option(min=1, max=10_000, help="Subscribers of a session.")
    ] = DEFAULT_SUBSCRIBERS,
    burst: Annotated[
        list[int], typer.Option(min=1, max=1000, help="Packets that come at a time.")
    ] = DEFAULT_BURST,
    size: Annotated[
        list[int], typer.Option(min=12, max=9000, help="Bytes of an RTP packet.")
    ] = DEFAULT_SIZE,
    workers: Annotated[
        list[int], typer.Option(min=1, max=MOST_WORKERS, help="Packet loops.")
    ] = DEFAULT_WORKERS,
    device_segments: Annotated[
        bool,
        typer.Option(
            "--device-segments",
            help="Receivers take a burst whole, so that nobody cuts it into packets: as if a "
            "network card did it (tx-udp-segmentation).",
        ),
    ] = False,
    duration: Annotated[
        float, typer.Option(min=0.5, max=60, help="Seconds for each row of the table.")
    ] = 5.0,
    output: Output = OutputFormat.TABLE,
) -> None:
    """Measure how many copies per second this host sends.

    Options can be given several times; each combination is a row. COPIES/S is what the
    engine sends when packets come flat out; COPIES/CPU-S is that per second of its
    workers' CPU time; PLAIN is the same engine with one send per copy, as programs without
    UDP_SEGMENT do; RATIO compares them per CPU second. P50 and P99 are the latency that
    the engine adds, to the last subscriber, at half of COPIES/S.

    All goes over loopback, between sockets of this host that nobody reads: it measures the
    engine and the kernel's UDP, not a network card, its driver, cables or receivers. The
    source takes CPU time too: with as many workers as cores it competes with them. CPU time
    is what the kernel accounts to the workers; kernels with IRQ_TIME_ACCOUNTING leave the
    delivery over loopback out of it, for both.
    """
    from rtpfanout.traffic.measuring import Cell, measure

    cells = [
        Cell(*row, device_segments) for row in itertools.product(subscribers, burst, size, workers)
    ]
    results = []
    for cell in cells:
        if sys.stderr.isatty():
            say(f"measuring {_words(cell)}, {duration:g} s")
        results.append(measure(cell, duration))
    if output is OutputFormat.JSON:
        write_json([result.to_dict() for result in results])
    else:
        write_table(COLUMNS, map(_row, results))


def _words(cell: "Cell") -> str:
    return (
        f"{cell.subscribers} subscribers, bursts of {cell.burst} x {cell.size} bytes, "
        f"{cell.workers} worker{'s' if cell.workers > 1 else ''}"
    )


def _row(result: "Result") -> list[object]:
    cell, fast, plain, late = result.cell, result.segmented, result.plain, result.latency
    return [
        cell.subscribers,
        cell.burst,
        cell.size,
        cell.workers,
        round(fast.copies_per_second),
        round(plain.copies_per_second),
        round(fast.copies_per_cpu_second),
        round(plain.copies_per_cpu_second),
        f"{result.ratio:.2f}",
        f"{fast.copies_per_send:.1f}",
        shown_ms(late.p50_ms),
        shown_ms(late.p99_ms),
        _note(result),
    ]


def _note(result: "Result") -> str:
    """What a reader of the figures has to know about them."""
    notes = []
    if result.segmented.source_limited:
        notes.append("the source was the limit")
    if result.segmented.packets_lost_at_ingress or result.plain.packets_lost_at_ingress:
        notes.append("receive buffer too small")
    if failed := result.segmented.copies_failed:
        notes.append(f"{failed} copies failed")
    return ", ".join(notes)
