"""`rtpfanout top`: sessions as they fare, on a terminal."""

import asyncio
import enum
import os
import signal
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtpfanout.cli.output import (
    DEFAULT_SERVER,
    Output,
    OutputFormat,
    Server,
    message_dict,
    say,
    write_json,
    write_table,
)
from rtpfanout.cli.session_choice import connect
from rtpfanout.cli.session_options import Selector, selector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rtpfanout.client import AsyncSessionClient

_MOST = 1000
_CALL_SECONDS = 5.0


class Order(enum.StrEnum):
    """What sessions are put in order by."""

    STATE = "state"
    NAME = "name"
    BITRATE = "bitrate"
    LOSS = "loss"
    JITTER = "jitter"
    FRAME_RATE = "frame_rate"
    SUBSCRIBERS = "subscribers"


def top(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD]...",
            help="Only sessions with these in their name, id, source or labels (key=value).",
        ),
    ] = None,
    label: Selector = None,
    sort: Annotated[
        Order, typer.Option(help="By state the worst come first, by figures the greatest.")
    ] = Order.STATE,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="The other way round.")] = False,
    limit: Annotated[
        int,
        typer.Option(min=1, max=_MOST, help="Show this many at most, where it is no terminal."),
    ] = _MOST,
    interval: Annotated[
        float, typer.Option(min=0.2, metavar="SECONDS", help="Between two looks.")
    ] = 2.0,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show how sessions fare, on a terminal until q.

    State, bitrate, loss, jitter, frame rate and subscribers of each. Arrows choose a session, Enter
    shows its subscribers, / filters, and the letters at the bottom put them in order. Elsewhere,
    and with -o json, it is shown once.
    """
    asked = {
        "words": " ".join(words or ()),
        "label_selector": selector(label),
        "order_by": str(sort),
        "reverse": reverse,
    }
    if output is OutputFormat.JSON or not (sys.stdout.isatty() and sys.stdin.isatty()):
        _once(server, asked, limit, output)
        return
    asyncio.run(_Top(server, asked, interval).run())


def _once(server: str, asked: dict[str, Any], limit: int, output: OutputFormat) -> None:
    from rtpfanout.cli.top_view import PLAIN_COLUMNS, plain_cells

    with connect(server) as client:
        found = client.top_sessions(limit, **asked)
    if output is OutputFormat.JSON:
        write_json(message_dict(found))
        return
    write_table(PLAIN_COLUMNS, map(plain_cells, found.sessions))
    if found.matched > len(found.sessions):
        say(f"there are more than these {len(found.sessions)} sessions: --limit, or other words")


class _Top:
    """The screen, until it is left."""

    def __init__(self, server: str, asked: dict[str, Any], interval: float) -> None:
        from rtpfanout.cli.top_keys import Looking

        self._server = server
        self._label_selector = asked["label_selector"]
        self._interval = interval
        self._looking: Looking = Looking(asked["order_by"], asked["reverse"], asked["words"])
        self._woken = asyncio.Event()
        self._found: Any = None
        self._subscribers: Any = None
        self._fault = ""

    async def run(self) -> None:
        """Raises what the first look raises."""
        from rich.console import Console
        from rich.live import Live

        from rtpfanout.client import AsyncSessionClient, Credentials

        credentials = Credentials.from_environment()
        async with AsyncSessionClient(self._server, credentials=credentials) as client:
            self._console = Console()
            await self._look(client)
            with (
                _keys(self._pressed),
                Live(console=self._console, screen=True, auto_refresh=False) as live,
            ):
                self._live = live
                loop = asyncio.get_running_loop()
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    loop.add_signal_handler(number, self._leave)
                loop.add_signal_handler(signal.SIGWINCH, self._draw)
                self._draw()
                while not self._looking.is_over:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), self._interval)
                    self._woken.clear()
                    await self._look_again(client)

    async def _look_again(self, client: "AsyncSessionClient") -> None:
        from rtpfanout.errors import RtpFanoutError

        try:
            await self._look(client.within(_CALL_SECONDS))
            self._fault = ""
        except RtpFanoutError as error:  # it may be back in a moment
            self._fault = error.message
        self._draw()

    async def _look(self, client: "AsyncSessionClient") -> None:
        from rtpfanout.errors import NotFoundError

        looking = self._looking
        self._found = await client.top_sessions(
            min(_MOST, looking.first + 2 * self._rows),  # the next page, too
            label_selector=self._label_selector,
            words=looking.words,
            order_by=looking.order_by,
            reverse=looking.is_reverse,
        )
        looking.came([session.session_id for session in self._found.sessions], self._rows)
        self._subscribers = None
        if looking.session:
            try:
                self._subscribers = await client.list_subscribers(looking.session, self._rows)
            except NotFoundError:
                looking.session = ""

    @property
    def _rows(self) -> int:
        """That the screen has room for."""
        from rtpfanout.cli.top_view import FRAME_LINES

        return max(1, self._console.size.height - FRAME_LINES)

    def _pressed(self, keys: list[str]) -> None:
        for key in keys:
            if self._looking.press(key):
                self._woken.set()
        self._draw()

    def _leave(self) -> None:
        self._looking.is_over = True
        self._woken.set()

    def _draw(self) -> None:
        from rtpfanout.cli.top_view import screen

        shown = screen(
            self._found, self._subscribers, self._looking, self._console.size, self._server,
            self._fault,
        )  # fmt: skip
        self._live.update(shown, refresh=True)


@contextmanager
def _keys(pressed: "Callable[[list[str]], None]") -> "Iterator[None]":
    """What is typed, key by key, and nothing of it on the screen."""
    import termios
    import tty

    from rtpfanout.cli.top_keys import keys_of

    stdin = sys.stdin.fileno()
    before = termios.tcgetattr(stdin)
    loop = asyncio.get_running_loop()

    def read() -> None:
        data = os.read(stdin, 1024)
        # Without a terminal there is nobody to look.
        pressed(keys_of(data) if data else ["q", "q", "q"])

    tty.setcbreak(stdin)
    loop.add_reader(stdin, read)
    try:
        yield
    finally:
        loop.remove_reader(stdin)
        termios.tcsetattr(stdin, termios.TCSADRAIN, before)
