"""Who has RTCP is kept: over calls that don't say, refusals of the store, and restarts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from managers import SOURCE, SUBSCRIBER, Clock, Gate, engine_of, manager_of

from rtpfanout.errors import (
    InvalidArgumentError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from rtpfanout.model import RTCP, Rtcp
from rtpfanout.sessions.feedback import MISSING_AFTER_SECS, Feedback, feedback_of, report_of
from rtpfanout.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager

OTHER = "127.0.0.1:6002"


def modes(manager: SessionManager, session_id: str) -> dict[str, Rtcp]:
    return {str(view.address): view.rtcp for view in manager.list_subscribers(session_id)[0]}


def test_adding_again_changes_it_only_where_it_is_said(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscriber(session_id, SUBSCRIBER)
    assert modes(manager, session_id) == {SUBSCRIBER: Rtcp.OFF}
    assert not manager.add_subscriber(session_id, SUBSCRIBER, rtcp="mux")
    manager.add_subscribers(session_id, [SUBSCRIBER, OTHER])
    assert modes(manager, session_id) == {SUBSCRIBER: Rtcp.MUX, OTHER: Rtcp.OFF}
    manager.add_subscribers(session_id, [SUBSCRIBER, OTHER], rtcp="next_port")
    assert set(modes(manager, session_id).values()) == {Rtcp.NEXT_PORT}
    manager.remove_subscriber(session_id, SUBSCRIBER)
    manager.add_subscriber(session_id, SUBSCRIBER)
    assert modes(manager, session_id) == {OTHER: Rtcp.NEXT_PORT, SUBSCRIBER: Rtcp.OFF}


def test_the_same_call_with_another_rtcp_is_another(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscriber(session_id, SUBSCRIBER, rtcp="mux", request_id="a")
    assert manager.add_subscriber(session_id, SUBSCRIBER, rtcp="mux", request_id="a")
    with pytest.raises(InvalidArgumentError):
        manager.add_subscriber(session_id, SUBSCRIBER, request_id="a")


@pytest.mark.parametrize("text", ["on", "MUX", "5005"])
def test_what_is_no_rtcp(manager: SessionManager, text: str) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    with pytest.raises(InvalidArgumentError, match="off, mux or next_port") as refused:
        manager.add_subscriber(session_id, SUBSCRIBER, rtcp=text)
    assert refused.value.field == "rtcp"


def test_the_last_port_has_no_next_one(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    last = "127.0.0.1:65535"
    for add in (
        lambda: manager.add_subscriber(session_id, last, rtcp="next_port"),
        lambda: manager.add_subscribers(session_id, [SUBSCRIBER, last], rtcp="next_port"),
    ):
        with pytest.raises(InvalidArgumentError, match="65535 has no port behind it") as refused:
            add()
        assert refused.value.field == "rtcp"
    assert modes(manager, session_id) == {}
    manager.add_subscriber(session_id, last, rtcp="mux")


def test_it_is_as_before_when_the_store_refuses(engine: Engine, clock: Clock) -> None:
    with Gate() as store:
        manager = manager_of(engine, clock, store)
        session_id = manager.create(SOURCE, 1, "video").session_id
        manager.add_subscriber(session_id, SUBSCRIBER, rtcp="mux")
        store.refuses = True
        for mode in RTCP:
            with pytest.raises(UnavailableError):
                manager.add_subscribers(session_id, [OTHER, SUBSCRIBER], rtcp=mode)
            assert modes(manager, session_id) == {SUBSCRIBER: Rtcp.MUX}


def test_it_is_kept(tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "state")
    with engine_of() as engine, Store(path) as store:
        manager = manager_of(engine, clock, store)
        asked = {"keyframe_request": "fir", "report_class": "pilot", "repair_source": True}
        session_id = manager.create(SOURCE, 1, "video", **asked).session_id
        alone = manager.create(OTHER, 2, "video", repair_source=True).session_id
        for port, mode in enumerate(RTCP, 6000):
            manager.add_subscriber(session_id, f"127.0.0.1:{port}", rtcp=mode)
        before = modes(manager, session_id)
    with engine_of() as engine, Store(path) as store:
        manager = manager_of(engine, clock, store)
        manager.restore()
        assert modes(manager, session_id) == before
        assert set(before.values()) == set(RTCP)
        terms = manager.get(session_id).terms
        assert {name: getattr(terms, name) for name in asked} == asked
        assert manager.get(alone).terms.repair_source
        assert len(engine.all_feedback()) == 2, "the engine was told of both"
        for name, value in (
            ("keyframe_request", ""),
            ("report_class", ""),
            ("repair_source", False),
        ):
            after = manager.update(session_id, **{name: value}).terms
            assert getattr(after, name) == value


def test_what_is_no_keyframe_request(manager: SessionManager) -> None:
    with pytest.raises(InvalidArgumentError, match="pli, fir or both") as refused:
        manager.create(SOURCE, 1, "video", keyframe_request="idr")
    assert refused.value.field == "keyframe_request"


def test_what_is_no_report_class(manager: SessionManager) -> None:
    for text in ("worst", "Pilot", "pilot "):
        with pytest.raises(InvalidArgumentError, match="pilot, recorder, monitor") as refused:
            manager.create(SOURCE, 1, "video", report_class=text)
        assert refused.value.field == "report_class"


def test_an_encrypted_source_is_not_asked_for_repairs(manager: SessionManager) -> None:
    with pytest.raises(InvalidArgumentError, match="srtp") as refused:
        manager.create(SOURCE, 1, "video", srtp=True, repair_source=True)
    assert refused.value.field == "repair_source"
    session_id = manager.create(SOURCE, 1, "video", repair_source=True).session_id
    with pytest.raises(InvalidArgumentError, match="srtp"):
        manager.update(session_id, srtp=True)
    manager.update(session_id, srtp=True, repair_source=False)


def test_only_one_address_is_asked_for_keyframes(manager: SessionManager) -> None:
    exact = manager.create(SOURCE, 1, "video").session_id
    one = manager.create("192.0.2.7", 2, "video", source_policy="ip").session_id
    many = manager.create("192.0.2.0/24", 3, "video", source_policy="cidr").session_id
    latch = manager.create("", 4, "video", source_policy="latch").session_id
    for session_id in (exact, one):
        manager.request_keyframe(session_id)
        feedback = manager.stats(session_id).feedback
        assert feedback is None or feedback.keyframe_requests_sent == 0  # nothing came yet
    for session_id in (many, latch):
        with pytest.raises(PreconditionError, match="more than one address"):
            manager.request_keyframe(session_id)
    manager.delete(exact)
    with pytest.raises(NotFoundError):
        manager.request_keyframe(exact)


def test_reports_as_they_are_shown() -> None:
    assert report_of(None, 5) is None
    assert report_of((1, 0, 0.0, 0, -1.0, -1.0), 5) is None
    known = report_of((1, 2 * 10**9, 0.25, -3, 0.001, 0.05), 5 * 10**9)
    assert known is not None
    assert (known.age_seconds, known.fraction_lost, known.lost) == (3.0, 0.25, -3)
    assert (known.jitter_seconds, known.round_trip_seconds) == (0.001, 0.05)
    unknown = report_of((1, 1, 0.0, 0, -1.0, -1.0), 0)
    assert unknown is not None
    assert (unknown.jitter_seconds, unknown.round_trip_seconds, unknown.age_seconds) == (
        None, None, 0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("came_secs", "reporters", "uptime", "rate", "missing"),
    [
        (0, 1, 100.0, 30.0, True),
        (95, 1, 100.0, 30.0, False),
        (80, 1, 100.0, 30.0, True),
        (0, 0, 100.0, 30.0, False),  # nobody wants one
        (0, 1, 100.0, 0.0, False),  # nothing comes at all
        (0, 1, MISSING_AFTER_SECS - 1, 30.0, False),
    ],
)
def test_when_sender_reports_are_missing(
    came_secs: int, reporters: int, uptime: float, rate: float, missing: bool
) -> None:
    names = (
        "sender_reports", "receiver_reports", "keyframe_requests", "keyframe_requests_sent",
        "packets_nacked", "reports_sent", "copies_rtcp", "bitrates_sent", "packets_asked",
        "packets_repaired",
    )  # fmt: skip
    values = {**dict.fromkeys(names, 7), "sender_report_ns": came_secs * 10**9}
    told = feedback_of(values | {"reporters": reporters}, uptime, rate, 100 * 10**9)
    assert told.sender_reports_missing is missing
    assert told.sender_reports == 7
    assert told.seconds_since_sender_report == (100 - came_secs if came_secs else None)
    assert Feedback() != told
