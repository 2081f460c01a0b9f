"""The newer options of `session` and `subscriber`: what they ask of a server."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import typer
from cli_support import background, run, run_json
from client_support import Event, Script, serving, session_event

from rtpfanout.api import session_pb2
from rtpfanout.cli.app import app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def target(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def asked(script: Script) -> Any:
    """The one request, without its id."""
    (request,) = script.requests
    if "request_id" in request.DESCRIPTOR.fields_by_name:
        assert request.request_id
        request.request_id = ""
    return request


def test_create_sends_all_it_is_given(script: Script, target: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(32)))
    done = run(
        "session", "create", "192.0.2.0/24", "--ssrc", "7", "-m", "audio",
        "--source-policy", "latch", "--latch-window", "10", "--relatch-after", "2.5",
        "--label", "vehicle=rover-7", "--label", "site=north", "--ingest-limit", "1.5M",
        "--max-subscribers", "4", "--consent", "echo", "--move-key-file", key, "-s", target, "-q",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "created\n", "")
    assert asked(script) == session_pb2.CreateSessionRequest(
        source_address="192.0.2.0/24",
        ssrc=7,
        media_type="audio",
        source_policy="latch",
        latch_window_secs=10,
        relatch_after_secs=2.5,
        labels={"vehicle": "rover-7", "site": "north"},
        ingest_limit_bps=1_500_000,
        max_subscribers=4,
        consent="echo",
        move_key=bytes(range(32)),
        ssrc_policy="follow",
    )


def test_update_sends_only_what_it_is_given(script: Script, target: str) -> None:
    done = run_json(
        "session", "update", "id", "--ingest-limit", "0", "--label", "site=", "--if-revision", 9,
        "--source", "192.0.2.7:5000", "-s", target,
    )  # fmt: skip
    assert done["session_id"] == "updated"
    assert asked(script) == session_pb2.UpdateSessionRequest(
        session_id="id",
        source_address="192.0.2.7:5000",
        ingest_limit_bps=0,
        labels={"site": ""},
        if_revision=9,
    )


@pytest.mark.parametrize(("command", "paused"), [("pause", True), ("resume", False)])
def test_pause_and_resume(script: Script, target: str, command: str, paused: bool) -> None:
    done = run("session", command, "id", "-s", target)
    assert (done.returncode, done.stdout) == (0, f"{command}d id\n")
    assert asked(script) == session_pb2.UpdateSessionRequest(session_id="id", paused=paused)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("update", "id"), "nothing to change"),
        (("update", "id", "--label", "x"), "'x' is not KEY=VALUE"),
        (("update", "id", "--ingest-limit", "8Mbit"), "'8Mbit' is not bits per second"),
        (("update", "id", "--move-key-file", "/no/such/file"), "/no/such/file: No such file"),
        (("create", "a", "--ssrc", "1", "--ingest-limit", "-1"), "'-1' is not bits per second"),
    ],
)
def test_what_no_server_needs_to_judge_is_usage(
    script: Script, target: str, arguments: tuple[str, ...], expected: str
) -> None:
    done = run("session", *arguments, "-s", target)
    assert (done.returncode, done.stdout, script.requests) == (2, "", [])
    assert expected in done.stderr


def test_list_selects_by_labels(script: Script, target: str) -> None:
    assert [s["session_id"] for s in run_json(
        "session", "list", "--label", "vehicle=rover-7", "--label", "site=north", "-s", target
    )] == ["listed"]  # fmt: skip
    assert asked(script).label_selector == "vehicle=rover-7,site=north"


def test_subscribers_have_a_lease_and_a_class(script: Script, target: str) -> None:
    lease = ("--ttl", "90", "--class", "recorder", "-s", target)
    assert run("subscriber", "add", "id", "a", *lease).returncode == 0
    assert run("subscriber", "add", "id", "a", "b", *lease).returncode == 0
    for request in script.requests:
        assert (request.ttl_secs, request.subscriber_class) == (90, "recorder")


def test_a_token_is_printed_alone(script: Script, target: str) -> None:
    done = run(
        "session", "token", "id", "--ttl", "60", "--lease", "9", "--class", "pilot", "-q",
        "-s", target,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "a.b\n", "")
    assert asked(script) == session_pb2.IssueJoinTokenRequest(
        session_id="id", ttl_secs=60, lease_secs=9, subscriber_class="pilot"
    )


STREAM = [
    session_event(Event.RESET, revision=4),
    session_event(
        Event.SNAPSHOT, "a", 4, source_address="192.0.2.7:5000", ssrc=7, labels={"site": "north"}
    ),
    session_event(Event.SYNCED, revision=4),
    session_event(Event.HEARTBEAT, revision=4),
]


def test_watch_prints_an_object_a_line_over_a_lost_connection(script: Script, target: str) -> None:
    script.streams = [STREAM, [session_event(Event.DELETED, "a", 5), None]]
    with background(
        "session", "watch", "--label", "site=north", "-o", "json", "-s", target
    ) as command:
        assert command.process.stdout is not None
        events = [json.loads(command.process.stdout.readline()) for _ in range(4)]
        assert command.finish(signal.SIGINT) == (0, "")
    assert [event["type"] for event in events] == ["RESET", "SNAPSHOT", "SYNCED", "DELETED"]
    assert [event["revision"] for event in events] == [4, 4, 4, 5]
    assert events[0]["session"] is None
    assert events[1]["session"]["labels"] == {"site": "north"}
    assert [(r.after_revision, r.label_selector) for r in script.requests] == [
        (0, "site=north"),
        (4, "site=north"),
    ]


def test_watch_prints_lines_of_columns_and_where_to_go_on(script: Script, target: str) -> None:
    script.streams = [[*STREAM, session_event(Event.UPDATED, "a", 6), None]]
    with background("session", "watch", "--after", "3", "-s", target) as command:
        assert command.process.stdout is not None
        header, exists, updated = (command.process.stdout.readline() for _ in range(3))
        code, _ = command.finish(signal.SIGTERM)
    assert code == 0
    assert header.split()[:5] == ["TIME", "WHAT", "ID", "NAME", "SOURCE"]
    assert exists.split()[1:5] == ["exists", "a", "-", "192.0.2.7:5000"]
    assert exists.split()[-1] == "site=north"
    assert updated.split()[1:3] == ["updated", "a"]
    assert command.stderr == ["go on from here with --after 6\n"]
    assert script.requests[0].after_revision == 3


def test_watch_of_no_server_is_code_4(script: Script) -> None:
    with serving(script) as target:
        pass
    done = run("session", "watch", "-s", target)
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: no answer from {target}")


def sessions_of(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Of every command: its words, and the argument that says which session."""
    for name, one in getattr(command, "commands", {}).items():
        yield from sessions_of(one, (*path, name))
    for parameter in command.params:
        if parameter.name in ("session_id", "session_ids"):
            yield " ".join(path), parameter


def test_every_command_knows_beginnings_of_ids() -> None:
    found = dict(sessions_of(typer.main.get_command(app)))
    assert found.keys() >= {"session get", "session rm", "session watch", "subscriber add"}
    assert [words for words, argument in found.items() if argument.callback is None] == []
