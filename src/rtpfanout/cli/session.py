"""`rtpfanout session`: create, look at, change and delete sessions over gRPC."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtpfanout.cli import session_change, session_watch
from rtpfanout.cli.listing import DEFAULT_LIMIT, Every, Limit, is_wide, page_size, write_list
from rtpfanout.cli.output import (
    DEFAULT_SERVER,
    Output,
    OutputFormat,
    Server,
    age,
    message_dict,
    write,
    write_fields,
    write_json,
)
from rtpfanout.cli.session_options import (
    Selector,
    SessionId,
    SessionIds,
    Ssrc,
    connect,
    creation,
    given,
    instead_of,
    selector,
    takes_terms,
)
from rtpfanout.cli.session_shown import print_session, session_cells
from rtpfanout.cli.session_stats import in_a_line, readable_stats

if TYPE_CHECKING:
    from rtpfanout.client import SessionClient

app = typer.Typer(help="Create, look at, change and delete sessions.", no_args_is_help=True)

LIST_COLUMNS = (
    "ID",
    "NAME",
    "SOURCE",
    "SSRC",
    "MEDIA",
    "SUBSCRIBERS",
    "STATUS",
    "CONDITION",
    "AGE",
)
NARROW_COLUMNS = ("SESSION", "SOURCE", "SUBS", "STATUS", "CONDITION", "AGE")
"""Within 80: SESSION is the name, or as much of the id as commands need of it, mostly."""


@app.command("create")
@takes_terms(after="media_type")
def create(
    source_address: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Who may feed it: ip:port, or as --source-policy; any: whoever sends first.",
        ),
    ],
    ssrc: Ssrc = None,
    media_type: Annotated[
        str,
        typer.Option(
            "--media-type",
            "-m",
            help="audio, video or data.",
            autocompletion=lambda: ["audio", "video", "data"],
        ),
    ] = "video",
    if_exists: Annotated[
        str,
        typer.Option(
            help="error, or return: the session that is there of this name, or of this SSRC and "
            "source, will do, if it is the same.",
            autocompletion=lambda: ["error", "return"],
        ),
    ] = "error",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the id alone.")] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
    **terms: Any,
) -> None:
    """Create a session, and say who may feed it.

    Packets from this source get in, whatever their SSRC. An encoder that restarts, with another
    SSRC, is followed; --ssrc says which one is meant where a source sends several, --ssrc-policy
    any takes all of them, and exact the one of --ssrc alone. SOURCE any is a latch: the first who
    sends is pinned, and from then on any port of its address, and nobody else, feeds it.

    With --name it stays until it is deleted; without, it ends after session_timeout_secs (300)
    without packets. --idle-timeout says otherwise for this one.
    """
    if terms["name"] == "":
        raise typer.BadParameter("--name is empty; leave it out for a session without a name")
    source_address, options = creation(source_address, ssrc, given(terms))
    if if_exists != "error":
        options["if_exists"] = if_exists
    with connect(server) as client:
        from rtpfanout.errors import InvalidArgumentError

        try:
            session = client.create_session(source_address, ssrc or 0, media_type, **options)
        except InvalidArgumentError as error:
            if error.field != "source_address" or "source_policy" in options:
                raise
            said = f"{error.message}{instead_of(source_address)}"
            raise InvalidArgumentError(said, field=error.field) from None
    if quiet:
        write(session.session_id)
    else:
        print_session(session, output)


@app.command("list")
def list_sessions(
    limit: Limit = DEFAULT_LIMIT,
    every: Every = False,
    label: Selector = None,
    name: Annotated[
        str, typer.Option(metavar="PREFIX", help="Only those whose name begins so: rover-7/")
    ] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """List sessions, oldest first.

    On a terminal that is too narrow for all columns: those that say whose it is and how it fares.
    """
    columns, row = (LIST_COLUMNS, _list_row) if is_wide() else (NARROW_COLUMNS, narrow_row)
    with connect(server) as client:
        found = client.iter_sessions(
            page_size(limit, every), label_selector=selector(label), name_prefix=name
        )
        write_list("sessions", found, limit, every, output, columns, row)


@app.command("get")
def get(
    session_id: SessionId, output: Output = OutputFormat.TABLE, server: Server = DEFAULT_SERVER
) -> None:
    """Show one session."""
    with connect(server) as client:
        print_session(client.get_session(session_id), output)


@app.command("delete", hidden=True)
@app.command("rm")
def remove(
    session_ids: SessionIds,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Delete sessions; no packet of theirs leaves afterwards.

    Those that are not there are named at the end, when the others are deleted.
    """
    from rtpfanout.errors import NotFoundError

    deleted, missing = [], []
    with connect(server) as client:
        for session_id in session_ids:
            try:
                client.delete_session(session_id)
            except NotFoundError:
                missing.append(session_id)
                continue
            deleted.append(session_id)
            if output is OutputFormat.TABLE:
                write(f"deleted {session_id}")
    if output is OutputFormat.JSON:
        write_json({"deleted": deleted})
    if missing:
        raise NotFoundError(f"no session {', '.join(missing)}", field="session_id")


@app.command("keyframe")
def keyframe(session_id: SessionId, server: Server = DEFAULT_SERVER) -> None:
    """Ask the session's source for a keyframe.

    By RTCP, as its --keyframe-request says (pli), with its next packet. Not more often than every
    half a second, however often it is called. A source that knows no RTCP does nothing.
    """
    with connect(server) as client:
        client.request_keyframe(session_id)
    write(f"asked for a keyframe of {session_id}")


@app.command("stats")
def stats(
    session_id: SessionId,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until Ctrl-C.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Between two looks of --watch.")
    ] = 1.0,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show how a session is received and sent on.

    With --watch, and JSON, one object a line. packets_received are those that were admitted,
    dropped what came and was not, by reason; wrong_source: with this SSRC from an address that no
    session of it admits. Expected and lost are by the source's own numbers. JSON has all there is.
    """
    with connect(server) as client:
        if watch:
            _watch_stats(client, session_id, interval, output)
            return
        fields = message_dict(client.get_session_stats(session_id))
        source = _source(client, session_id) if output is OutputFormat.TABLE else ""
    if output is OutputFormat.JSON:
        write_json(fields)
    else:
        write_fields(readable_stats(fields, source))


app.command("update")(session_change.update)
app.command("pause")(session_change.pause)
app.command("resume")(session_change.resume)
app.command("watch")(session_watch.watch)
app.command("token")(session_change.token)


def _source(client: "SessionClient", session_id: str) -> str:
    from rtpfanout.why import feeder

    session = client.get_session(session_id)
    return feeder(message_dict(session))


def _watch_stats(
    client: "SessionClient", session_id: str, interval: float, output: OutputFormat
) -> None:
    from rtpfanout.cli.live import LiveView
    from rtpfanout.cli.output import rich_table
    from rtpfanout.traffic.stopping import StopFlag

    drawn = output is OutputFormat.TABLE and sys.stdout.isatty()
    header_due = output is OutputFormat.TABLE
    with StopFlag() as stop, LiveView(drawn, stderr=False, transient=False) as view:
        while not stop:
            fields = message_dict(client.get_session_stats(session_id))
            if output is OutputFormat.JSON:
                write_json(fields, indent=None)
            elif drawn:
                told = readable_stats(fields, _source(client, session_id))
                view.update(rich_table(("COUNTER", "VALUE"), told.items()))
            else:
                values = in_a_line(fields)
                widths = {name: max(len(name), 8) for name in values}
                if header_due:
                    write("  ".join(name.ljust(width) for name, width in widths.items()).rstrip())
                    header_due = False
                cells = (str(value).ljust(widths[name]) for name, value in values.items())
                write("  ".join(cells).rstrip())
            stop.sleep(interval)


def narrow_row(session: Any) -> tuple[object, ...]:
    """By NARROW_COLUMNS."""
    _id, _name, source, _ssrc, _media, subscribers, status, condition = session_cells(session)
    title = session.name or session.session_id[:8]
    return title, source, subscribers, status, condition, age(session.created_at)


def _list_row(session: Any) -> tuple[object, ...]:
    return (*session_cells(session), age(session.created_at))
