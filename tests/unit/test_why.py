"""What `rtpfanout why` makes of what it was told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from rtpfanout.api import session_pb2 as pb
from rtpfanout.cli.output import message_dict
from rtpfanout.why import Evidence, Finding, Knocked, Level, Station, examine, feeder, found_cause

CAMERA, VIEWER = "10.0.0.5:5000", "10.0.0.9:6000"
LONG_AGO = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
SESSION = {
    "session_id": "b4386611-4c31-4110-9145-793a9dda227e", "name": "rover-7/front", "ssrc": 7,
    "source_address": CAMERA, "source_policy": "exact", "status": "active", "media_type": "video",
    "condition": "flowing", "created_at": LONG_AGO,
}  # fmt: skip
CALM = {
    "packets_received": 1000, "receive_queue_bytes": 100, "requested_receive_queue_bytes": 100,
    "send_failures": {"unreachable": 5},
}  # fmt: skip
WHOLE = {"received": 900, "expected": 900, "encoding": "H264", "keyframes": 3}
SUBSCRIBER = {
    "subscriber_address": VIEWER, "packets_sent": 1000, "since": LONG_AGO, "state": "sending",
    "subscriber_class": "monitor", "rtcp": "off", "reach": "reachable",
    "reach_detail": "its host answers",
}  # fmt: skip
NOW = {"seconds_since_last_packet": 0.01}


def fields(message: Any) -> dict[str, Any]:
    return message_dict(message)


def evidence(
    *,
    session: dict[str, Any] | None = None,
    grown: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    reception: dict[str, Any] | None = None,
    subscriber: dict[str, Any] | None = None,
    leaves: dict[str, int] | None = None,
    **others: Any,
) -> Evidence:
    """200 packets come and leave in two seconds, but for what is told."""
    came = {"packets_received": 200} | (grown or {})
    last = came.pop("seconds_since_last_packet", NOW["seconds_since_last_packet"])
    wrong = came.pop("last_wrong_source", "")
    before = pb.SessionStatsResponse(
        **dict.fromkeys(came, 1000), server=CALM, reception=WHOLE, seconds_since_last_packet=last
    )
    after = pb.SessionStatsResponse(
        **{name: 1000 + number for name, number in came.items()},
        server=CALM | {"packets_received": 1200} | (server or {}),
        reception=WHOLE
        | {"received": 1100, "expected": 1100, "seconds_since_keyframe": 1.0}
        | (reception or {}),
        seconds_since_last_packet=last,
        last_wrong_source=wrong,
    )
    there = SUBSCRIBER | (subscriber or {})
    later = there | ({"packets_sent": 1200} if leaves is None else leaves)
    return Evidence(
        session=fields(pb.SessionResponse(**SESSION | (session or {}))),
        before=fields(before),
        after=fields(after),
        seconds=2.0,
        subscribers_before=[fields(pb.SubscriberResponse(**there))],
        subscribers=[fields(pb.SubscriberResponse(**later))],
        **({"wanted": VIEWER} | others),
    )


def trouble(e: Evidence) -> dict[str, Finding]:
    """What isn't well, by station and kind."""
    return {
        f"{each.station}/{each.kind}": each
        for each in examine(e)
        if each.level in (Level.CAUSE, Level.EITHER)
    }


SILENT = {"condition": "silent", "status": "idle"}
STOPPED = {"packets_received": 0, "seconds_since_last_packet": 42.0}
NOTHING_LEAVES = {"packets_sent": 1000}


def test_all_is_well() -> None:
    found = examine(evidence())
    assert not found_cause(found)
    assert [each.station for each in found if each.level is Level.OK] == [
        Station.SERVER, Station.SESSION, Station.CAMERA, Station.RECEPTION, Station.SUBSCRIBER,
        Station.EGRESS,
    ]  # fmt: skip
    assert not found_cause(examine(evidence(wanted="")))


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        ({"grown": {"dropped_overload": 9}}, "server/overload", "9 packets in 2.0 s"),
        (
            {"server": {"kernel_receive_drops": 50, "requested_receive_queue_bytes": 400}},
            "server/receive_queue",
            "dropped 50 packets of all sessions (20 %) in 2.0 s; it has 100 of the 400 bytes",
        ),
        (
            {"session": {"status": "refused", "refused_reason": "is denied"}},
            "session/refused",
            "is denied",
        ),
        ({"session": {"status": "paused"}, "grown": {"packets_received": 0}}, "session/paused", ""),
        (
            {"session": SILENT, "grown": STOPPED, "leaves": NOTHING_LEAVES},
            "camera/nothing_comes",
            "no packet for 42 s from 10.0.0.5:5000, and nobody like it knocks",
        ),
        (
            {"session": SILENT, "grown": STOPPED, "leaves": NOTHING_LEAVES, "knocks": None},
            "camera/nothing_comes",
            "who knocks is not told to you",
        ),
        (
            {
                "session": SILENT,
                "grown": STOPPED
                | {"dropped_wrong_source": 200, "last_wrong_source": "10.0.0.5:5002"},
                "leaves": NOTHING_LEAVES,
            },
            "camera/wrong_source",
            "packets with its SSRC come from 10.0.0.5:5002",
        ),
        ({"grown": {"dropped_rate_limit": 3}}, "camera/rate_limit", "3 packets"),
        ({"grown": {"dropped_loop": 3}}, "camera/loop", "one of its own subscribers"),
        ({"session": {"condition": "frozen"}}, "reception/frozen", "the same picture"),
        ({"session": {"condition": "no_keyframes"}}, "reception/no_keyframes", "not for 1 s"),
        ({"session": {"condition": "no_parameter_sets"}}, "reception/no_parameter_sets", "SPS"),
        (
            {"reception": {"lost": 20}},
            "reception/lost_on_the_way",
            "20 of 200 packets (10 %) are lost between camera and server",
        ),
        (
            {"subscriber": {"state": "awaiting_consent"}},
            "subscriber/awaiting_consent",
            "echoes a cookie",
        ),
        ({"subscriber": {"state": "shed"}}, "subscriber/shed", "monitors go before others"),
        (
            {"subscriber": {"state": "refused", "refused_reason": "is in 10.0.0.0/8"}},
            "subscriber/refused",
            "is in 10.0.0.0/8",
        ),
        (
            {
                "leaves": {"packets_sent": 1100, "send_failures": 100},
                "server": {"send_failures": {"unreachable": 105}},
            },
            "egress/send_failures",
            "refused 100 of 200 copies in 2.0 s (unreachable",
        ),
        ({"subscriber": {"reach": "no_arp"}}, "reach/no_arp", "its host is not there"),
        ({"subscriber": {"reach": "no_route"}}, "reach/no_route", "no way leads there"),
        (
            {"subscriber": {"reach": "port_closed", "reach_detail": "a router says so"}},
            "reach/port_closed",
            "nobody takes it: its program has ended or listens elsewhere; a router says so",
        ),
        (
            {"subscriber": {"reach": "silent_receiver", "rtcp": "mux"}},
            "reach/silent_receiver",
            "which of these can't be told",
        ),
        ({"subscriber": {"rtcp": "mux"}}, "report/never_reported", "can't be told"),
        (
            {"subscriber": {"rtcp": "mux", "report": {"fraction_lost": 0.25}}},
            "report/lost_on_the_way",
            "25 % lost on the way to it",
        ),
        ({"wanted": "10.0.0.9:7000"}, "subscriber/not_subscribed", f"{VIEWER} is one"),
    ],
)
def test_a_cause_is_named_at_its_station(told: dict[str, Any], kind: str, words: str) -> None:
    found = trouble(evidence(**told))
    assert kind in found, found
    assert words in found[kind].text
    own = {name for name in found if name.split("/")[0] == kind.split("/")[0]}
    assert own == {kind}


def test_who_knocks_nearly_is_named_with_the_command() -> None:
    knock = fields(
        pb.Knock(
            source_address="10.0.0.5:5002", ssrc=7, packets=200, reason="wrong_source",
            session_id=SESSION["session_id"],
        )
    )  # fmt: skip
    command = "rtpfanout session update rover-7/front --source 10.0.0.5:5002"
    told = {"session": SILENT, "grown": STOPPED, "leaves": NOTHING_LEAVES}
    found = trouble(evidence(**told, knocks=[Knocked(knock, command)]))
    assert found["camera/knocks"].next == (command,)
    assert "10.0.0.5:5002 sends what may be its" in found["camera/knocks"].text
    ended = trouble(evidence(**told, knocks=[Knocked(knock, command, sends=False)]))
    assert "camera/nothing_comes" in ended, "it came long ago"
    other = knock | {"session_id": "another"}
    assert "camera/nothing_comes" in trouble(evidence(**told, knocks=[Knocked(other, command)]))


def test_what_the_queue_dropped_is_not_laid_upon_the_camera() -> None:
    e = evidence(reception={"lost": 20}, server={"kernel_receive_drops": 25})
    assert set(trouble(e)) == {"server/receive_queue"}
    late = evidence(reception={"lost": 20})
    earlier = late.before | {"server": late.before["server"] | {"packets_received": 1}}
    assert set(trouble(late)) == {"reception/lost_on_the_way"}
    grown = late.after | {"server": late.after["server"] | {"kernel_receive_drops": 20}}
    before = late.before | {"server": late.before["server"] | {"kernel_receive_drops": 20}}
    explained = replace(late, earlier=earlier, before=before, after=grown)
    assert not trouble(explained), "dropped a moment before"
    both = trouble(evidence(reception={"lost": 60}, server={"kernel_receive_drops": 25}))
    assert set(both) == {"server/receive_queue", "reception/lost_on_the_way"}
    assert "up to 25 of them" in both["reception/lost_on_the_way"].text


def test_what_a_receiver_lacks_may_have_been_lost_before() -> None:
    e = evidence(
        reception={"lost": 20}, subscriber={"rtcp": "mux", "report": {"fraction_lost": 0.1}}
    )
    assert set(trouble(e)) == {"reception/lost_on_the_way"}


def test_a_session_that_seldom_has_a_packet_is_not_silent() -> None:
    e = evidence(grown={"packets_received": 0, "seconds_since_last_packet": 3.0})
    assert not trouble(e)


def test_many_with_the_same_trouble_are_one_finding() -> None:
    e = evidence(wanted="")
    some = [
        {**e.subscribers[0], "subscriber_address": f"10.0.0.{i}:6000", "reach": "no_arp"}
        for i in range(20, 40)
    ]
    e = Evidence(
        e.session, e.before, e.after, e.seconds,
        subscribers_before=e.subscribers_before, subscribers=[*e.subscribers, *some],
    )  # fmt: skip
    (found,) = trouble(e).values()
    assert "10.0.0.20:6000" in found.text
    assert "and 15 more" in found.text
    (well,) = [each for each in examine(e) if each.kind == "well"]
    assert "1 of 21" in well.text


def test_without_a_subscriber_nobody_is_sent_anything() -> None:
    e = evidence(wanted="")
    e = Evidence(e.session, e.before, e.after, e.seconds)
    assert set(trouble(e)) == {"subscriber/no_subscriber"}


def test_a_server_of_the_first_version_is_judged_by_what_it_tells() -> None:
    e = Evidence(
        session=fields(pb.SessionResponse(session_id="id", source_address=CAMERA, status="active")),
        before=fields(pb.SessionStatsResponse(packets_received=1)),
        after=fields(pb.SessionStatsResponse(packets_received=100)),
        seconds=2.0,
        knocks=None,
    )
    assert set(trouble(e)) == {"subscriber/no_subscriber"}


@pytest.mark.parametrize(
    ("scope", "pinned", "named"),
    [
        ("address", "10.0.0.5:5000", "10.0.0.5:5000"),
        ("ip", "10.0.0.5:5000", "10.0.0.5"),
        ("ip", "[2001:db8::1%eth0]:5000", "2001:db8::1%eth0"),
    ],
)
def test_the_port_that_came_first_is_not_said_to_feed_it(
    scope: str, pinned: str, named: str
) -> None:
    """Where any port of the address may, a camera that started anew comes from another."""
    latch = {"source_policy": "latch", "source_address": "", "latch_scope": scope}
    found = examine(evidence(session=latch | {"pinned_source": pinned}))
    (sends,) = (each.text for each in found if each.kind == "sends")
    assert sends == f"100 packets a second come from {named}"
    exact = message_dict(pb.SessionResponse(source_address=CAMERA, latch_scope=scope))
    assert feeder(exact) == CAMERA
