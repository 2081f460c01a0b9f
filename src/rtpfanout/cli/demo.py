"""`rtpfanout demo`: server, camera and three subscribers on this machine, checked to the byte."""

import random
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtpfanout.cli.live import LiveView
from rtpfanout.cli.output import (
    Output,
    OutputFormat,
    message_dict,
    rich_table,
    say,
    shown_ms,
    write_json,
    write_table,
)
from rtpfanout.errors import RtpFanoutError
from rtpfanout.traffic.stopping import StopFlag

if TYPE_CHECKING:
    from rich.table import Table

    from rtpfanout.client import SessionClient
    from rtpfanout.traffic.demo_server import DemoServer
    from rtpfanout.traffic.scene import Camera, Viewer

SUBSCRIBERS = ("recording", "inference", "monitoring")
FRAME_RATE = 30
BURST = 14
PACKET_SIZE = 1200

_LATENCY_COLUMNS = ("ADDED P50 ms", "ADDED P99 ms")
_COLUMNS = ("SUBSCRIBER", "ADDRESS", "PACKETS", "LOST", "ALTERED", "RATE/s", *_LATENCY_COLUMNS)
_SUMMARY_COLUMNS = (*_COLUMNS[:5], *_LATENCY_COLUMNS, "MAX ms")
_STEP_SECONDS = 0.25
_LINE_SECONDS = 5.0
_QUIET_SECONDS = 1.0


def demo(
    duration: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="End after this long, not on Ctrl-C."),
    ] = None,
    output: Output = OutputFormat.TABLE,
) -> None:
    """See it work: a camera, the server, three subscribers.

    All on this machine: the real server, a camera of 30 frames a second, and
    subscribers that compare every byte, over UDP and gRPC on free ports of
    loopback. The added latency goes from the camera's send to the arrival at the
    subscriber, by the kernel's clock, so it has two loopback hops in it. Exits
    with 1 when a packet was lost or altered, or a counter of the server is off.
    """
    with StopFlag() as stop:
        report = _run(stop, duration)
    if output is OutputFormat.JSON:
        write_json(report)
    else:
        _print_report(report)
    if report["faults"]:
        raise RtpFanoutError("; ".join(report["faults"]))


def _run(stop: StopFlag, duration: float | None) -> dict[str, Any]:
    from rtpfanout.client import SessionClient
    from rtpfanout.traffic.demo_server import DemoServer
    from rtpfanout.traffic.scene import Camera, Viewer
    from rtpfanout.traffic.source import TestSource

    say("starting the server ...")
    with ExitStack() as stack:
        server = stack.enter_context(DemoServer())
        client = stack.enter_context(SessionClient(str(server.grpc)))
        ssrc = random.getrandbits(32)
        camera = stack.enter_context(Camera(TestSource(ssrc, FRAME_RATE, BURST, PACKET_SIZE)))
        viewers = [stack.enter_context(Viewer(name, camera)) for name in SUBSCRIBERS]
        session_id = client.create_session(str(camera.address), ssrc, "video").session_id
        for viewer in viewers:
            client.add_subscriber(session_id, str(viewer.address))
        say(f"RTP on {server.ingress}, gRPC on {server.grpc}, session {session_id}")
        say(f"metrics on http://{server.metrics}/metrics")
        begin = time.monotonic()
        camera.start(server.ingress)
        _show(stop, duration, server, camera, viewers)
        camera.stop()
        seconds = time.monotonic() - begin
        _wait_quiet(camera, viewers)
        return _report(client, session_id, camera, viewers, seconds)


def _show(
    stop: StopFlag,
    duration: float | None,
    server: "DemoServer",
    camera: "Camera",
    viewers: "Sequence[Viewer]",
) -> None:
    """Draw, or say a line now and then, until stopped or for `duration` seconds."""
    begin = time.monotonic()
    draws = sys.stderr.isatty()
    due, line_due = begin, begin + _LINE_SECONDS
    rates = Rates(viewers)
    with LiveView(draws) as view:
        while duration is None or due < begin + duration:
            due += _STEP_SECONDS
            if duration is not None:
                due = min(due, begin + duration)
            if not stop.sleep_until(due):
                return
            server.check()
            elapsed = time.monotonic() - begin
            if draws:
                view.update(_live_table(camera, viewers, rates.update(), elapsed))
            elif due >= line_due:
                line_due += _LINE_SECONDS
                say(_progress_line(camera, viewers, elapsed))


class Rates:
    """Packets per second of each viewer over the last second or so."""

    def __init__(self, viewers: "Sequence[Viewer]") -> None:
        self._viewers = viewers
        self._since = time.monotonic()
        self._before = [viewer.packets for viewer in viewers]
        self._rates = [0.0] * len(viewers)

    def update(self) -> list[float]:
        """The rates, renewed once a second."""
        now = time.monotonic()
        if now - self._since >= 1.0:
            packets = [viewer.packets for viewer in self._viewers]
            self._rates = [
                (after - before) / (now - self._since)
                for before, after in zip(self._before, packets, strict=True)
            ]
            self._since, self._before = now, packets
        return self._rates


def _live_table(
    camera: "Camera",
    viewers: "Sequence[Viewer]",
    rates: "Sequence[float]",
    elapsed: float,
) -> "Table":
    rows = [
        (
            viewer.name,
            str(viewer.address),
            viewer.packets,
            viewer.sequence.lost,
            viewer.altered,
            round(rate),
            shown_ms(viewer.latency.percentile_ms(50)),
            shown_ms(viewer.latency.percentile_ms(99)),
        )
        for viewer, rate in zip(viewers, rates, strict=True)
    ]
    title = (
        f"{FRAME_RATE} fps camera -> rtpfanout -> {len(viewers)} subscribers: "
        f"{camera.packets:,} packets in {elapsed:.0f} s"
    )
    table = rich_table(_COLUMNS, rows, title=title)
    table.caption = "Ctrl-C ends it"
    table.caption_justify = "left"
    return table


def _progress_line(camera: "Camera", viewers: "Sequence[Viewer]", elapsed: float) -> str:
    parts = [f"{v.name} {v.packets} ({v.sequence.lost} lost, {v.altered} altered)" for v in viewers]
    return f"{elapsed:.0f} s: camera {camera.packets}; {', '.join(parts)}"


def _wait_quiet(camera: "Camera", viewers: "Sequence[Viewer]") -> None:
    """Until every packet came, or none has come for a while."""
    counts = [viewer.packets for viewer in viewers]
    quiet_since = time.monotonic()
    while time.monotonic() < quiet_since + _QUIET_SECONDS:
        if all(viewer.intact == camera.packets for viewer in viewers):
            return
        time.sleep(0.02)
        now_counts = [viewer.packets for viewer in viewers]
        if now_counts != counts:
            counts, quiet_since = now_counts, time.monotonic()


def _report(
    client: "SessionClient",
    session_id: str,
    camera: "Camera",
    viewers: "Sequence[Viewer]",
    seconds: float,
) -> dict[str, Any]:
    """Everything for `-o json`; `faults` is empty when all is well."""
    truth = {
        "packets_received": camera.packets,
        "bytes_received": camera.bytes,
        "packets_sent": camera.packets * len(viewers),
        "bytes_sent": camera.bytes * len(viewers),
        "send_failures": 0,
        "subscriber_count": len(viewers),
    }
    stats = _settled_stats(client, session_id, truth)
    subscribers = [viewer.report() for viewer in viewers]
    return {
        "seconds": round(seconds, 3),
        "camera": {"packets": camera.packets, "bytes": camera.bytes},
        "server": stats,
        "subscribers": subscribers,
        "faults": faults(subscribers, stats, truth),
    }


def _settled_stats(
    client: "SessionClient", session_id: str, truth: dict[str, int]
) -> dict[str, Any]:
    """The server's counters: a copy may arrive before the send of it is counted."""
    deadline = time.monotonic() + _QUIET_SECONDS
    while True:
        stats = message_dict(client.get_session_stats(session_id))
        if truth.items() <= stats.items() or time.monotonic() > deadline:
            return stats
        time.sleep(0.05)


def faults(
    subscribers: "Sequence[dict[str, Any]]", stats: dict[str, Any], truth: dict[str, int]
) -> list[str]:
    """What is wrong: packets lost, altered or doubled on the way, counters that are not exact."""
    found = [
        f"{subscriber['name']}: {subscriber[fault]} packets {word}"
        for subscriber in subscribers
        for fault, word in (("lost", "lost"), ("altered", "altered"), ("duplicates", "doubled"))
        if subscriber[fault]
    ]
    found += [
        f"{subscriber['name']}: {subscriber['kernel_drops']} of them were lost in the demo itself, "
        "which was too slow to take them"
        for subscriber in subscribers
        if subscriber["kernel_drops"]
    ]
    found += [
        f"the server counts {name} {stats[name]}, the truth is {value}"
        for name, value in truth.items()
        if stats[name] != value
    ]
    return found


def _print_report(report: dict[str, Any]) -> None:
    camera = report["camera"]
    rows = [
        (
            s["name"],
            s["address"],
            s["packets"],
            s["lost"],
            s["altered"],
            *map(shown_ms, s["added_latency_ms"].values()),
        )
        for s in report["subscribers"]
    ]
    write_table(_SUMMARY_COLUMNS, rows, title=f"camera: {camera['packets']:,} packets sent")
    if not report["faults"]:
        say("every packet reached every subscriber unchanged, and the server's counters are exact")
