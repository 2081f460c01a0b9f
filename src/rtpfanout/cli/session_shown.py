"""What commands show of a session: all of it, or a row of a table."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rtpfanout.cli.output import OutputFormat, message_dict, write_fields, write_json
from rtpfanout.cli.session_rtcp import shown_rtcp
from rtpfanout.model import LatchScope, SsrcPolicy

LATCH_OVER = "latch_over"
"""Instead of a condition: nobody came in time, and nobody is waited for."""


def print_session(session: Any, output: OutputFormat) -> None:
    """All that is known of one session."""
    fields = message_dict(session)
    if output is OutputFormat.JSON:
        write_json(fields)
        return
    readable = {
        "ssrc": shown_ssrc_of(session),
        "labels": shown_labels(fields["labels"]),
        "name": session.name or "-",
        "idle_timeout_secs": shown_timeout(session),
        "ingest_port": session.ingest_port or "-",
        "dscp": session.dscp or "-",
        **shown_rtcp(session),
        "encoding": shown_encoding(fields["encoding"]),
        "ssrc_policy": session.ssrc_policy or SsrcPolicy.EXACT.value,
        "latch_scope": session.latch_scope or LatchScope.ADDRESS.value,
        "latch_until": shown_latch(session),
        "ssrcs": ", ".join(map(shown_ssrc, session.ssrcs)) or "-",
        **{name: shown_choice(session, name) for name in ("check_padding", "rtcp_mux")},
    }
    first = {"session_id": session.session_id, "name": ""}
    write_fields(first | fields | readable)


def shown_encoding(encoding: Mapping[str, Any] | None) -> str:
    """As ``--encoding`` takes it, and the format parameters."""
    if encoding is None:
        return "- (its packets tell)"
    number = encoding["payload_type"]
    parts = [
        encoding["name"],
        *(str(v) for v in (encoding["clock_rate"], encoding["channels"]) if v),
    ]
    return f"{'' if number is None else f'{number}:'}{'/'.join(parts)} {encoding['fmtp']}".strip()


def shown_ssrc_of(session: Any) -> str:
    """The one that it was told."""
    if session.ssrc_policy and not session.ssrc:
        return "- (whichever comes)"
    return f"{session.ssrc:#010x} ({session.ssrc})"


def shown_ssrc(source: Any) -> str:
    """One that comes now."""
    return f"{source.ssrc:#010x} (payload type {source.payload_type}, since {source.since})"


def is_latch_over(session: Any) -> bool:
    """Whether it waits for nobody any more, and nobody came."""
    until = session.latch_until
    return bool(until) and datetime.fromisoformat(until) < datetime.now(UTC)


def shown_latch(session: Any) -> str:
    """Until when somebody may come, and what to do when that is over."""
    if not is_latch_over(session):
        return session.latch_until or "-"
    which = session.name or session.session_id
    return (
        f"{session.latch_until}, which is over: rtpfanout session update {which} --latch-window 60"
    )


def shown_choice(session: Any, name: str) -> str:
    """Yes or no, or that the server decides."""
    return str(getattr(session, name)) if session.HasField(name) else "-"


def ssrc_cell(session: Any) -> str:
    """The one that comes, or that is expected."""
    ssrc = session.ssrcs[0].ssrc if session.ssrcs else session.ssrc
    more = f" +{len(session.ssrcs) - 1}" if len(session.ssrcs) > 1 else ""
    return f"{ssrc:#010x}{more}" if ssrc or not session.ssrc_policy else "-"


def shown_timeout(session: Any) -> str:
    """How long it stays without packets."""
    if session.HasField("idle_timeout_secs"):
        return f"{session.idle_timeout_secs:g}" if session.idle_timeout_secs else "0 (never)"
    return "- (never, as it has a name)" if session.name else "- (session_timeout_secs)"


def session_cells(session: Any) -> tuple[object, ...]:
    """What tables say of a session: id, name, source (who is pinned, or may be), SSRC, media,
    subscribers, status, condition.
    """
    return (
        session.session_id,
        session.name or "-",
        session.pinned_source or session.source_address or "any",
        ssrc_cell(session),
        session.media_type,
        session.subscriber_count,
        session.status,
        LATCH_OVER if is_latch_over(session) else session.condition or "-",
    )


def shown_labels(labels: Mapping[str, str]) -> str:
    """In one word, by key."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "-"
