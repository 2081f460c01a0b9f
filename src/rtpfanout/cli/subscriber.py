"""`rtpfanout subscriber`: aim a session's copies at addresses, and stop that."""

from collections.abc import Callable
from typing import Annotated

import typer

from rtpfanout.cli.output import DEFAULT_SERVER, Output, OutputFormat, Server, write, write_json

app = typer.Typer(help="Add and remove the subscribers of a session.", no_args_is_help=True)

SessionId = Annotated[str, typer.Argument(metavar="SESSION_ID", help="The session's UUID.")]
Addresses = Annotated[
    list[str], typer.Argument(metavar="ADDRESS", help="Where copies go, ip:port or [ipv6]:port.")
]


@app.command("add")
def add(
    session_id: SessionId,
    addresses: Addresses,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Copy the session to these addresses too; adding one twice changes nothing."""
    from rtpfanout.client import SessionClient

    with SessionClient(server) as client:
        _each(client.add_subscriber, "added", session_id, addresses, output)


@app.command("rm")
def remove(
    session_id: SessionId,
    addresses: Addresses,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Stop copying to these addresses; no packet leaves to them afterwards."""
    from rtpfanout.client import SessionClient

    with SessionClient(server) as client:
        _each(client.remove_subscriber, "removed", session_id, addresses, output)


def _each(
    call: Callable[[str, str], None],
    done: str,
    session_id: str,
    addresses: list[str],
    output: OutputFormat,
) -> None:
    for address in addresses:
        call(session_id, address)
        if output is OutputFormat.TABLE:
            write(f"{done} {address}")
    if output is OutputFormat.JSON:
        write_json({"session_id": session_id, done: addresses})
