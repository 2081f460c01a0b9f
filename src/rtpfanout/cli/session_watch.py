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
from rtpfanout.cli.session_choice import choose, complete_session
from rtpfanout.cli.session_options import Selector, selector
from rtpfanout.cli.session_shown import session_cells, shown_labels

COLUMNS = {
    "TIME": 8,
    "WHAT": 11,
    "ID": 36,
    "NAME": 16,
    "SOURCE": 21,
    "SSRC": 10,
    "MEDIA": 5,
    "SUBSCRIBERS": 11,
    "STATUS": 6,
    "CONDITION": 9,
    "LABELS": 6,
}
"""What a line says, and how wide at least; WHAT also says what was updated."""


def watch(
    session_id: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="Only this one: its name, its id, or a beginning that only its id has.",
            autocompletion=complete_session,
            callback=choose,
        ),
    ] = "",
    label: Selector = None,
    after: Annotated[
        int,
        typer.Option(min=0, metavar="REVISION", help="Only what changed since; 0: begin with all."),
    ] = 0,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show all sessions, then each change, until Ctrl-C.

    A session that is to be watched by its name may come later. A lost connection is made again.
    JSON is one object a line: type, revision and session; RESET says to forget what was known,
    because all sessions follow.
    """
    asyncio.run(_watch(server, after, selector(label), session_id, output))


async def _watch(
    server: str, after: int, label_selector: str, session_id: str, output: OutputFormat
) -> None:
    from rtpfanout.client import AsyncSessionClient, Credentials

    async with AsyncSessionClient(server, credentials=Credentials.from_environment()) as client:
        found = client.watch_sessions(after, label_selector=label_selector)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, found.close)
        if output is OutputFormat.TABLE:
            _write_line(list(COLUMNS))
        chosen = _Chosen(session_id)
        async for event in found:
            if not chosen.has(event):
                continue
            if output is OutputFormat.JSON:
                write_json(message_dict(event), indent=None)
            elif event.HasField("session"):
                _write_line(_line(event))
    if output is OutputFormat.TABLE:
        say(f"go on from here with --after {found.revision}")


class _Chosen:
    """Events of the session that has an id or a name, also when it has another name afterwards.

    Where it is empty, of all sessions.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._id = ""

    def has(self, event: Any) -> bool:
        session = event.session
        if not (self._session and event.HasField("session")):
            return True
        if self._session in (session.name, session.session_id):
            self._id = session.session_id
        return bool(session.session_id == self._id)


def _line(event: Any) -> list[Any]:
    session = event.session
    what = message_dict(event)["type"].lower()
    return [
        f"{datetime.now().astimezone():%H:%M:%S}",
        "exists" if what == "snapshot" else event.cause or what,
        *session_cells(session),
        shown_labels(session.labels),
    ]


def _write_line(cells: list[Any]) -> None:
    widths = COLUMNS.values()
    write("  ".join(str(c).ljust(w) for c, w in zip(cells, widths, strict=True)).rstrip())
