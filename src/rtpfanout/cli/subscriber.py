"""`rtpfanout subscriber`: aim a session's copies at addresses, stop that, and list them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtpfanout.cli.listing import DEFAULT_LIMIT, Every, Limit, is_wide, page_size, write_list
from rtpfanout.cli.output import (
    DEFAULT_SERVER,
    Output,
    OutputFormat,
    Server,
    age,
    say,
    write,
    write_json,
)
from rtpfanout.cli.sdp import DEFAULT_WAIT, EveryPart, Wait, described, parts_of, write_file
from rtpfanout.cli.session_options import SessionId, SubscriberClass, connect
from rtpfanout.errors import NotFoundError, UnimplementedError

if TYPE_CHECKING:
    from rtpfanout.client import SessionClient
    from rtpfanout.client.requests import SubscribeOptions

app = typer.Typer(help="Add, remove and list the subscribers of a session.", no_args_is_help=True)

Addresses = Annotated[
    list[str], typer.Argument(metavar="ADDRESS", help="Where copies go, ip:port or [ipv6]:port.")
]

MOST_UNREACHED = 10
"""Of which the table is followed by who says so."""

LIST_COLUMNS = (
    "ADDRESS", "SENT", "FAILED", "AGE", "CLASS", "STATE", "EXPIRES", "RTCP", "LOST", "RTT",
    "REACH",
)  # fmt: skip
NARROW_COLUMNS = ("ADDRESS", "SENT", "FAILED", "STATE", "LOST", "REACH")
"""Within 80."""


@app.command("add")
def add(
    session_id: SessionId,
    addresses: Addresses,
    ttl: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="Remove them after so long unless added again; 0: never."
        ),
    ] = 0.0,
    subscriber_class: SubscriberClass = "",
    sdp: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write what a player at ADDRESS opens; - is standard output."
        ),
    ] = None,
    every: EveryPart = False,
    wait: Wait = DEFAULT_WAIT,
    rtcp: Annotated[
        str,
        typer.Option(
            help="Whether it has RTCP: off, mux (at its own port) or next_port (at the one above);"
            " default: as it is, and off for a new one.",
            autocompletion=lambda: ["off", "mux", "next_port"],
        ),
    ] = "",
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Copy the session to these addresses, too.

    Adding one again sets --ttl and --class anew. Up to 1000 are added together: all of them, or
    none if one is refused. With --sdp the description is written once packets have told what it
    carries, or --wait is over: that is no reason to start the source before.

    With --rtcp its source's sender reports go there, too (lip sync, wall clock), and its reports
    and requests for a keyframe are taken; its last report is in `subscriber list`.
    """
    if (sdp or every) and len(addresses) != 1:
        raise typer.BadParameter("--sdp and --all are for one ADDRESS")
    if sdp and not sdp.parent.is_dir():  # before anybody is added; "-" is beside us
        raise typer.BadParameter(f"--sdp: {sdp.parent} is no directory")
    present = 0
    options: SubscribeOptions = {"ttl_secs": ttl, "subscriber_class": subscriber_class}
    if rtcp:
        options["rtcp"] = rtcp
    with connect(server) as client:
        parts = parts_of(client, session_id, addresses[0], every=every) if sdp or every else []
        session_id = parts[0][0] if parts else session_id
        for batch in _batches(addresses):
            present += _add(client, session_id, batch, options, output)
        for name, address in parts[1:]:
            present += _add(client, name, [address], options, output)
        if sdp:
            write_file(described(client, parts, wait).sdp, sdp)
    if output is OutputFormat.JSON:
        write_json({"session_id": session_id, "added": addresses})
    if present:
        say(f"{present} of them had been added before")


@app.command("rm")
def remove(
    session_id: SessionId,
    addresses: Addresses,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Stop copying to these addresses.

    When it returns no packet leaves to them any more.
    """
    addresses = list(dict.fromkeys(addresses))
    missing: list[str] = []
    with connect(server) as client:
        for batch in _batches(addresses):
            missing += _remove(client, session_id, batch, output)
    if output is OutputFormat.JSON:
        removed = [address for address in addresses if address not in missing]
        write_json({"session_id": session_id, "removed": removed})
    if missing:
        lines = (f"session {session_id} has no subscriber {address}" for address in missing)
        raise NotFoundError("\n".join(lines), field="subscriber_address")


@app.command("list")
def list_subscribers(
    session_id: SessionId,
    limit: Limit = DEFAULT_LIMIT,
    every: Every = False,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """List a session's subscribers with their counters, oldest first.

    On a terminal that is too narrow for all columns: those that say whether copies get there.
    """
    columns, row = (LIST_COLUMNS, _list_row) if is_wide() else (NARROW_COLUMNS, narrow_row)
    with connect(server) as client:
        found = client.iter_subscribers(session_id, page_size(limit, every))
        subscribers = write_list("subscribers", found, limit, every, output, columns, row)
    if output is OutputFormat.TABLE:
        for reason in dict.fromkeys(s.refused_reason for s in subscribers if s.refused_reason):
            say(f"refused: {reason}")
        _say_who_is_not_reached(subscribers)


def _say_who_is_not_reached(subscribers: list[Any]) -> None:
    found = [s for s in subscribers if s.reach not in ("", "unknown", "reachable")]
    for each in found[:MOST_UNREACHED]:
        say(f"{each.subscriber_address}: {each.reach}: {each.reach_detail}")
    if len(found) > MOST_UNREACHED:
        say(f"and {len(found) - MOST_UNREACHED} more that copies do not get to")


def narrow_row(subscriber: Any) -> tuple[object, ...]:
    """By NARROW_COLUMNS."""
    cells = dict(zip(LIST_COLUMNS, _list_row(subscriber), strict=True))
    return tuple(cells[name] for name in NARROW_COLUMNS)


def _list_row(subscriber: Any) -> tuple[object, ...]:
    return (
        subscriber.subscriber_address,
        subscriber.packets_sent,
        subscriber.send_failures,
        age(subscriber.since),
        subscriber.subscriber_class or "-",
        subscriber.state or "-",
        subscriber.expires_at or "-",
        subscriber.rtcp or "-",
        *_report_cells(subscriber),
        subscriber.reach or "-",
    )


def _report_cells(subscriber: Any) -> tuple[str, str]:
    """Loss and round trip by its last report."""
    if not subscriber.HasField("report"):
        return "-", "-"
    report = subscriber.report
    has_trip = report.HasField("round_trip_seconds")
    trip = f"{1000 * report.round_trip_seconds:.3g} ms" if has_trip else "-"
    return f"{100 * report.fraction_lost:.3g} %", trip


def _add(
    client: "SessionClient",
    session_id: str,
    addresses: list[str],
    options: "SubscribeOptions",
    output: OutputFormat,
) -> int:
    """How many had been added before, as far as the server tells."""
    if len(addresses) > 1:
        try:
            response = client.add_subscribers(session_id, addresses, **options)
        except UnimplementedError:
            pass  # a server of the first version: one by one
        else:
            _done("added", addresses, output)
            return response.already_present
    for address in addresses:
        client.add_subscriber(session_id, address, **options)
        _done("added", [address], output)
    return 0


def _remove(
    client: "SessionClient", session_id: str, addresses: list[str], output: OutputFormat
) -> list[str]:
    """Those that were no subscribers; one by one, the first of them is an error."""
    if len(addresses) > 1:
        try:
            not_found = list(client.remove_subscribers(session_id, addresses).not_found)
        except UnimplementedError:
            pass
        else:
            _done("removed", [a for a in addresses if a not in not_found], output)
            return not_found
    for address in addresses:
        client.remove_subscriber(session_id, address)
        _done("removed", [address], output)
    return []


def _done(what: str, addresses: list[str], output: OutputFormat) -> None:
    if output is OutputFormat.TABLE:
        for address in addresses:
            write(f"{what} {address}")


def _batches(addresses: list[str]) -> "Iterator[list[str]]":
    from rtpfanout.client import BATCH_SIZE

    for start in range(0, len(addresses), BATCH_SIZE):
        yield addresses[start : start + BATCH_SIZE]
