"""Sessions by their names and by beginnings of their ids, as a user types them; completion."""

import json
import signal
import socket

import pytest
from cli_support import background, receiver, run, run_json
from typer.testing import CliRunner

from rtpfanout.cli.app import app
from rtpfanout.client import SessionClient

FREE_PORTS = (
    "--bind-address", "127.0.0.1:0",
    "--grpc-bind-address", "127.0.0.1:0",
    "--metrics-bind-address", "127.0.0.1:0",
    "--log-format", "json",
)  # fmt: skip
NAME = "rover-7/front"


@pytest.fixture(scope="module")
def served():
    """The ready entry of a running `rtpfanout serve`, and the command."""
    with background("serve", "--set", "store.path=:memory:", *FREE_PORTS) as command:
        yield json.loads(command.wait_for('.*"event": "ready".*')[0]) | {"command": command}
        assert command.finish(signal.SIGTERM)[0] == 0


@pytest.fixture
def server(served):
    """What commands need in their environment; no session is left behind."""
    at = {"RTP_FANOUT_SERVER": served["grpc_bind_address"]}
    yield at
    with SessionClient(served["grpc_bind_address"]) as client:
        for session in client.iter_sessions():
            client.delete_session(session.session_id)


@pytest.fixture
def create(served):
    """Makes one session: its id. Beside the commands, of which each takes a process."""
    with SessionClient(served["grpc_bind_address"]) as client:
        yield (
            lambda ssrc, name="": (
                client.create_session(
                    f"127.0.0.1:{4000 + ssrc}", ssrc, "video", name=name
                ).session_id
            )
        )


def listed(server, *options):
    return [s["name"] for s in run_json("session", "list", *options, **server)]


def run_here(*arguments, **at):
    """In this process, which saves a second: what a command that succeeds prints."""
    done = CliRunner().invoke(app, [*map(str, arguments)], env=at, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_commands_take_a_name(served, server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        source = f"127.0.0.1:{free.getsockname()[1]}"
    made = ("session", "create", source, "--ssrc", 5, "--name", NAME)
    created = json.loads(run_here(*made, "-o", "json", **server))
    assert created["name"] == NAME
    assert json.loads(run_here("session", "get", NAME, "-o", "json", **server)) == created
    with receiver("--expect", 14) as (recv, address):
        assert run_here("subscriber", "add", NAME, address, **server) == f"added {address}\n"
        run_json(
            "send", served["bind_address"], "--ssrc", 5, "--count", 14, "--bind", source, **server
        )
        assert recv.finish()[0] == 0
    stats = json.loads(run_here("session", "stats", NAME, "-o", "json", **server))
    assert stats["packets_sent"] == 14
    (subscriber,) = json.loads(run_here("subscriber", "list", NAME, "-o", "json", **server))
    assert subscriber["packets_sent"] == 14
    assert run_here("session", "pause", NAME, **server) == f"paused {NAME}\n"
    assert run_here("session", "resume", NAME, **server) == f"resumed {NAME}\n"
    assert run_here("session", "token", NAME, "-q", **server).startswith("rfj1_")
    assert run_here("subscriber", "rm", NAME, address, **server) == f"removed {address}\n"
    renaming = ("session", "update", NAME, "--name", "rover-7/rear")
    renamed = json.loads(run_here(*renaming, "-o", "json", **server))
    assert (renamed["session_id"], renamed["name"]) == (created["session_id"], "rover-7/rear")
    missing = run("session", "get", NAME, **server)
    assert missing.returncode == 3
    assert missing.stderr == (
        f"error: session_id: '{NAME}' is not a UUID, nor the name of a session\n"
    )
    assert run_here("session", "delete", "rover-7/rear", **server) == "deleted rover-7/rear\n"
    served["command"].wait_for(r'"call": "CreateSession".*"name": "rover-7/front"')


def test_beginnings_of_ids(server, create):
    ids = [create(n) for n in range(17)]
    firsts = [id_[0] for id_ in ids]
    twice = next(first for first in firsts if firsts.count(first) > 1)  # of 17, by 16 digits
    meant = [id_ for id_ in ids if id_[0] == twice]
    done = run("session", "rm", ids[0], twice, **server)
    assert done.returncode == 2
    assert f"error: session_id: '{twice}' is the beginning of several ids" in done.stderr
    assert all(id_ in done.stderr for id_ in meant)
    assert len(listed(server)) == 17  # not even the first was deleted
    one = next(n for n in range(1, 36) if sum(id_[:n] == ids[0][:n] for id_ in ids) == 1)
    assert run_json("session", "get", ids[0][:one].upper(), **server)["session_id"] == ids[0]
    assert run("session", "rm", ids[0][:one], **server).stdout == f"deleted {ids[0]}\n"
    named = create(20, ids[1][:8])  # a name goes before
    assert run_json("session", "get", ids[1][:8], **server)["session_id"] == named
    assert run("session", "get", "0" * 12, **server).returncode == 3


def test_list_and_completion(server, create):
    for ssrc, name in enumerate((NAME, "rover-7/rear", "rover-70/front")):
        create(ssrc, name)
    nameless = create(4)
    assert listed(server, "--name", "rover-7/") == [NAME, "rover-7/rear"]
    assert listed(server) == [NAME, "rover-7/rear", "rover-70/front", ""]
    row = run("session", "list", **server).stdout.splitlines()[1]
    assert row.split()[1] == NAME

    def complete(*words, **at):
        line = " ".join(("rtpfanout", *words))
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words))}
        done = run(_RTPFANOUT_COMPLETE="complete_bash", **asked, **(server | at))
        return done.stdout.split()

    for words in (("subscriber", "add"), ("session", "rm", NAME)):
        assert complete(*words, "rover-7/") == [NAME, "rover-7/rear"]
    assert complete("session", "get", nameless[:9]) == [nameless]
    everything = complete("session", "stats", "")
    assert everything == [NAME, "rover-7/rear", "rover-70/front", nameless]
    assert complete("session", "get", "rover-7/", RTP_FANOUT_SERVER="127.0.0.1:1") == []


def test_the_same_again(server):
    source = ("session", "create", "127.0.0.1:4001", "--ssrc")
    options = ("--name", NAME, "--idle-timeout", "60", "--label", "a=b", "--if-exists", "return")
    created = run_json(*source, 1, *options, **server)
    assert created["idle_timeout_secs"] == 60
    assert run_json(*source, 1, *options, **server) == created
    done = run(*source, 2, *options, **server)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: ssrc: session {created['session_id']} ({NAME})")
    shown = run("session", "get", NAME, **server).stdout
    assert "idle_timeout_secs    60\n" in shown
    cleared = run_json("session", "update", NAME, "--name", "", "--idle-timeout", 0, **server)
    assert (cleared["name"], cleared["idle_timeout_secs"]) == ("", 0)


def test_watch_of_one(server, create):
    at = server["RTP_FANOUT_SERVER"]
    create(1, "other")
    with background("session", "watch", NAME, "-o", "json", "-s", at) as command:
        assert command.process.stdout is not None

        def next_event():
            event = json.loads(command.process.stdout.readline())
            return event["type"], (event["session"] or {}).get("name")

        assert [next_event() for _ in range(2)] == [("RESET", None), ("SYNCED", None)]
        create(2, NAME)
        assert next_event() == ("CREATED", NAME)
        run_json("session", "update", "other", "--label", "a=b", **server)
        run_json("session", "update", NAME, "--name", "new", **server)
        assert next_event() == ("UPDATED", "new")
        run_json("session", "rm", "new", **server)
        assert next_event() == ("DELETED", "new")
        assert command.finish(signal.SIGTERM)[0] == 0
