"""`rtpfanout session update`, `pause`, `resume` and `token`."""

from typing import Annotated, Any

import typer

from rtpfanout.cli.output import (
    DEFAULT_SERVER,
    Output,
    OutputFormat,
    Server,
    message_dict,
    write,
    write_fields,
    write_json,
)
from rtpfanout.cli.session_options import (
    SessionId,
    Ssrc,
    SubscriberClass,
    connect,
    given,
    takes_terms,
)
from rtpfanout.cli.session_shown import print_session


@takes_terms(after="source")
def update(
    session_id: SessionId,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Who may feed it from now on.")
    ] = None,
    ssrc: Ssrc = None,
    if_revision: Annotated[
        int, typer.Option(min=0, metavar="N", help="Only if the session's revision is still N.")
    ] = 0,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
    **terms: Any,
) -> None:
    """Change a session in one step; what is not given stays. `--label KEY=` removes a label.

    --name is its new name; with --name "" it has none any more.
    """
    named = {"source_address": source, "ssrc": ssrc}
    changes = given(terms) | given(named)
    if not changes:
        raise typer.BadParameter("nothing to change: give at least one option")
    with connect(server) as client:
        session = client.update_session(session_id, if_revision=if_revision, **changes)
    print_session(session, output)


def pause(
    session_id: SessionId, output: Output = OutputFormat.TABLE, server: Server = DEFAULT_SERVER
) -> None:
    """Drop the session's packets; its subscribers stay."""
    _set_paused(session_id, True, output, server)


def resume(
    session_id: SessionId, output: Output = OutputFormat.TABLE, server: Server = DEFAULT_SERVER
) -> None:
    """Forward the session's packets again."""
    _set_paused(session_id, False, output, server)


def token(
    session_id: SessionId,
    ttl: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Good for so long; 0: an hour.")
    ] = 0.0,
    lease: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="A subscription outlasts its last sign of life; 0: 30."
        ),
    ] = 0.0,
    subscriber_class: SubscriberClass = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the token alone.")] = False,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Issue a token for `rtpfanout recv --join`.

    With it a receiver subscribes itself. It is a secret: whoever has it gets the session.
    """
    with connect(server) as client:
        issued = client.issue_join_token(
            session_id,
            ttl_secs=ttl,
            lease_secs=lease,
            subscriber_class=subscriber_class,
        )
    if quiet:
        write(issued.token)
    elif output is OutputFormat.JSON:
        write_json(message_dict(issued))
    else:
        write_fields(message_dict(issued))


def _set_paused(session_id: str, paused: bool, output: OutputFormat, server: str) -> None:
    with connect(server) as client:
        session = client.update_session(session_id, paused=paused)
    if output is OutputFormat.JSON:
        write_json(message_dict(session))
    else:
        write(f"{'paused' if paused else 'resumed'} {session_id}")
