"""What `rtpfanout session stats` says, for people: in 80 columns."""

from typing import Any

COUNTERS = (
    "packets_received", "packets_sent", "bytes_received", "bytes_sent", "subscriber_count",
    "send_failures", "copies_withheld",
)  # fmt: skip


def readable_stats(fields: dict[str, Any], source: str = "") -> dict[str, object]:
    """By name, in the order in which they are to be shown; `fields` are of SessionStatsResponse.

    `source` is the address that feeds it, where that is known.
    Reasons why nothing was dropped are left out, and of the reception what isn't known.
    """
    last = fields["seconds_since_last_packet"]
    readable: dict[str, object] = {
        "session_id": fields["session_id"],
        **{name: fields[name] for name in COUNTERS},
        "uptime_seconds": f"{fields['uptime_seconds']:.1f}",
        "packets_per_second": f"{fields['packets_per_second']:.1f}",
        "seconds_since_last_packet": "-" if last is None else f"{last:.1f}",
    }
    for name in ("first_copy_latency", "last_copy_latency"):
        readable[name] = _latency(fields[name])
    readable["dropped"] = _dropped(fields)
    if wrong := fields.get("last_wrong_source"):
        readable["last_wrong_source"] = wrong
    if fields["reception"]:
        readable |= _reception(fields["reception"], source)
    if fields["feedback"]:
        readable |= _feedback(fields["feedback"])
    return readable


def in_a_line(fields: dict[str, Any]) -> dict[str, object]:
    """The same for a line of its own each second: as many columns whatever is known."""
    of = fields["reception"] or {}

    def shown(name: str, factor: float = 1) -> str:
        value = of.get(name)
        return "-" if value is None else f"{factor * value:.3g}"

    return {
        "received": fields["packets_received"],
        "per_second": f"{fields['packets_per_second']:.1f}",
        "mbit/s": shown("bitrate_bps", 1e-6),
        "lost": of.get("lost", "-"),
        "jitter_ms": shown("jitter_seconds", 1000),
        "frames/s": shown("frame_rate"),
        "sent": fields["packets_sent"],
        "failed": fields["send_failures"],
        "dropped": sum(value for name, value in fields.items() if name.startswith("dropped_")),
    }


def _latency(summary: dict[str, Any] | None) -> str:
    if summary is None:
        return "-"
    values = (f"{1000 * summary[f'{key}_seconds']:.3g}" for key in ("p50", "p99", "p999", "max"))
    return "p50 {} p99 {} p99.9 {} max {} ms".format(*values)


def _dropped(fields: dict[str, Any]) -> str:
    found = [
        f"{name.removeprefix('dropped_')} {value}"
        for name, value in fields.items()
        if name.startswith("dropped_") and value
    ]
    return ", ".join(found) or "nothing"


def _reception(of: dict[str, Any], source: str) -> dict[str, object]:
    if of["ssrc"] is None:
        return {"reception": "no packet yet"}
    share = of["lost"] / of["expected"] if of["expected"] else 0.0
    readable: dict[str, object] = {
        "source": f"{source}, {_source(of)}" if source else _source(of),
        "encoding": _encoding(of),
        "expected": of["expected"],
        "lost": f"{of['lost']} ({share:.2%}), {of['missing_now']} of the last 64",
        "reordered": of["reordered"],
        "duplicates": of["duplicates"],
        "numbering": f"restarts {of['restarts']}, jumps {of['timestamp_jumps']}, "
        f"late {of['late']}, elsewhere {of['out_of_sequence']}",
        "bitrate": f"{of['bitrate_bps'] / 1e6:.3g} Mbit/s",
    }
    if of["jitter_seconds"] is not None:
        readable["jitter"] = f"{1000 * of['jitter_seconds']:.3g} ms"
    if of["frames"]:
        readable["frames"] = (
            f"{of['frames']}, {of['frame_rate'] or 0:.3g} a second, "
            f"longest gap {of['longest_frame_gap_seconds'] or 0:.3g} s"
        )
    if of["keyframes"] is not None:
        readable["keyframes"] = _keyframes(of)
    if (sets := of["seconds_since_parameter_sets"]) is not None:
        readable["parameter_sets"] = f"{sets:.3g} s ago"
    return readable


def _feedback(of: dict[str, Any]) -> dict[str, object]:
    since = of["seconds_since_sender_report"]
    last = "" if since is None else f", last {since:.3g} s ago"
    missing = ", MISSING" if of["sender_reports_missing"] else ""
    return {
        "sender_reports": f"{of['sender_reports']}{last}{missing}",
        "receiver_reports": f"{of['receiver_reports']} of {of['reporters']} subscribers with RTCP",
        "keyframe_requests": f"{of['keyframe_requests']}, sent {of['keyframe_requests_sent']}",
        **_repairs(of),
    }


def _repairs(of: dict[str, Any]) -> dict[str, object]:
    """Of a session that asks for them."""
    if not of["packets_asked"]:
        return {}
    return {"packets_asked": f"{of['packets_asked']}, of which {of['packets_repaired']} came"}


def _source(of: dict[str, Any]) -> str:
    types = ", ".join(map(str, of["payload_types"]))
    return f"SSRC {of['ssrc']:#010x}, payload type {types}"


def _encoding(of: dict[str, Any]) -> str:
    encoding = "-"
    if of["encoding"]:
        encoding = f"{of['encoding']} ({of['encoding_from']}, {of['encoding_sureness']} %)"
    clock = f", {of['clock_rate']} Hz ({of['clock_from']})" if of["clock_rate"] else ""
    return encoding + clock


def _keyframes(of: dict[str, Any]) -> str:
    if not of["keyframes"]:
        return "none"
    every = of["keyframe_interval_seconds"]
    rhythm = f"every {every:.3g} s, " if every else ""
    return f"{of['keyframes']}, {rhythm}last {of['seconds_since_keyframe']:.3g} s ago"
