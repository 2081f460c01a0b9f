"""`serve`, `session` and `subscriber` as a user runs them, against each other."""

import json
import re
import signal
import socket
import uuid

import pytest
from cli_support import background, receiver, run, run_json

from rtpfanout.cli.output import message_dict
from rtpfanout.client import SessionClient

FREE_PORTS = (
    "--bind-address", "127.0.0.1:0",
    "--grpc-bind-address", "127.0.0.1:0",
    "--metrics-bind-address", "127.0.0.1:0",
    "--log-format", "json",
)  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The ready entry of a running `rtpfanout serve`: its addresses by key."""
    config = tmp_path_factory.mktemp("serve") / "server.toml"
    config.write_text("max_fanout_per_session = 3\nmax_sessions = 1000\n")
    with background("serve", "--config", config, *FREE_PORTS) as command:
        yield json.loads(command.wait_for('.*"event": "ready".*')[0])
        assert command.finish(signal.SIGTERM)[0] == 0


@pytest.fixture
def cli(served):
    """Run a command against the server; the outcome."""
    return lambda *arguments: run(*arguments, RTP_FANOUT_SERVER=served["grpc_bind_address"])


@pytest.fixture
def cli_json(served):
    """Run a command against the server; its JSON."""
    return lambda *arguments: run_json(*arguments, RTP_FANOUT_SERVER=served["grpc_bind_address"])


@pytest.fixture
def client(served):
    """For what a test is not about: a command takes longer than a call."""
    with SessionClient(served["grpc_bind_address"]) as client:
        yield client


@pytest.fixture
def session(client):
    """A session as `session get` prints it, deleted at the end of the test."""
    created = client.create_session("127.0.0.1:4000", 0xABCDEF01, "video")
    yield message_dict(client.get_session(created.session_id))
    client.delete_session(created.session_id)


def test_create_get_and_list_show_the_same_session(cli, cli_json):
    session = cli_json("session", "create", "127.0.0.1:4000", "--ssrc", "0xABCDEF01")
    assert session["source_address"] == "127.0.0.1:4000"
    assert session["ssrc"] == 0xABCDEF01
    assert session["media_type"] == "video"
    assert session["subscriber_count"] == 0
    assert session["status"] == "idle"
    assert cli_json("session", "get", session["session_id"]) == session
    assert session in cli_json("session", "list")
    shown = cli("session", "get", session["session_id"]).stdout
    assert re.search(r"^ssrc +0xabcdef01 \(2882400001\)$", shown, re.MULTILINE)
    assert cli_json("session", "rm", session["session_id"]) == {"deleted": [session["session_id"]]}


def test_list_as_a_table_is_whole_lines_of_columns(cli, session):
    header, *rows = cli("session", "list").stdout.splitlines()
    assert header.split() == [
        *("ID", "NAME", "SOURCE", "SSRC", "MEDIA", "SUBSCRIBERS", "STATUS", "CONDITION", "AGE")
    ]
    (row,) = [row for row in rows if session["session_id"] in row]
    fields = row.split()
    assert fields[1:7] == ["-", "127.0.0.1:4000", "0xabcdef01", "video", "0", "idle"]
    assert fields[7] == "never_fed"
    assert re.fullmatch(r"\d+[sm]", fields[8])


def test_list_walks_pages(cli, cli_json, client):
    ids = [client.create_session("127.0.0.1:4001", ssrc, "video").session_id for ssrc in range(4)]
    ids.append(cli("session", "create", "127.0.0.1:4001", "--ssrc", 4, "-q").stdout.strip())
    before = [s["session_id"] for s in cli_json("session", "list", "--all")]
    assert [id_ for id_ in before if id_ in ids] == ids
    some = cli("session", "list", "--limit", 2, "-o", "json")
    assert [s["session_id"] for s in json.loads(some.stdout)] == before[:2]
    assert "more than these 2 sessions" in some.stderr
    assert cli("session", "list", "--limit", len(before)).stderr == ""
    assert cli_json("session", "rm", *ids) == {"deleted": ids}
    after = [s["session_id"] for s in cli_json("session", "list", "--all")]
    assert after == [id_ for id_ in before if id_ not in ids]


def test_packets_flow_from_send_to_recv_and_are_counted(served, cli, cli_json, client):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        source = f"127.0.0.1:{free.getsockname()[1]}"
    session_id = client.create_session(source, 77, "video").session_id
    with receiver("--expect", 140) as (recv, address):
        assert cli("subscriber", "add", session_id, address, address).returncode == 0
        sent = cli_json(
            "send", served["bind_address"], "--ssrc", "77", "--count", 140, "--bind", source
        )
        code, out = recv.finish()
    received = json.loads(out)
    assert code == 0
    assert (received["packets"], received["sources"][0]["bytes"]) == (140, sent["bytes"])
    assert received["sources"][0]["latency_ms"]["count"] == 140
    stats = cli_json("session", "stats", session_id)
    assert stats["packets_received"] == stats["packets_sent"] == 140
    assert stats["bytes_received"] == stats["bytes_sent"] == sent["bytes"]
    assert (stats["send_failures"], stats["subscriber_count"]) == (0, 1)
    for name in ("first_copy_latency", "last_copy_latency"):
        assert stats[name]["count"] == 140
        assert 0 < stats[name]["p50_seconds"] <= stats[name]["max_seconds"]
    shown = cli("session", "stats", session_id).stdout
    assert re.search(r"^last_copy_latency +p50 \S+ p99 \S+ p99.9 \S+ max \S+ ms$", shown, re.M)
    assert cli_json("subscriber", "rm", session_id, address) == {
        "session_id": session_id,
        "removed": [address],
    }
    assert client.get_session(session_id).subscriber_count == 0
    client.delete_session(session_id)


def test_stats_of_a_silent_session(cli, cli_json, session):
    stats = cli_json("session", "stats", session["session_id"])
    assert stats["packets_received"] == 0
    assert stats["seconds_since_last_packet"] is None
    assert stats["reception"]["expected"] == 0
    shown = cli("session", "stats", session["session_id"]).stdout
    assert re.search(r"^reception +no packet yet$", shown, re.MULTILINE)
    assert re.search(r"^seconds_since_last_packet +-$", shown, re.MULTILINE)
    assert re.search(r"^last_copy_latency +-$", shown, re.MULTILINE)


def test_watch_prints_an_object_a_line_until_it_is_ended(served, session):
    with background(
        "session", "stats", session["session_id"], "--watch", "--interval", "0.1",
        "-o", "json", "-s", served["grpc_bind_address"],
    ) as watch:  # fmt: skip
        lines = [watch.process.stdout.readline() for _ in range(3)]
        code, _ = watch.finish(signal.SIGINT)
    assert code == 0
    assert {json.loads(line)["session_id"] for line in lines} == {session["session_id"]}


def test_a_session_is_described_changed_paused_and_resumed(cli, cli_json, client, tmp_path):
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    created = cli_json(
        "session", "create", "127.0.0.0/8", "--ssrc", "5", "--source-policy", "cidr",
        "--label", "vehicle=rover-7", "--label", "site=north", "--ingest-limit", "8M",
        "--max-subscribers", "2", "--move-key-file", key,
    )  # fmt: skip
    id_ = created["session_id"]
    assert created["labels"] == {"vehicle": "rover-7", "site": "north"}
    assert (created["source_policy"], created["signed_move"]) == ("cidr", True)
    assert (created["ingest_limit_bps"], created["max_subscribers"]) == (8_000_000, 2)
    chosen = cli_json("session", "list", "--label", "site=north", "--label", "vehicle=rover-7")
    assert [s["session_id"] for s in chosen] == [id_]
    assert cli_json("session", "list", "--label", "site=south") == []
    shown = cli("session", "get", id_).stdout
    assert re.search(r"^labels +site=north,vehicle=rover-7$", shown, re.MULTILINE)
    changed = cli_json(
        "session", "update", id_, "--ingest-limit", "0", "--label", "site=",
        "--if-revision", created["revision"],
    )  # fmt: skip
    assert (changed["labels"], changed["ingest_limit_bps"]) == ({"vehicle": "rover-7"}, 0)
    late = cli("session", "update", id_, "--max-subscribers", 1, "--if-revision", 1)
    assert (late.returncode, late.stdout) == (1, "")
    assert late.stderr.startswith("error: ")
    assert cli("session", "pause", id_).stdout == f"paused {id_}\n"
    assert client.get_session(id_).status == "paused"
    assert cli("session", "resume", id_).stdout == f"resumed {id_}\n"
    assert client.get_session(id_).status == "idle"
    client.delete_session(id_)


def test_watch_shows_what_others_do(served, client, session):
    to = ("-s", served["grpc_bind_address"])
    with background("session", "watch", "-o", "json", *to) as watch:
        read = watch.process.stdout.readline
        events = [json.loads(read())]
        while events[-1]["type"] != "SYNCED":
            events.append(json.loads(read()))
        assert session["session_id"] in [e["session"]["session_id"] for e in events[1:-1]]
        client.update_session(session["session_id"], paused=True)
        event = json.loads(read())
        assert (event["type"], event["session"]["status"]) == ("UPDATED", "paused")
        assert watch.finish(signal.SIGINT)[0] == 0
    with background("session", "watch", "--after", event["revision"], *to) as watch:
        assert watch.process.stdout.readline().startswith("TIME ")
        client.update_session(session["session_id"], paused=False)
        assert watch.process.stdout.readline().split()[1:3] == ["status", session["session_id"]]
        assert watch.finish(signal.SIGTERM)[0] == 0


def test_subscribers_have_leases_and_classes(cli, cli_json, session):
    id_ = session["session_id"]
    assert cli("subscriber", "add", id_, "127.0.0.1:6001", "--class", "pilot").returncode == 0
    lease = ("--ttl", "600", "--class", "recorder")
    assert cli("subscriber", "add", id_, "127.0.0.1:6002", "127.0.0.1:6003", *lease).returncode == 0
    pilot, *recorders = cli_json("subscriber", "list", id_)
    assert (pilot["subscriber_class"], pilot["expires_at"]) == ("pilot", "")
    assert {r["subscriber_class"] for r in recorders} == {"recorder"}
    assert all(r["expires_at"].endswith("Z") for r in recorders)
    row = cli("subscriber", "list", id_).stdout.splitlines()[1].split()
    assert row[4:] == ["pilot", "sending", "-", "off", "-", "-", "reachable"]
    wrong = cli("subscriber", "add", id_, "127.0.0.1:6001", "--class", "king")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("error: subscriber_class: ")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (
            ("create", "127.0.0.1:4000", "--ssrc", "0xABCDEF01", "--ssrc-policy", "exact"),
            1,
            "error: ",
        ),
        (("create", "here:4000", "--ssrc", "1"), 2, "error: source_address: "),
        (("create", "127.0.0.1:4000", "--ssrc", "1", "-m", "smell"), 2, "error: media_type: "),
        (("get", "not a uuid"), 2, "error: session_id: "),
        (("get", "no-such-name"), 3, "error: session_id: "),
        (("get", str(uuid.UUID(int=1))), 3, "error: "),
        (("rm", str(uuid.UUID(int=1))), 3, "error: "),
        (("stats", str(uuid.UUID(int=1))), 3, "error: "),
    ],
)
@pytest.mark.usefixtures("session")
def test_what_the_server_refuses_is_one_line_and_a_code(cli, arguments, code, line):
    done = cli("session", *arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("127.0.0.1", "; for any port of it give --source-policy ip"),
        ("2001:db8::7", "; for any port of it give --source-policy ip"),
        ("10.0.0.0/8", "; for any port of it give --source-policy cidr"),
        ("anyy", "; for whoever sends first give any"),
    ],
)
def test_a_source_that_is_no_address_with_a_port(cli, source, hint):
    done = cli("session", "create", source)
    assert done.returncode == 2
    said = f"error: source_address: '{source}' is not ip:port or [ipv6]:port"
    assert done.stderr.splitlines()[-1] == said + hint


def test_denied_subscribers_and_limits_have_their_codes(served, cli, session):
    def add(*addresses):
        return cli("subscriber", "add", session["session_id"], *addresses)

    denied = add(served["bind_address"])
    assert denied.returncode == 5
    assert denied.stderr.startswith("error: subscriber_address: ")
    full = add(*(f"127.0.0.1:{port}" for port in range(6001, 6005)))
    assert full.returncode == 1
    assert full.stdout == ""  # all or none
    assert full.stderr.startswith("error: max_fanout_per_session: ")
    assert cli("subscriber", "rm", session["session_id"], "127.0.0.1:9").returncode == 3


def test_subscribers_added_together_are_listed_and_removed_together(cli, cli_json, session):
    session_id = session["session_id"]
    addresses = [f"127.0.0.1:{port}" for port in (6001, 6002, 6003)]
    added = cli("subscriber", "add", session_id, *addresses[:2])
    assert added.stdout == "".join(f"added {address}\n" for address in addresses[:2])
    again = cli("subscriber", "add", session_id, *addresses)
    assert again.returncode == 0
    assert "2 of them had been added before" in again.stderr
    listed = cli_json("subscriber", "list", session_id)
    assert [s["subscriber_address"] for s in listed] == addresses
    assert {(s["packets_sent"], s["send_failures"]) for s in listed} == {(0, 0)}
    assert all(s["since"].endswith("Z") for s in listed)
    header, *rows = cli("subscriber", "list", session_id, "--limit", "2").stdout.splitlines()
    assert header.split() == [
        "ADDRESS", "SENT", "FAILED", "AGE", "CLASS", "STATE", "EXPIRES", "RTCP", "LOST", "RTT",
        "REACH",
    ]  # fmt: skip
    assert [row.split()[:3] for row in rows] == [[address, "0", "0"] for address in addresses[:2]]
    removed = cli("subscriber", "rm", session_id, addresses[0], "127.0.0.1:9", addresses[2])
    assert removed.returncode == 3
    assert removed.stdout == f"removed {addresses[0]}\nremoved {addresses[2]}\n"
    assert "127.0.0.1:9" in removed.stderr
    assert cli_json("session", "get", session_id)["subscriber_count"] == 1


def test_each_bad_address_of_several_is_a_line(cli, session):
    done = cli("subscriber", "add", session["session_id"], "127.0.0.1:6001", "x", "0.0.0.0:1")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: subscriber_addresses[1]: 'x' is not ")
    assert lines[1].startswith("error: subscriber_addresses[2]: 0.0.0.0:1 is an unspecified ")


def test_no_server_is_code_4_and_names_the_address():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = run("session", "list", "-s", address)
    assert done.returncode == 4
    assert done.stderr.startswith(f"error: no answer from {address} (Connection refused")
    assert done.stderr.count("\n") == 1


def test_flags_win_over_environment_and_environment_over_file(tmp_path):
    config = tmp_path / "server.toml"
    config.write_text("max_sessions = 1\nmax_fanout_per_session = 1\nbuffer_size = 0\n")
    done = run(
        "serve", "--config", config, "--max-sessions", "-1",
        RTP_FANOUT__MAX_SESSIONS="2", RTP_FANOUT__MAX_FANOUT_PER_SESSION="-3",
    )  # fmt: skip
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert any("--max-sessions" in line and "-1" in line for line in lines)
    assert any("RTP_FANOUT__MAX_FANOUT_PER_SESSION" in line and "-3" in line for line in lines)
    assert any(str(config) in line and "buffer_size" in line for line in lines)
    assert all(line.startswith("error: ") for line in lines)


def test_a_port_in_use_is_one_line_and_code_2(served):
    flags = list(FREE_PORTS)
    for key in ("bind_address", "grpc_bind_address", "metrics_bind_address"):
        flags[flags.index("--" + key.replace("_", "-")) + 1] = served[key]
        done = run("serve", *flags)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()[-1:]
        assert line.startswith(f"error: {key}: cannot bind {served[key]}")
        flags = list(FREE_PORTS)


def test_a_misspelt_setting_in_the_environment_is_a_warning():
    done = run("serve", "--max-sessions", "0", RTP_FANOUT__MAX_SESION="5")
    assert done.returncode == 2
    done = run("serve", "--bind-address", "198.51.100.1:0", RTP_FANOUT__MAX_SESION="5")
    assert done.returncode == 2
    assert "warning: " in done.stderr
    assert "RTP_FANOUT__MAX_SESSIONS" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_in_order_on_a_signal(number):
    with background("serve", *FREE_PORTS) as command:
        command.wait_for('"event": "ready"')
        code, out = command.finish(number)
    assert code == 0
    assert out == ""
