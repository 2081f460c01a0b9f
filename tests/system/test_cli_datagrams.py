"""`recv --join`, `recv --consent` and `send --move-key-file` as a user runs them."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from cli_support import background, run, run_json
from datagram_support import outcomes, source_of, subscribers
from support import address_of, eventually, udp_socket

if TYPE_CHECKING:
    from pathlib import Path

    from support import ServerProcess

pytestmark = pytest.mark.lent_servers

SSRC = 0xFACADE


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "move.key"
    path.write_bytes(bytes(range(32)))
    return path


def create(server: ServerProcess, source: str, *options: object) -> str:
    to = ("--server", server.grpc)
    return str(run_json("session", "create", source, "--ssrc", SSRC, *options, *to)["session_id"])


def test_recv_joins_by_a_token_in_a_file_and_leaves(server: ServerProcess, tmp_path: Path) -> None:
    session = create(server, "127.0.0.1", "--source-policy", "ip")
    token = run("session", "token", session, "-q", "--server", server.grpc).stdout
    (tmp_path / "token").write_text(token)
    with background(
        "recv", "--join", f"@{tmp_path / 'token'}", "--server", server.ingest,
        "--expect", 500, "-o", "json",
    ) as recv:  # fmt: skip
        recv.wait_for(rf"the server {server.ingest} sends here")
        assert len(subscribers(server, session)) == 1
        run_json("send", server.ingest, "--ssrc", SSRC, "--count", 500, "--rate", 1000)
        code, out = recv.finish()
    assert code == 0, recv.stderr
    assert json.loads(out)["packets"] == 500
    assert json.loads(out)["not_rtp"] == 0
    assert subscribers(server, session) == {}
    assert outcomes(server)["leave", "accepted"] == 1


def test_recv_consents_to_what_was_added(server: ServerProcess) -> None:
    session = create(server, "127.0.0.1", "--source-policy", "ip", "--consent", "echo")
    with background(
        "recv", "127.0.0.1:0", "--consent", "--server", server.ingest, "-o", "json"
    ) as recv:
        address = recv.wait_for(r"receiving on (\S+)")[1]
        server.add(session, address)
        recv.wait_for(r"sends here")
        assert subscribers(server, session) == {address: "sending"}
        run_json("send", server.ingest, "--ssrc", SSRC, "--count", 100, "--rate", 1000)
        eventually(lambda: server.stats(session).packets_sent, lambda n: n == 100, "100 sent")
        code, out = recv.finish(signal.SIGINT)
    assert code == 0
    assert json.loads(out)["packets"] == 100


def test_send_signs_where_it_is_and_where_it_moves_to(
    server: ServerProcess, key_file: Path
) -> None:
    session = create(server, "192.0.2.7:5000", "--move-key-file", key_file)
    with background(
        "send", server.ingest, "--ssrc", SSRC, "--rate", 200, "--move-key-file", key_file,
        "-o", "json",
    ) as send:  # fmt: skip
        first = send.wait_for(r"takes packets from (\S+) now")[1]
        assert source_of(server, session) == first
        eventually(lambda: server.stats(session).packets_received, lambda n: n >= 20, "it flows")
        send.process.send_signal(signal.SIGUSR1)
        second = send.wait_for(rf"takes packets from (?!{first} )(\S+) now")[1]
        assert source_of(server, session) == second
        now = server.stats(session).packets_received
        eventually(
            lambda: server.stats(session).packets_received, lambda n: n >= now + 20, "it flows on"
        )
        code, out = send.finish(signal.SIGINT)
    assert code == 0
    sent = json.loads(out)["packets"]
    server.settled()
    got = server.stats(session).packets_received
    print(f"\n{sent - got} of {sent} packets fell into the move")
    assert sent - got <= 60, "those of 0.3 s, on a loaded machine"


def test_send_with_a_wrong_key_says_what_to_check(
    server: ServerProcess, key_file: Path, tmp_path: Path
) -> None:
    create(server, "192.0.2.7:5000", "--move-key-file", key_file)
    wrong = tmp_path / "wrong.key"
    wrong.write_bytes(b"another key 1234")
    done = run("send", server.ingest, "--ssrc", SSRC, "--count", 1, "--move-key-file", wrong)
    assert done.returncode == 0
    assert "check the key, the SSRC and that the clocks" in done.stderr
    assert set(outcomes(server)) == {("move", "bad_mac")}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recv"], "give BIND"),
        (["recv", "--join", "x", "--server", "127.0.0.1:1"], "rfj1_"),
        (["recv", "--join", "@/no/such", "--server", "127.0.0.1:1"], "No such file"),
        (["recv", "127.0.0.1:0", "--consent"], "--server goes with"),
        (["recv", "127.0.0.1:0", "--server", "127.0.0.1:1"], "--server goes with"),
        (["send", "127.0.0.1:1", "--move-key-file", "/no/such"], "needs --ssrc"),
        (["send", "127.0.0.1:1", "--ssrc", "1", "--move-key-file", "/no/such"], "No such file"),
        (["send", "127.0.0.1:1", "--ssrc", "1", "--move-key-file", "/dev/null"], "16 to 64"),
    ],
)  # fmt: skip
def test_wrong_usage_says_what_is_wrong(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_who_never_joined_fails_with_the_reason() -> None:
    with udp_socket() as nobody:
        asked = address_of(nobody)
        done = run("recv", "--consent", "--server", asked, "--duration", "1", "-o", "json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["packets"] == 0
    assert done.stderr.splitlines()[-1] == (
        f"error: never joined at {asked}: it did not answer; check the address and the way there"
    )


def test_a_denied_receiver_ends_with_the_reason(server: ServerProcess) -> None:
    session = create(server, "127.0.0.1", "--source-policy", "ip")
    token = run("session", "token", session, "-q", "--server", server.grpc).stdout.strip()
    server.delete(session)
    done = run("recv", "--join", token, "--server", server.ingest)
    assert done.returncode == 3
    assert "the session is gone" in done.stderr
