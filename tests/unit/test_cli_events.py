"""`rtpfanout events`: its lines, what it asks for, and where it goes on."""

from __future__ import annotations

import json
import re
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cli_support import background, run
from client_support import Script, failure, serving, unavailable

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime.now(UTC).isoformat()
BEAT = pb.Event(sequence=9, kind="heartbeat")
SESSION = "12345678-1234-4234-8234-123456789012"


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def target(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def event(kind: str, sequence: int = 9, **fields: Any) -> pb.Event:
    return pb.Event(**{"sequence": sequence, "kind": kind, "time": NOW, "count": 1} | fields)


def test_a_line_each(script: Script, target: str) -> None:
    named = {"session_id": SESSION, "session_name": "rover-7/front"}
    script.streams = [
        [
            event("started", detail="rtpfanout 1", time="2020-01-02T03:04:05Z"),
            event("created", session_id=SESSION, detail="192.0.2.1:5000"),
            event(
                "subscriber_joined", subscriber_address="192.0.2.9:6000", detail="pilot", **named
            ),
            event("subscriber_shed", count=7, detail="monitor", **named),
            event("restarted", count=2, **named),
            event("subscriber_unreachable", subscriber_address="192.0.2.9:6000", **named),
            event("gap", count=3, detail="3 events are not kept any more"),
            BEAT,
        ]
    ]
    done = run("events", "--since", "0", "--once", "-s", target)
    assert (done.returncode, done.stderr) == (0, "")
    old, started, today, *others = done.stdout.splitlines()
    assert re.fullmatch(r"2020-01-0[123]", old)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  -                 started             rtpfanout 1", started
    )
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", today)
    assert [line[10:] for line in others] == [
        "12345678          created             192.0.2.1:5000",
        "rover-7/front     subscriber joined   192.0.2.9:6000  pilot",
        "rover-7/front     subscriber shed     7 subscribers  monitor",
        "rover-7/front     restarted           2 times",
        "rover-7/front     subscriber unreachable  192.0.2.9:6000",
        "-                 gap                 3 events are not kept any more",
    ]
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_json_is_an_object_a_line(script: Script, target: str) -> None:
    script.streams = [[event("silent", labels={"a": "b"}), event("back"), BEAT]]
    done = run("events", "--once", "-o", "json", "-s", target)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["kind"] for each in found] == ["silent", "back"]
    assert found[0] == {
        "sequence": 9, "kind": "silent", "time": NOW, "session_id": "", "session_name": "",
        "labels": {"a": "b"}, "subscriber_address": "", "count": 1, "detail": "",
    }  # fmt: skip


def test_what_it_asks_for(script: Script, target: str) -> None:
    script.streams = [[BEAT], [BEAT], [BEAT]]
    run(
        "events", "a/b", "--label", "x=y", "--kind", "subscriber joined", "--kind", "silent",
        "--since", "7", "--once", "-s", target,
    )  # fmt: skip
    run("events", "--since", "10m", "--once", "-s", target)
    run("events", "--since", "2026-03-01T12:00:00+00:00", "--once", "-s", target)
    first, ago, moment = (r for r in script.requests if isinstance(r, pb.WatchEventsRequest))
    assert first == pb.WatchEventsRequest(
        after_sequence=7, label_selector="x=y", session="a/b",
        kinds=["subscriber_joined", "silent"],
    )  # fmt: skip
    passed = datetime.now(UTC) - datetime.fromisoformat(ago.since)
    assert timedelta(minutes=10) <= passed < timedelta(minutes=12)
    asked = datetime.fromisoformat(moment.since)
    assert asked == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_session_that_is_not_there_is_said(script: Script, target: str) -> None:
    """Of one that was there, events are kept; of one that is misspelt there are none."""
    script.streams = [[BEAT], [BEAT], [BEAT]]
    script.failures = [failure(grpc.StatusCode.NOT_FOUND, "no such session")]
    gone = run("events", "rover-7/frnt", "--once", "-s", target)
    assert gone.returncode == 0
    assert gone.stderr.startswith("no session is 'rover-7/frnt' now")
    assert run("events", "rover-7/front", "--once", "-s", target).stderr == ""
    script.failures = [failure(grpc.StatusCode.UNIMPLEMENTED, "?")]
    assert run("events", "rover-7/front", "--once", "-s", target).stderr == ""


@pytest.mark.parametrize(
    "since",
    ["10x", "yesterday", "-5", "99999999999999999999", "999999d", "0001-01-01",
     "9999-12-31T23:59:59-23:00"],
)  # fmt: skip
def test_what_since_can_be(since: str) -> None:
    done = run("events", f"--since={since}", "-s", "127.0.0.1:1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --since: ")


def test_it_goes_on_over_lost_connections_and_says_where(script: Script, target: str) -> None:
    script.streams = [[event("silent", 4), unavailable()], [event("back", 6), None]]
    with background("events", "-s", target) as command:
        assert command.process.stdout is not None
        lines = [command.process.stdout.readline() for _ in range(2)]
        code, _ = command.finish(signal.SIGINT)
    assert [line.split()[2] for line in lines] == ["silent", "back"]
    assert code == 0
    assert command.stderr == ["go on from here with --since 6\n"]
    assert script.requests[1].after_sequence == 4
