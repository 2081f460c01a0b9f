"""Series per session: a page of its own, as their number grows with the sessions.

Written by hand, since a page of 10,000 sessions has 250,000 lines: by prometheus_client's objects
it takes seconds, all in one piece. The formats are Prometheus' text format 0.0.4 and
OpenMetrics 1.0, which differ in the heads of the families and the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout._fastpath import RECEPTION_FIELDS, SESSION_FIELDS
from rtpfanout.config.types import series_label

if TYPE_CHECKING:
    from rtpfanout.sessions import SessionManager, SessionStats, SessionView


class Family(NamedTuple):
    """A metric: its name without _total, the field of SessionStats, its help."""

    name: str
    field: str
    text: str
    is_counter: bool = True
    is_of_reception: bool = False
    """The field is one of its reception; there is no series while that is not known."""


COUNTERS = tuple(
    Family(f"rtpfanout_session_{field}", field, text)
    for field, text in SESSION_FIELDS.items()
    if text
)
DROPS = Family(
    "rtpfanout_session_packets_dropped",
    "dropped_",
    "Packets that came for the session and were not admitted, by reason; wrong_source: of its "
    "SSRC, for each session that has it.",
)
DROP_REASONS = ("overload", "rate_limit", "paused")
"""The reasons that a session's own packets have; field dropped_<reason> of SessionStats."""
REFUSALS = ("wrong_source", "latching", "no_port", "loop", "misrouted", "probation")
"""The same of what others sent for it: shown from the first on, for most sessions have none."""
GAUGES = (
    Family(
        "rtpfanout_session_subscribers",
        "subscriber_count",
        "Subscribers of the session.",
        is_counter=False,
    ),
    Family(
        "rtpfanout_session_packets_per_second",
        "packets_per_second",
        "Packets admitted per second over the last one to two seconds.",
        is_counter=False,
    ),
)
RECEPTION = tuple(
    Family(f"rtpfanout_session_{name}", field, text, is_counter, is_of_reception=True)
    for name, field, text, is_counter in (
        ("packets_expected", "expected", RECEPTION_FIELDS["expected"], True),
        ("packets_lost", "lost", RECEPTION_FIELDS["lost"], False),
        ("packets_duplicated", "duplicates", RECEPTION_FIELDS["duplicates"], True),
        ("packets_reordered", "reordered", RECEPTION_FIELDS["reordered"], True),
        ("packets_late", "late", RECEPTION_FIELDS["late"], True),
        ("restarts", "restarts", RECEPTION_FIELDS["restarts"], True),
        ("jitter_seconds", "jitter_seconds", RECEPTION_FIELDS["jitter_ns"], False),
        ("bitrate_bps", "bitrate_bps", "Bits received per second, lately.", False),
        ("frames", "frames", RECEPTION_FIELDS["frames"], True),
        ("keyframes", "keyframes", RECEPTION_FIELDS["keyframes"], True),
        (
            "keyframe_age_seconds",
            "seconds_since_keyframe",
            RECEPTION_FIELDS["keyframe_age_ns"],
            False,
        ),
    )
)
CONDITION = Family(
    "rtpfanout_session_condition", "", "1, with how its source fares as a label.", is_counter=False
)
_FAMILIES = (*COUNTERS, DROPS, *GAUGES, *RECEPTION, CONDITION)
_SESSIONS_AT_A_TIME = 8
_LINES_AT_A_TIME = 256
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def session_series(
    manager: SessionManager, label_keys: Sequence[str] = ()
) -> Callable[[bool], Iterator[bytes]]:
    """What makes the page; with True in OpenMetrics. An empty piece is a place to let others work.

    One pass over the sessions, each with its counters of one moment. Its series have those of its
    labels that `label_keys` name.
    """
    names = [(key, series_label(key)) for key in label_keys]

    def make(is_openmetrics: bool) -> Iterator[bytes]:
        lines: list[list[str]] = [[] for _ in _FAMILIES]
        for count, (view, stats) in enumerate(manager.all_stats(), 1):
            _write(lines, _labels(view, names), view, stats)
            if count % _SESSIONS_AT_A_TIME == 0:
                yield b""
        for family, found in zip(_FAMILIES, lines, strict=True):
            yield _head(family, is_openmetrics)
            for start in range(0, len(found), _LINES_AT_A_TIME):
                yield "".join(found[start : start + _LINES_AT_A_TIME]).encode()
            found.clear()
        if is_openmetrics:
            yield b"# EOF\n"

    return make


def _labels(view: SessionView, names: Sequence[tuple[str, str]]) -> str:
    labels = (
        f'session_id="{view.session_id}",ssrc="0x{view.ssrc:08x}",'
        f'source="{str(view.source or view.source_address).translate(_ESCAPES)}",'
        f'media_type="{view.media_type.value}"'
    )
    # Of characters that need no escape, as the values of labels are.
    if view.name:
        labels += f',name="{view.name}"'
    return labels + "".join(
        f',{name}="{value}"' for key, name in names if (value := view.labels.get(key))
    )


def _write(lines: list[list[str]], labels: str, view: SessionView, stats: SessionStats) -> None:
    reception = stats.reception or {}
    for family, found in zip(_FAMILIES, lines, strict=True):
        if family is DROPS:
            for reason in (*DROP_REASONS, *REFUSALS):
                value = getattr(stats, f"dropped_{reason}")
                if not value and reason in REFUSALS:
                    continue
                found.append(f'{DROPS.name}_total{{{labels},reason="{reason}"}} {value}\n')
            continue
        if family is CONDITION:
            if view.condition:
                found.append(f'{family.name}{{{labels},condition="{view.condition}"}} 1\n')
            continue
        field = family.field
        value = reception.get(field) if family.is_of_reception else getattr(stats, field)
        if value is not None:
            suffix = "_total" if family.is_counter else ""
            found.append(f"{family.name}{suffix}{{{labels}}} {value}\n")


def _head(family: Family, is_openmetrics: bool) -> bytes:
    """In the text format a counter is called as its samples are."""
    name = family.name + ("_total" if family.is_counter and not is_openmetrics else "")
    kind = "counter" if family.is_counter else "gauge"
    return f"# HELP {name} {family.text}\n# TYPE {name} {kind}\n".encode()
