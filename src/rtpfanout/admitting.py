"""Which command lets a stranger in whose packets no session admits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rtpfanout.model import Condition, SourcePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBATION = "probation"
"""Why it was dropped: it sends beside what its session follows."""


def next_step(knock: Any, sessions: Mapping[str, Any]) -> dict[str, str]:
    """Of a Knock of session.proto: the command that admits it, by another session or a change of
    the one that was nearly meant, and what there is to know beside. `sessions` has those that may
    be meant, by id, as SessionResponse or None.
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
