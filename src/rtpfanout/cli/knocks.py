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
from rtpfanout.model import Condition, SourcePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBATION = "probation"
"""Why it was dropped: it sends beside what its session follows."""


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


def next_step(knock: Any, sessions: "Mapping[str, Any]") -> dict[str, str]:
    """The command that admits it, by another session or a change of the one that was nearly meant;
    and what there is to know beside.
    """
    session = sessions.get(knock.session_id)
    if session is not None and (change := _change(knock, session)):
        command, note = f"session update {_title(session)} {change}", ""
    else:
        command, note = f"session create {knock.source_address}", ""
        if session is not None and session.ingest_port:
            command += " --ingest-port auto"
        if session is not None and knock.reason == PROBATION:
            note = _of_two_cameras(knock, session)
    return {"admit_by": f"rtpfanout {command}", "note": note}


def _title(session: Any) -> str:
    return str(session.name or session.session_id)


def _of_two_cameras(knock: Any, session: Any) -> str:
    if not _is_fed(session):
        return (
            f"if it is the camera of {_title(session)}, which is silent:"
            f" rtpfanout session update {_title(session)} --ssrc {knock.ssrc:#010x}"
        )
    return (
        f"{_title(session)} has another camera of this address; several behind one address need a"
        " port each (--ingest-port auto), or --latch-scope address"
    )


def _is_fed(session: Any) -> bool:
    return session.condition not in (Condition.NEVER_FED, Condition.SILENT)


def _change(knock: Any, session: Any) -> str:
    """The options, or "": it is not to have this session."""
    source = knock.source_address
    policy = session.source_policy
    if knock.reason == PROBATION:
        return "--ssrc-policy any" if knock.from_feeder else ""
    if _is_fed(session):
        return ""
    if policy == SourcePolicy.LATCH and not session.pinned_source:
        return "--latch-window 60"
    feeder = session.pinned_source or session.source_address
    if feeder == source or policy in (SourcePolicy.IP, SourcePolicy.CIDR):
        return "" if session.ssrc_policy else "--ssrc-policy follow"
    if policy == SourcePolicy.LATCH:
        return f"--source-policy exact --source {source}"
    follow = "" if session.ssrc_policy or session.ssrc == knock.ssrc else " --ssrc-policy follow"
    return f"--source {source}{follow}"
