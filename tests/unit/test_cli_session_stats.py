"""`session stats` for people: what is known, in 80 columns."""

from __future__ import annotations

from typing import Any

import pytest

from rtpfanout.api import session_pb2
from rtpfanout.cli.output import message_dict
from rtpfanout.cli.session_stats import in_a_line, readable_stats

LARGE = 2**40
LATENCY = {"p50_seconds": 0.000123456, "p99_seconds": 0.0123456, "p999_seconds": 0.123456}
RECEPTION: dict[str, Any] = {
    "received": LARGE,
    "expected": LARGE,
    "lost": LARGE // 3,
    "missing_now": 64,
    "duplicates": LARGE // 1000,
    "reordered": LARGE // 1000,
    "late": 1000,
    "restarts": 1000,
    "timestamp_jumps": 1000,
    "out_of_sequence": 1000,
    "jitter_seconds": 0.00123456,
    "bitrate_bps": 123456789.0,
    "frames": LARGE // 1000,
    "frame_rate": 29.97,
    "longest_frame_gap_seconds": 0.0412345,
    "keyframes": 1234567,
    "keyframe_interval_seconds": 2.00123,
    "seconds_since_keyframe": 1.23456,
    "seconds_since_parameter_sets": 1.23456,
    "ssrc": 0xC0FFEE,
    "payload_type": 96,
    "payload_types": [96, 97, 98, 99, 100],
    "encoding": "H265",
    "encoding_from": "sniffed",
    "encoding_sureness": 99,
    "clock_rate": 90000,
    "clock_from": "measured",
}


def shown(reception: dict[str, Any] | None, **fields: Any) -> dict[str, Any]:
    message = session_pb2.SessionStatsResponse(
        session_id="6dd34a77-03eb-47e9-9105-f7b21663698e",
        packets_received=LARGE,
        dropped_wrong_source=7,
        dropped_latching=8,
        first_copy_latency={**LATENCY, "max_seconds": 1.23456, "count": LARGE},
        reception=reception,
        **fields,
    )
    return message_dict(message)


def test_no_line_is_longer_than_a_terminal_is_wide() -> None:
    readable = readable_stats(shown(RECEPTION))
    width = max(map(len, readable)) + 2
    assert {name: value for name, value in readable.items() if width + len(str(value)) > 80} == {}
    line = "  ".join(str(value).ljust(8) for value in in_a_line(shown(RECEPTION)).values())
    assert len(line) <= 100


def test_what_is_known_is_said() -> None:
    readable = readable_stats(shown(RECEPTION))
    assert readable["lost"] == f"{LARGE // 3} (33.33%), 64 of the last 64"
    assert readable["dropped"] == "wrong_source 7, latching 8"
    assert readable["source"] == "SSRC 0x00c0ffee, payload type 96, 97, 98, 99, 100"
    assert readable["encoding"] == "H265 (sniffed, 99 %), 90000 Hz (measured)"
    assert readable["jitter"] == "1.23 ms"
    assert readable["parameter_sets"] == "1.23 s ago"
    assert readable["keyframes"] == "1234567, every 2 s, last 1.23 s ago"


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        ({"jitter_seconds"}, {"jitter"}),
        ({"frames", "frame_rate", "longest_frame_gap_seconds"}, {"frames"}),
        (
            {"keyframes", "keyframe_interval_seconds", "seconds_since_keyframe"},
            {"keyframes"},
        ),
    ],
)
def test_what_is_not_known_is_not_said(without: set[str], gone: set[str]) -> None:
    some = {name: value for name, value in RECEPTION.items() if name not in without}
    assert readable_stats(shown(RECEPTION)).keys() - readable_stats(shown(some)).keys() == gone
    assert in_a_line(shown(RECEPTION)).keys() == in_a_line(shown(some)).keys()


def test_of_a_session_without_a_packet_or_a_reception() -> None:
    assert readable_stats(shown({}))["reception"] == "no packet yet"
    told = readable_stats(shown(RECEPTION), "192.0.2.7:5000")["source"]
    assert told == f"192.0.2.7:5000, {readable_stats(shown(RECEPTION))['source']}"
    assert "reception" not in readable_stats(shown(None))
    assert in_a_line(shown(None))["lost"] == "-"
