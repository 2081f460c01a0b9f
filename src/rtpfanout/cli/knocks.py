"""`rtpfanout knocks`: who sends RTP that no session admits, and what would admit it."""

from typing import Annotated, Any

import typer

from rtpfanout.admitting import next_step
from rtpfanout.cli.output import (
    DEFAULT_SERVER,
    Output,
    OutputFormat,
    Server,
    age,
    message_dict,
    say,
    write,
    write_json,
)
from rtpfanout.cli.session_choice import connect


def knocks(
    limit: Annotated[int, typer.Option(min=0, metavar="N", help="Only the latest N; 0: all.")] = 0,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Show who sends RTP that no session admits, the latest first.

    Behind each stands the command that would admit it. Up to 256 are kept, in memory: a stranger is
    one SSRC from one address.
    """
    with connect(server) as client:
        found = client.list_knocks(limit)
        meant = {knock.session_id for knock in found} - {""}
        sessions = {session_id: _session(client, session_id) for session_id in meant}
    if output is OutputFormat.JSON:
        write_json([message_dict(k) | next_step(k, sessions) for k in found])
        return
    if not found:
        say("nobody knocks: every RTP packet that comes has a session")
    for knock in found:
        session = knock.session_name or knock.session_id
        write(
            f"{knock.source_address}  SSRC {knock.ssrc:#010x}  payload type {knock.payload_type}"
            f"  {knock.packets} packets, the last {age(knock.last_seen)} ago  {knock.reason}"
            + (f"  (like {session})" if session else "")
        )
        step = next_step(knock, sessions)
        write(f"    {step['admit_by']}")
        if step["note"]:
            write(f"    # {step['note']}")


def _session(client: Any, session_id: str) -> Any:
    """None: it has gone meanwhile."""
    from rtpfanout.errors import RtpFanoutError

    try:
        return client.get_session(session_id)
    except RtpFanoutError:
        return None
