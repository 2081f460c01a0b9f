"""`rtpfanout events`: what happens, a line each."""

import asyncio
import re
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

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
from rtpfanout.errors import InvalidArgumentError, NotFoundError, RtpFanoutError

if TYPE_CHECKING:
    from rtpfanout.client import AsyncSessionClient

_AGO = re.compile(r"(?P<number>\d{1,6})(?P<unit>[smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_SHORT_ID = 8
_NAME_WIDTH = 16
_WORD_WIDTH = 18
"""Of "subscriber refused"; who is unreachable is told with more than a line takes, anyhow."""


def events(
    session_id: Annotated[
        str,
        typer.Argument(
            metavar="SESSION",
            help="Only of this one: its name, its id, or a beginning that only its id has.",
            autocompletion=complete_session,
            callback=choose,
        ),
    ] = "",
    label: Selector = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="WHEN",
            help="Begin with those that are kept since then: 10m, 2h, a moment such as"
            " 2026-03-01T12:00:00Z, or the number of an event, of which 0 is before all.",
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Only events of this kind, such as silent; repeatable."),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when those that are kept have been shown.")
    ] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show what happens, a line each, until Ctrl-C.

    To sessions, their sources and subscribers, and to the server. A lost connection is made again,
    and what happened meanwhile follows. What the server does not know any more, as after its
    restart, is told as a gap. JSON is one object a line.
    """
    asked = {
        **_since(since, datetime.now(UTC)),
        "label_selector": selector(label),
        "session": session_id,
        "kinds": [each.replace(" ", "_").replace("-", "_") for each in kind or ()],
    }
    asyncio.run(_show(server, asked, once, output))


def _since(text: str | None, now: datetime) -> dict[str, Any]:
    """As `watch_events` takes it. Raises InvalidArgumentError."""
    if text is None:
        return {}
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return {"after_sequence": int(text)}
    try:
        if ago := _AGO.fullmatch(text):
            moment = now - timedelta(seconds=int(ago["number"]) * _SECONDS[ago["unit"]])
        else:
            moment = datetime.fromisoformat(text).astimezone()  # without a zone it is of here
    except (ValueError, OverflowError):  # also of years that there are not
        raise InvalidArgumentError(
            f"{text!r} is not 10m, 2h, a moment such as 2026-03-01T12:00:00Z, or the number of an"
            " event",
            field="--since",
        ) from None
    return {"since": moment.isoformat()}


async def _show(server: str, asked: dict[str, Any], once: bool, output: OutputFormat) -> None:
    from rtpfanout.client import AsyncSessionClient, Credentials

    async with AsyncSessionClient(server, credentials=Credentials.from_environment()) as client:
        if asked["session"]:
            await _say_if_absent(client, asked["session"])
        found = client.watch_events(heartbeats=once, **asked)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, found.close)
        lines = _Lines()
        async for event in found:
            if event.kind == "heartbeat":  # asked for only to know the end
                break
            if output is OutputFormat.JSON:
                write_json(message_dict(event), indent=None)
            else:
                lines.write(event)
    if output is OutputFormat.TABLE and not once and found.sequence is not None:
        say(f"go on from here with --since {found.sequence}")


async def _say_if_absent(client: "AsyncSessionClient", session: str) -> None:
    """Events of one that was, or will be, are good to have; of one that is misspelt none come."""
    try:
        await client.get_session(session)
    except (InvalidArgumentError, NotFoundError):
        say(f"no session is {session!r} now; shown is what happened, or will, to one that is")
    except RtpFanoutError:  # whoever watches will be told
        pass


class _Lines:
    """A line for each event; a day other than the one before has one of its own."""

    def __init__(self) -> None:
        self._day = datetime.now().astimezone().date()

    def write(self, event: Any) -> None:
        moment = datetime.fromisoformat(event.time).astimezone()
        if moment.date() != self._day:
            self._day = moment.date()
            write(f"{self._day}")
        write(f"{moment:%H:%M:%S}  {line_of(event)}")


def line_of(event: Any) -> str:
    """What it says, without its time: WHO  WHAT  of which subscriber, and more."""
    who = event.session_name or event.session_id[:_SHORT_ID] or "-"
    what = event.kind.replace("_", " ")
    more = [event.detail]
    if event.kind.startswith("subscriber_"):
        more.insert(0, event.subscriber_address or f"{event.count} subscribers")
    elif event.count > 1 and event.kind != "gap":
        more.insert(0, f"{event.count} times")
    said = "  ".join(filter(None, more))
    return f"{who.ljust(_NAME_WIDTH)}  {what.ljust(_WORD_WIDTH)}  {said}".rstrip()
