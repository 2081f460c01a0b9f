"""From the camera into the server: the server itself, the session, its source, what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtpfanout.model import Condition, SessionStatus, SourcePolicy
from rtpfanout.why.finding import Evidence, Fields, Finding, Knocked, Level, Station, feeder, share

if TYPE_CHECKING:
    from collections.abc import Iterator

MUCH_LOST = 0.005
"""A share of packets that people see."""
ENOUGH_PACKETS = 50
"""To tell a share from."""


def server(e: Evidence) -> Iterator[Finding]:
    """Is it overloaded, and does its receive queue overflow?"""
    health = e.after["server"]
    if not health:
        text = "it answers; being older, or the session refused, it tells no more of itself"
        yield Finding(Station.SERVER, Level.OK, "answers", text)
        return
    shed = e.grown("dropped_overload")
    marks = ", ".join(health["overload_marks"])
    if shed:
        yield Finding(
            Station.SERVER,
            Level.CAUSE,
            "overload",
            f"it is overloaded: of this session {shed} packets in {e.seconds:.1f} s were beyond its"
            " share of what can be sent",
            ("fewer subscribers, more workers, or another server", "rtpfanout doctor"),
        )
    dropped = e.grown_in("server", "kernel_receive_drops")
    if dropped:
        yield _overflow(e, dropped)
    elif marks and not shed:
        text = f"a high-water mark is passed ({marks}): it takes nobody new"
        yield Finding(Station.SERVER, Level.NOTE, "mark_passed", text, ("rtpfanout doctor",))
    elif not shed:
        yield _calm(e, health["kernel_receive_drops"], health["packets_received"])


def _calm(e: Evidence, dropped: int, received: int) -> Finding:
    if dropped:
        return Finding(
            Station.SERVER,
            Level.NOTE,
            "dropped_before",
            f"not overloaded, and nothing dropped at its receive queue in {e.seconds:.1f} s; but"
            f" {dropped} packets since its start ({share(dropped, dropped + received)})",
        )
    return Finding(
        Station.SERVER, Level.OK, "calm", "not overloaded; its receive queue has never overflowed"
    )


def _overflow(e: Evidence, dropped: int) -> Finding:
    health = e.after["server"]
    has, wants = health["receive_queue_bytes"], health["requested_receive_queue_bytes"]
    came = dropped + e.grown_in("server", "packets_received")
    text = (
        f"its receive queue is full again and again: the kernel dropped {dropped} packets of all"
        f" sessions ({share(dropped, came)}) in {e.seconds:.1f} s"
    )
    if has < wants:
        text += f"; it has {has} of the {wants} bytes that buffer_size asks for"
        cure = f"sysctl -w net.core.rmem_max={wants}  # then restart, or CAP_NET_ADMIN"
    else:
        text += f"; it has {has} bytes, all that buffer_size asks for"
        cure = "raise buffer_size; if a worker is always busy, there is too little CPU"
    return Finding(Station.SERVER, Level.CAUSE, "receive_queue", text, (cure, "rtpfanout doctor"))


def session(e: Evidence) -> Iterator[Finding]:
    """What it is, and whether it is to take packets at all."""
    of = e.session
    what = f"{of['name'] or of['session_id']}, {of['media_type']}, since {of['created_at']}"
    if of["status"] == SessionStatus.REFUSED:
        text = f"it is kept, and refused: {of['refused_reason']}"
        yield Finding(Station.SESSION, Level.CAUSE, "refused", text)
    elif of["status"] == SessionStatus.PAUSED:
        yield Finding(
            Station.SESSION,
            Level.CAUSE,
            "paused",
            f"it is paused: {e.grown('dropped_paused')} packets were dropped in {e.seconds:.1f} s",
            (f"rtpfanout session resume {e.name}",),
        )
    else:
        yield Finding(Station.SESSION, Level.OK, "there", what)


def camera(e: Evidence) -> Iterator[Finding]:
    """Do its packets come, and from where they are to?"""
    of, after = e.session, e.after
    if of["status"] in (SessionStatus.REFUSED, SessionStatus.PAUSED):
        return
    yield from _refusals(e)
    if e.flows:
        rate = e.grown("packets_received") / e.seconds
        yield Finding(
            Station.CAMERA,
            Level.OK,
            "sends",
            f"{rate:.0f} packets a second come from {_expected(e)}",
        )
        return
    last = after["seconds_since_last_packet"]
    if of["condition"] not in ("", Condition.NEVER_FED, Condition.SILENT):
        text = (
            f"no packet in {e.seconds:.1f} s, which is not long for it; the last came {last:.1f} s"
        )
        yield Finding(Station.CAMERA, Level.NOTE, "seldom", f"{text} ago")
        return
    if last is None:
        text = f"no packet ever came from {_expected(e)}"
    else:
        text = f"no packet for {last:.0f} s from {_expected(e)}"
    yield _missing(e, text)


def _expected(e: Evidence) -> str:
    of = e.session
    where = feeder(of)
    if of["source_policy"] == SourcePolicy.LATCH and not of["pinned_source"]:
        return f"whoever sends first{' of ' + where if where else ''}"
    port = f" (to port {of['ingest_port']})" if of["ingest_port"] else ""
    return f"{where}{port}"


def _missing(e: Evidence, text: str) -> Finding:
    """Why nothing comes: from elsewhere, or not at all."""
    nearly = [each for each in e.knocks or () if each.sends and _is_meant(e, each.knock)][:3]
    if nearly:
        said = "; ".join(map(_stranger, nearly))
        cures = tuple(dict.fromkeys(each.admit_by for each in nearly))
        return Finding(Station.CAMERA, Level.CAUSE, "knocks", f"{text}, but {said}", cures)
    wrong = e.after["last_wrong_source"]
    if wrong and e.grown("dropped_wrong_source"):
        return Finding(
            Station.CAMERA,
            Level.CAUSE,
            "wrong_source",
            f"{text}, but packets with its SSRC come from {wrong}",
            (f"rtpfanout session update {e.name} --source {wrong}",),
        )
    if e.grown("dropped_latching"):
        return Finding(
            Station.CAMERA,
            Level.CAUSE,
            "latching",
            f"{text}, but packets come that it may not latch on to any more",
            (f"rtpfanout session update {e.name} --latch-window 60", "rtpfanout knocks"),
        )
    unseen = (
        "; who knocks is not told to you" if e.knocks is None else ", and nobody like it knocks"
    )
    host = _host(e)
    return Finding(
        Station.CAMERA,
        Level.CAUSE,
        "nothing_comes",
        f"{text}{unseen}: it does not send, sends elsewhere, or is dropped before it gets here",
        (f"tcpdump -ni any udp{host}  # on the server's host: do its packets get here?",),
    )


def _stranger(knocked: Knocked) -> str:
    of = knocked.knock
    return (
        f"{of['source_address']} sends what may be its (SSRC {of['ssrc']:#010x}, {of['packets']}"
        f" packets, dropped as {of['reason']})"
    )


def _host(e: Evidence) -> str:
    where = e.session["pinned_source"] or e.session["source_address"]
    host = where.rpartition(":")[0] if where.count(":") == 1 or "]" in where else where
    host = host.strip("[]")
    if not host:
        return ""
    return f" and {'net' if '/' in host else 'host'} {host}"


def _is_meant(e: Evidence, knock: Fields) -> bool:
    of = e.session
    if knock["session_id"]:
        return bool(knock["session_id"] == of["session_id"])
    return not of["ssrc_policy"] and knock["ssrc"] == of["ssrc"]


def _refusals(e: Evidence) -> Iterator[Finding]:
    """Packets that came for it and were dropped meanwhile."""
    limited = e.grown("dropped_rate_limit")
    if limited:
        limit = e.session["ingest_limit_bps"] / 1e6
        yield Finding(
            Station.CAMERA,
            Level.CAUSE,
            "rate_limit",
            f"{limited} packets in {e.seconds:.1f} s were beyond ingest_limit_bps ({limit:g}"
            " Mbit/s)",
            (f"rtpfanout session update {e.name} --ingest-limit 0",),
        )
    for field, level, text in (
        ("dropped_loop", Level.CAUSE, "came back from one of its own subscribers"),
        ("dropped_no_port", Level.CAUSE, "came from UDP port 0, to which nobody can be pinned"),
        ("dropped_misrouted", Level.CAUSE, "found their worker too far behind"),
        ("dropped_probation", Level.NOTE, "have another SSRC than the one that is followed"),
    ):
        if number := e.grown(field):
            said = f"{number} packets in {e.seconds:.1f} s {text}"
            yield Finding(Station.CAMERA, level, field.removeprefix("dropped_"), said)
    if e.flows and (number := e.grown("dropped_wrong_source")):
        text = (
            f"{number} packets with its SSRC came from {e.after['last_wrong_source']}, and were not"
        )
        yield Finding(Station.CAMERA, Level.NOTE, "wrong_source", f"{text} let in")


def reception(e: Evidence) -> Iterator[Finding]:
    """Is what comes whole, and can a decoder begin with it?"""
    of = e.after["reception"]
    if not of or not e.flows:
        return
    found = [*_contents(e), *_loss(e)]
    if not found:
        text = f"whole: {e.grown_in('reception', 'expected')} packets, none lost"
        if of["encoding"]:
            text += f"; {of['encoding']}"
        if of["keyframes"]:
            text += f", last keyframe {of['seconds_since_keyframe']:.1f} s ago"
        found = [Finding(Station.RECEPTION, Level.OK, "whole", text)]
    yield from found


def _contents(e: Evidence) -> Iterator[Finding]:
    condition, of = e.session["condition"], e.after["reception"]
    if condition == Condition.FROZEN:
        yield Finding(
            Station.RECEPTION,
            Level.CAUSE,
            condition,
            "packets come, but always the same picture's: the camera, or its encoder, hangs",
            ("restart the camera's encoder",),
        )
    elif condition == Condition.NO_KEYFRAMES:
        last = of["seconds_since_keyframe"]
        since = "never" if last is None else f"not for {last:.0f} s"
        yield Finding(
            Station.RECEPTION,
            Level.CAUSE,
            condition,
            f"no keyframe came ({since}): whoever joins sees nothing until one does",
            (
                f"rtpfanout session keyframe {e.name}",
                "a shorter interval in the encoder (ffmpeg: -g 60, GStreamer: key-int-max=60)",
            ),
        )
    elif condition == Condition.NO_PARAMETER_SETS:
        yield Finding(
            Station.RECEPTION,
            Level.CAUSE,
            condition,
            "keyframes come without parameter sets (SPS, PPS): a decoder can't begin, if its SDP"
            " has none",
            ("send them with each keyframe (GStreamer: config-interval=-1)",),
        )


def _loss(e: Evidence) -> Iterator[Finding]:
    of = e.after["reception"]
    lost, expected = e.grown_in("reception", "lost"), e.grown_in("reception", "expected")
    ours = min(lost, e.dropped_lately)
    if expected < ENOUGH_PACKETS or lost <= MUCH_LOST * expected:
        if of["lost"] > MUCH_LOST * of["expected"]:
            text = f"{of['lost']} packets ({share(of['lost'], of['expected'])}) were lost in all"
            if expected >= ENOUGH_PACKETS:
                text += f", but {lost or 'none'} of the last {expected}"
            yield Finding(Station.RECEPTION, Level.NOTE, "lost_before", text)
        return
    before = lost - ours
    said = f"{lost} of {expected} packets ({share(lost, expected)}) are lost"
    if before <= MUCH_LOST * expected:
        text = f"{said}; no more than this host's full receive queue dropped"
        yield Finding(Station.RECEPTION, Level.NOTE, "lost_in_queue", text)
        return
    text = f"{said} between camera and server: no setting of it brings them back"
    if ours:
        text += f", and up to {ours} of them in its full receive queue"
    cure = f"mtr, or ping -f, to {_host(e).rpartition(' ')[2] or 'the camera'}: its uplink, Wi-Fi,"
    cure += " or a bitrate beyond the link's"
    yield Finding(Station.RECEPTION, Level.CAUSE, "lost_on_the_way", text, (cure,))
