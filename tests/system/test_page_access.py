"""Whom the page is shown to, and what it tells programs that ask as a browser does."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pki import bearer, token, write_keys
from support import address_of, eventually, rtp_packet, transfer

from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from support import ServerProcess

    StartServer = Callable[..., ServerProcess]
    MakeSocket = Callable[..., socket.socket]

pytestmark = pytest.mark.lent_servers

SECONDS = 30
SESSIONS = "/page/api/sessions"


def answered(server: ServerProcess, path: str, **headers: str) -> Any:
    response = server.http(path, **headers)
    assert response.status_code == 200, response.text
    return response.json()


def test_browsers_get_the_page_and_programs_what_they_always_got(server: ServerProcess) -> None:
    page = server.http("/", accept="text/html,*/*")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text.startswith("<!doctype html>")
    assert server.http("/").text.startswith("rtpfanout\n/metrics ")
    assert "in a browser" in server.http("/").text
    assert server.http("/", accept="text/html").headers["vary"] == "Accept"


def test_every_file_is_found_under_a_strict_policy(server: ServerProcess) -> None:
    for name, kind in (("app.js", "text/javascript"), ("page.css", "text/css")):
        file = server.http(f"/page/{name}")
        assert file.headers["content-type"].startswith(kind)
        policy = file.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert file.headers["x-content-type-options"] == "nosniff"
        again = server.http(f"/page/{name}", if_none_match=file.headers["etag"])
        assert again.status_code == 200  # the header's name has dashes
        again = server.http(f"/page/{name}", **{"if-none-match": file.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for name in ("uPlot.LICENSE", "nothing.js", "..%2fsite.py", "%2e%2e/site.py"):
        assert server.http(f"/page/{name}").status_code == 404


def test_a_session_is_told_as_the_api_tells_it(server: ServerProcess, udp: MakeSocket) -> None:
    source, viewer = udp(), udp()
    session = server.create(address_of(source), 7, address_of(viewer))
    packets = [rtp_packet(7, number, bytes(500)) for number in (1, 2, 4, 5)]
    transfer(source, server.ingest_target, packets, [viewer])
    server.settled()
    told = answered(server, f"/page/api/session?id={session}&history=1")
    stats = server.stats(session)
    for name in ("packets_received", "packets_sent", "bytes_sent", "subscriber_count"):
        assert told["stats"][name] == getattr(stats, name)
    for name in ("expected", "lost", "missing_now"):
        assert told["stats"]["reception"][name] == getattr(stats.reception, name)
    assert told["stats"]["reception"]["lost"] == 1
    assert sum(told["latency"]["last"]) == stats.last_copy_latency.count == 4
    assert len(told["latency"]["bounds_seconds"]) >= len(told["latency"]["last"]) - 1
    (row,) = answered(server, f"{SESSIONS}?q={session}")["rows"]
    assert (row["id"], row["subscribers"]) == (session, 1)
    (subscriber,) = answered(server, f"/page/api/subscribers?id={session}")["subscribers"]
    assert (subscriber["address"], subscriber["packets_sent"]) == (address_of(viewer), 4)


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        (f"{SESSIONS}?sort=colour", 400, "colour"),
        ("/page/api/session?id=nobody", 404, "nobody"),
        ("/page/api/session", 400, ""),
        ("/page/api/subscribers?id=nobody", 404, "nobody"),
        ("/page/api/nothing", 404, ""),
    ],
)
def test_what_is_wrong_is_told(server: ServerProcess, path: str, status: int, word: str) -> None:
    answer = server.http(path)
    assert answer.status_code == status, answer.text
    assert word in answer.text


def test_a_site_that_takes_this_hosts_name_learns_nothing(server: ServerProcess) -> None:
    answer = server.http(SESSIONS, host="attacker.example")
    assert answer.status_code == 403
    assert "sessions" not in answer.json()


@pytest.mark.parametrize("settings", [{"enable_page": False}, {"enable_metrics": False}])
def test_it_can_be_turned_off(start_server: StartServer, settings: dict[str, Any]) -> None:
    server = start_server(**settings)
    if server.metrics_address is None:
        return
    index = server.http("/", accept="text/html").text
    assert index.startswith("rtpfanout\n")
    assert "in a browser" not in index
    for path in ("/page/app.js", SESSIONS):
        assert server.http(path).status_code == 404


@pytest.mark.lent_servers(False)
def test_beyond_loopback_it_takes_a_token_and_shows_what_that_may_see(
    tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(metrics_bind_address="0.0.0.0:0")
    port = server.metrics_address.port if server.metrics_address else 0
    with httpx.Client(trust_env=False, timeout=SECONDS) as client:
        assert client.get(f"http://127.0.0.1:{port}{SESSIONS}").status_code == 200
    server.stop()
    server = start_server(
        auth__jwt_keys=write_keys(tmp_path / "keys.json"), metrics_bind_address="0.0.0.0:0"
    )
    port = server.metrics_address.port if server.metrics_address else 0
    with httpx.Client(trust_env=False, timeout=SECONDS) as client:

        def ask(path: str, **claims: Any) -> httpx.Response:
            headers = {"authorization": f"Bearer {token(**claims)}"} if claims else {}
            return client.get(f"http://127.0.0.1:{port}{path}", headers=headers)

        for path in (SESSIONS, "/page/api/session", "/page/api/knocks", "/page/api/events"):
            assert ask(path).status_code == 401
        assert ask("/page/api/knocks", role="viewer").status_code == 403
        assert ask("/page/api/knocks", role="operator").json() == {"knocks": []}
        confined = {"role": "operator", "labels": {"vehicle": "a"}}
        assert ask("/page/api/knocks", **confined).status_code == 403
        created = server.stub.CreateSession(
            session_pb2.CreateSessionRequest(
                source_address="127.0.0.9:5000",
                ssrc=1,
                media_type="video",
                name="one",
                labels={"vehicle": "a"},
            ),
            metadata=bearer(role="admin"),
        )
        for named in ("one", created.session_id):
            for path in ("session", "subscribers"):
                asked = f"/page/api/{path}?id={named}"
                assert ask(asked, role="viewer", labels={"vehicle": "a"}).status_code == 200
                assert ask(asked, role="viewer", labels={"vehicle": "b"}).status_code == 404
        assert ask(SESSIONS, role="viewer", labels={"vehicle": "b"}).json()["sessions"] == 0
        refused = ask(SESSIONS)
        assert refused.status_code == 401
        assert json.loads(refused.text)["error"] == "a bearer token is needed"
        assert ask("/", role="viewer").status_code == 200, "the files hold no secret"
        everything = ask(SESSIONS, role="operator").json()
        assert everything["knocking"] == 0
        confined = ask(SESSIONS, role="viewer", labels={"vehicle": "a"}).json()
        assert "knocking" not in confined
    server.stop()


def frames(server: ServerProcess, path: str, enough: Callable[[list[Any]], bool]) -> list[Any]:
    """(number, kind, data) of events, until there are enough; the stream has to stay open."""
    found = []
    url = f"http://{server.metrics_address}{path}"
    with (
        httpx.Client(trust_env=False, timeout=SECONDS) as client,
        client.stream("GET", url) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        while not enough(found):
            number, kind, data = (next(lines).partition(": ")[2] for _ in range(3))
            assert next(lines) == ""
            found.append((int(number), kind, json.loads(data)))
    return found


def test_events_come_as_they_happen_and_go_on_after_the_last(server: ServerProcess) -> None:
    session = server.create("127.0.0.9:5000", 70)

    def is_up_to_date(found: list[Any]) -> bool:
        return bool(found) and found[-1][1] == "heartbeat"

    path = f"/page/api/events?session={session}"
    first = frames(server, path, is_up_to_date)
    assert [kind for _, kind, _ in first] == ["created", "heartbeat"]
    assert first[0][2]["session_id"] == session
    server.add(session, "127.0.0.1:6000")
    more = frames(server, f"{path}&after={first[-1][0]}", bool)
    assert [kind for _, kind, _ in more] == ["subscriber_joined"]
    assert more[0][2]["subscriber_address"] == "127.0.0.1:6000"
    assert server.http("/page/api/events?after=x").status_code == 400
    everything = frames(server, "/page/api/events", is_up_to_date)
    assert len(everything) <= 101


def test_who_knocks_is_told_with_the_command_that_admits(
    server: ServerProcess, udp: MakeSocket
) -> None:
    stranger = udp()
    stranger.sendto(rtp_packet(0x1234, 1), server.ingest_target)
    (knock,) = eventually(
        lambda: [
            each
            for each in answered(server, "/page/api/knocks")["knocks"]
            if each["source"] == address_of(stranger)
        ],
        bool,
        "the knock",
    )
    assert (knock["ssrc"], knock["packets"], knock["reason"]) == (0x1234, 1, "unknown_ssrc")
    assert knock["admit_by"] == f"rtpfanout session create {address_of(stranger)}"
    assert answered(server, SESSIONS)["knocking"] >= 1


@pytest.mark.lent_servers(False)
def test_a_server_that_stops_does_not_wait_for_who_listens(start_server: StartServer) -> None:
    server = start_server()
    url = f"http://{server.metrics_address}/page/api/events"
    with (
        httpx.Client(trust_env=False, timeout=SECONDS) as client,
        client.stream("GET", url) as response,
    ):
        lines = response.iter_lines()
        while "heartbeat" not in next(lines):
            pass
        assert server.stop() == 0
        assert all("event: " not in line for line in lines), "it ends in peace"
