"""`rtpfanout session watch`: every change to the sessions, as it happens."""

import asyncio
import signal
from datetime import datetime
from typing import Annotated, Any

import typer

from rtpfanout.cli.output import (
    DEFAULT_SERVER,
    Output,
    OutputFormat,
    Server,
    message_dict,
    say,
    write,
    write_json,
)
from rtpfanout.cli.session_options import Selector, selector, session_cells, shown_labels

COLUMNS = {
    "TIME": 8,
    "WHAT": 7,
    "ID": 36,
    "SOURCE": 21,
    "SSRC": 10,
    "MEDIA": 5,
    "SUBSCRIBERS": 11,
    "STATUS": 6,
    "LABELS": 6,
}
"""What a line says, and how wide at least."""


def watch(
    label: Selector = None,
    after: Annotated[
        int,
        typer.Option(min=0, metavar="REVISION", help="Only what changed since; 0: begin with all."),
    ] = 0,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show all sessions, then each change, until Ctrl-C.

    A lost connection is made again. JSON is one object a line: type, revision and session;
    RESET says to forget what was known, because all sessions follow.
    """
    asyncio.run(_watch(server, after, selector(label), output))


async def _watch(server: str, after: int, label_selector: str, output: OutputFormat) -> None:
    from rtpfanout.client import AsyncSessionClient, Credentials

    async with AsyncSessionClient(server, credentials=Credentials.from_environment()) as client:
        found = client.watch_sessions(after, label_selector=label_selector)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, found.close)
        if output is OutputFormat.TABLE:
            _write_line(list(COLUMNS))
        async for event in found:
            if output is OutputFormat.JSON:
                write_json(message_dict(event), indent=None)
            elif event.HasField("session"):
                _write_line(_line(event))
    if output is OutputFormat.TABLE:
        say(f"go on from here with --after {found.revision}")


def _line(event: Any) -> list[Any]:
    session = event.session
    what = message_dict(event)["type"].lower()
    return [
        f"{datetime.now().astimezone():%H:%M:%S}",
        "exists" if what == "snapshot" else what,
        *session_cells(session),
        shown_labels(session.labels),
    ]


def _write_line(cells: list[Any]) -> None:
    widths = COLUMNS.values()
    write("  ".join(str(c).ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip())
