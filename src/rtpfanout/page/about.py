"""One session: what is told of it, its figures of ten minutes, its subscribers."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rtpfanout._fastpath import CONDITIONS
from rtpfanout.admitting import next_step
from rtpfanout.convert import knock_message, rfc3339, session_response
from rtpfanout.errors import RtpFanoutError
from rtpfanout.reach import State
from rtpfanout.sessions import SubscriberState, shown_terms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.sessions import Figures, Moment, SessionManager, SubscriberView

SUBSCRIBERS_AT_A_TIME = 100
STEPS_PER_OCTAVE = 8
"""Of latency, as the engine counts; four times coarser here."""
_STEPS = 2
UNREACHED = (State.NO_ARP, State.NO_ROUTE, State.PORT_CLOSED, State.SILENT_RECEIVER)
MOST_KNOCKS = 50


def session(manager: SessionManager, session_id: str, *, has_history: bool) -> dict[str, Any]:
    """Raises InvalidArgumentError, NotFoundError."""
    view = manager.get(session_id)
    stats = manager.stats(view.session_id)
    told: dict[str, Any] = {
        "session": {
            "session_id": view.session_id,
            "ssrc": view.ssrc,
            "media_type": view.media_type,
            "status": view.status,
            "condition": view.condition,
            "condition_help": CONDITIONS.get(str(view.condition), ""),
            "condition_since": view.condition_since and rfc3339(view.condition_since),
            "created_at": rfc3339(view.created_at),
            "refused_reason": view.refused_reason,
            "refused_subscribers": view.refused_subscribers,
            "ssrcs": [{"ssrc": each.ssrc, "since": rfc3339(each.since)} for each in view.ssrcs],
            **shown_terms(view.terms),
        },
        "stats": asdict(stats),
    }
    if not view.refused_reason:
        told["latency"] = _latency(manager, view.session_id)
        handle = manager.overview.handle_of(view.session_id)
        told["loss"] = manager.overview.lost_lately(handle)
        if has_history:
            told["history"] = _history(manager.overview.history.seen(), handle, manager)
    return told


async def subscribers(manager: SessionManager, session_id: str, cursor: str) -> dict[str, Any]:
    """A page of them. Raises InvalidArgumentError, NotFoundError."""
    found, next_cursor = manager.list_subscribers(session_id, SUBSCRIBERS_AT_A_TIME, cursor)
    found = await asyncio.to_thread(manager.reaching.of, session_id, found)
    return {"subscribers": [_subscriber(each) for each in found], "next_cursor": next_cursor}


def _subscriber(view: SubscriberView) -> dict[str, Any]:
    return {
        "address": str(view.address),
        "since": rfc3339(view.since),
        "class": view.subscriber_class,
        "expires_at": rfc3339(view.expires_at) if view.expires_at else "",
        "state": view.state,
        "is_unreached": view.reach in UNREACHED,
        "packets_sent": view.packets_sent,
        "send_failures": view.send_failures,
        "rtcp": view.rtcp,
        "report": asdict(view.report) if view.report else None,
        "hint": hint(view),
    }


def hint(view: SubscriberView) -> str:
    """What is wrong with it, if anything, and what to do; or what more could be known."""
    if view.state is SubscriberState.REFUSED:
        return f"gets nothing: {view.refused_reason}"
    if view.state is SubscriberState.SHED:
        return "gets nothing while the server is overloaded; pilots and recorders go first"
    if view.state is SubscriberState.AWAITING_CONSENT:
        return "gets nothing until its receiver consents, as `rtpfanout recv` does by itself"
    if view.reach in UNREACHED:
        return f"{view.reach.replace('_', ' ')}: {view.reach_detail}"
    if view.send_failures:
        return "the kernel refused some of its copies: is there a route, and room in its queue?"
    if view.report and view.report.fraction_lost >= 0.01:
        return "loses packets on the way from here"
    if view.rtcp != "off" and view.report is None:
        return "has sent no receiver report yet"
    return ""


def knocks(manager: SessionManager) -> dict[str, Any]:
    """Who sends and is not admitted, the latest first, each with the command that admits it."""
    told = []
    for knock in manager.knocks(MOST_KNOCKS):
        sessions = {}
        with contextlib.suppress(RtpFanoutError):  # it has gone
            if knock.session_id:
                sessions[knock.session_id] = session_response(manager.get(knock.session_id))
        told.append(
            {
                "source": str(knock.source),
                "ssrc": knock.ssrc,
                "payload_type": knock.payload_type,
                "packets": knock.packets,
                "first_seen": rfc3339(knock.first_seen),
                "last_seen": rfc3339(knock.last_seen),
                "reason": knock.reason,
                "session": knock.session_name or knock.session_id,
                **next_step(knock_message(knock), sessions),
            }
        )
    return {"knocks": told}


def _latency(manager: SessionManager, session_id: str) -> dict[str, Any]:
    """Counts by upper bound, two for each octave, those that are empty at both ends left out."""
    found = manager.overview.latency(session_id)
    step = STEPS_PER_OCTAVE // _STEPS
    bounds = found.bounds_seconds[::step]
    told: dict[str, Any] = {}
    for name, counts in (("first", found.first), ("last", found.last)):
        merged = [counts[0]]
        merged += [sum(counts[i + 1 : i + 1 + step]) for i in range(0, len(counts) - 1, step)]
        told[name] = merged[: len(bounds) + 1]
    used = [i for i, pair in enumerate(zip(*told.values(), strict=True)) if any(pair)]
    if not used:
        return {"bounds_seconds": [], "first": [], "last": []}
    cut = slice(max(0, used[0] - 1), used[-1] + 2)
    return {
        "bounds_seconds": bounds[cut],
        **{name: counts[cut] for name, counts in told.items()},
    }


def _history(moments: Sequence[Moment], handle: int, manager: SessionManager) -> dict[str, Any]:
    """A list of each figure; a loss is that since the moment before."""
    now = manager.overview.history.now_ns()
    found = [(moment.at_ns, figures) for moment in moments if (figures := moment.find(handle))]
    before: list[Figures | None] = [None, *(figures for _, figures in found)]
    return {
        "age_ms": [(now - at) // 10**6 for at, _ in found],
        "bitrate_bps": [round(each.bitrate_bps) for _, each in found],
        "frame_rate": [each.frame_rate for _, each in found],
        "jitter_seconds": [each.jitter_seconds for _, each in found],
        "loss": [
            each.lost_since(earlier) for (_, each), earlier in zip(found, before, strict=False)
        ],
    }
