"""`rtpfanout knocks`: who sends RTP that no session admits, and what would admit it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

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
from rtpfanout.model import SourcePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping


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
        write_json([message_dict(k) | {"admit_by": admit_by(k, sessions)} for k in found])
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
        write(f"    {admit_by(knock, sessions)}")


def _session(client: Any, session_id: str) -> Any:
    """None: it has gone meanwhile."""
    from rtpfanout.errors import RtpFanoutError

    try:
        return client.get_session(session_id)
    except RtpFanoutError:
        return None


def admit_by(knock: Any, sessions: "Mapping[str, Any]") -> str:
    """The command: a change of the session that was nearly meant, or another session."""
    session = sessions.get(knock.session_id)
    change = _change(knock, session) if session is not None else ""
    if session is None or not change:
        return f"rtpfanout session create {knock.source_address}"
    return f"rtpfanout session update {session.name or session.session_id} {change}"


def _change(knock: Any, session: Any) -> str:
    source = knock.source_address
    policy = session.source_policy
    if policy == SourcePolicy.LATCH and not session.pinned_source:
        return "--latch-window 60"
    feeder = session.pinned_source or session.source_address
    if feeder == source or policy in (SourcePolicy.IP, SourcePolicy.CIDR):
        return "" if session.ssrc_policy else "--ssrc-policy follow"
    if policy == SourcePolicy.LATCH:
        return f"--source-policy exact --source {source}"
    follow = "" if session.ssrc_policy or session.ssrc == knock.ssrc else " --ssrc-policy follow"
    return f"--source {source}{follow}"
