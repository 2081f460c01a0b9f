"""The page of series per session, read back by prometheus_client's own parsers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from rtpfanout.model import Address, Condition, MediaType, SessionStatus, SourcePolicy
from rtpfanout.session_series import session_series
from rtpfanout.sessions import SessionStats, SessionView
from rtpfanout.sessions.source import Source
from rtpfanout.sessions.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.sessions import SessionManager

CAMERA = Address.parse("[2001:db8::1]:5000")
VIEW = SessionView(
    session_id="0",
    terms=Terms(Source(SourcePolicy.EXACT, str(CAMERA), CAMERA)),
    ssrc=0xC0FFEE,
    media_type=MediaType.VIDEO,
    subscriber_count=7,
    created_at=datetime(2026, 1, 1, tzinfo=UTC),
    status=SessionStatus.ACTIVE,
    condition=Condition.FROZEN,
)
STATS = SessionStats(
    session_id="0",
    packets_received=2**53 + 1,
    packets_sent=2,
    bytes_received=3,
    bytes_sent=4,
    send_failures=5,
    subscriber_count=7,
    uptime_seconds=8.0,
    packets_per_second=0.1,
    seconds_since_last_packet=None,
    dropped_overload=9,
    dropped_rate_limit=10,
    dropped_paused=11,
    copies_withheld=12,
    reception={
        "expected": 100, "lost": 13, "duplicates": 14, "reordered": 15, "late": 16, "restarts": 17,
        "jitter_seconds": 0.018, "bitrate_bps": 19.5, "frames": 20, "keyframes": None,
        "seconds_since_keyframe": None,
    },
)  # fmt: skip
LABELS = {"vehicle": "rover-7", "cell/id": "a.b"}
NETWORK = replace(VIEW, terms=Terms(Source(SourcePolicy.CIDR, '10.0.0.0/8 "\\\n'), labels=LABELS))


class Manager:
    def __init__(self, count: int) -> None:
        self._count = count

    def all_stats(self) -> Iterator[tuple[SessionView, SessionStats]]:
        for n in range(self._count):
            yield replace(NETWORK if n % 2 else VIEW, session_id=str(n)), STATS


def page(
    count: int, *, is_openmetrics: bool = False, labels: tuple[str, ...] = ()
) -> tuple[str, int]:
    """The text, and how many places there are to let others work."""
    pieces = list(session_series(cast("SessionManager", Manager(count)), labels)(is_openmetrics))
    return b"".join(pieces).decode(), pieces.count(b"")


GAUGES = ("_subscribers", "_per_second", "_lost", "_seconds", "_bps", "_condition")


@pytest.mark.parametrize("is_openmetrics", [True, False], ids=["openmetrics", "text"])
@pytest.mark.parametrize("count", [0, 1, 300])
def test_parsers_find_every_series(count: int, is_openmetrics: bool) -> None:
    text, _ = page(count, is_openmetrics=is_openmetrics)
    read = (
        openmetrics.text_string_to_metric_families
        if is_openmetrics
        else text_string_to_metric_families
    )
    families = {family.name: family for family in read(text)}
    assert len(families) == 21
    for name, family in families.items():
        assert family.type == ("gauge" if name.endswith(GAUGES) else "counter")
        assert family.documentation
        each = 3 if name.endswith("_dropped") else 0 if "keyframe" in name else 1
        assert len(family.samples) == each * count
    if count:
        first, *_ = families["rtpfanout_session_packets_per_second"].samples
        assert first.labels == {
            "session_id": "0",
            "ssrc": "0x00c0ffee",
            "source": "[2001:db8::1]:5000",
            "media_type": "video",
        }
        assert first.value == 0.1
        values = {
            sample.labels["reason"]: sample.value
            for sample in families["rtpfanout_session_packets_dropped"].samples
        }
        assert values == {"overload": 9, "rate_limit": 10, "paused": 11}
        (condition, *_) = families["rtpfanout_session_condition"].samples
        assert (condition.labels["condition"], condition.value) == ("frozen", 1)
        (lost, *_) = families["rtpfanout_session_packets_lost"].samples
        assert lost.value == 13
    if count > 1:
        _, second, *_ = families["rtpfanout_session_packets_sent"].samples
        assert second.labels["source"] == NETWORK.source_address
        assert second.value == 2


def test_a_counter_is_written_to_its_last_digit() -> None:
    text, _ = page(1)
    assert f"}} {2**53 + 1}\n" in text


def test_there_are_places_to_let_others_work() -> None:
    _, few = page(8)
    _, many = page(800)
    assert many == 100 * few > 0


def test_openmetrics_ends_as_it_must() -> None:
    assert page(2, is_openmetrics=True)[0].endswith("\n# EOF\n")
    assert "EOF" not in page(2)[0]


def test_series_have_the_labels_that_are_asked_for() -> None:
    text, _ = page(2, labels=("cell/id", "vehicle", "site"))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    first, second = families["rtpfanout_session_condition"].samples
    assert not [name for name in first.labels if name.startswith("label_")]
    assert second.labels["label_cell_id"] == "a.b"
    assert second.labels["label_vehicle"] == "rover-7"
    assert "label_site" not in second.labels
