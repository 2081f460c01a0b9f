"""Who may play by RTSP: the same tokens, roles and labels as at the API, and TLS."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from pki import Authority, bearer, token, write_keys, write_server
from rtsp_client import RtspClient
from rtsp_scene import DOOR, Scene, Source, ports
from secured import secured
from serving import serve_with
from support import ServerProcess, eventually

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SSRCS = count(1)
TCP = "RTP/AVP/TCP;unicast;interleaved=0-1"
ADMIN = bearer(role="admin", exp=time.time() + 86400)  # a run may take long
LABELS = {"vehicle": "rover-7"}


@contextmanager
def guarded(place: Path, **settings: object) -> Iterator[Scene]:
    """A server that asks for tokens."""
    server = ServerProcess(auth__jwt_keys=write_keys(place / "keys.json"), **(DOOR | settings))
    try:
        yield Scene(server, ADMIN)
        server.check_identities()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with guarded(tmp_path_factory.mktemp("keys")) as scene:
        yield scene


@pytest.fixture
def source(scene: Scene, request: pytest.FixtureRequest) -> Source:
    ssrc = next(SSRCS)
    source = Source(scene, f"{request.node.originalname}/{ssrc}", ssrc, labels=LABELS)
    source.feed()
    return source


def basic(password: str, user: str = "viewer") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def plays(client: RtspClient, name: str, **headers: str) -> int:
    """The status of the first that is refused, or of PLAY."""
    for method in ("DESCRIBE", "SETUP", "PLAY"):
        more = {"Transport": TCP} if method == "SETUP" else {}
        response = client.ask(method, name, **more, **headers)
        if method == "SETUP" and response.status == 200:
            client.session = response.headers["session"].partition(";")[0]
        if response.status != 200:
            break
    return response.status


@pytest.mark.parametrize(
    "show",
    [
        lambda text: f"Bearer {text}",
        basic,
        lambda text: basic("", text),
        lambda text: basic(text, ""),
    ],
    ids=["bearer", "basic", "as the user", "without a user"],
)
def test_a_token_lets_in(scene: Scene, source: Source, show: Any) -> None:
    good = token(role="subscriber", labels=LABELS)
    with RtspClient(scene.door) as client:
        refused = client.ask("DESCRIBE", source.session_id)
        assert refused.status == 401
        assert refused.headers["www-authenticate"].startswith('Basic realm="rtpfanout"')
        assert plays(client, source.session_id, Authorization=show(good)) == 200
        assert source.send(1) == [client.frame()[1]]


def test_a_token_of_the_url_is_good_for_its_connection(scene: Scene, source: Source) -> None:
    """The URLs of tracks, which a player makes of the base that it is told, do not have it."""
    good = token(role="subscriber")
    with RtspClient(scene.door) as client, RtspClient(scene.door) as other:
        described = client.ask("DESCRIBE", f"{source.session_id}?token={good}")
        assert described.status == 200
        assert "token" not in described.headers["content-base"]
        assert plays(client, source.session_id) == 200
        assert plays(other, source.session_id) == 401
    assert not [entry for entry in scene.server.log if good in json.dumps(entry)]


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"role": "viewer"}, 403),
        ({"role": "subscriber", "labels": {"vehicle": "rover-8"}}, 404),
        ({"role": "subscriber", "exp": 1}, 401),
        ({"role": "nobody"}, 401),
        ({"role": "subscriber", "secret": b"x" * 32}, 401),
    ],
)
def test_what_does_not_let_in(
    scene: Scene, source: Source, claims: dict[str, Any], status: int
) -> None:
    with RtspClient(scene.door) as client:
        assert plays(client, source.session_id, Authorization=f"Bearer {token(**claims)}") == status
    assert scene.subscribers(source.session_id) == []


def test_all_below_a_name_are_those_of_the_labels(scene: Scene) -> None:
    ours = Source(scene, "mixed/ours", next(SSRCS), labels=LABELS)
    theirs = Source(scene, "mixed/theirs", next(SSRCS))
    for each in (ours, theirs):
        each.feed()
    good = token(role="subscriber", labels=LABELS)
    with RtspClient(scene.door) as client:
        described = client.ask("DESCRIBE", "mixed", Authorization=basic(good))
        assert ours.session_id in described.body
        assert theirs.session_id not in described.body
        assert client.set_up(f"mixed/trackID={theirs.session_id}", TCP).status == 404


def test_a_join_token_will_do_for_its_session(scene: Scene, source: Source) -> None:
    other = Source(scene, "other/mic", next(SSRCS))
    request = pb.IssueJoinTokenRequest(session_id=source.session_id, subscriber_class="pilot")
    text = scene.server.stub.IssueJoinToken(request, metadata=ADMIN).token
    with RtspClient(scene.door) as client:
        assert plays(client, source.session_id, Authorization=basic(text)) == 200
        assert [s.subscriber_class for s in scene.subscribers(source.session_id)] == ["pilot"]
    with RtspClient(scene.door) as client:
        for name in (other.session_id, "other/mic", "other"):
            assert plays(client, name, Authorization=basic(text)) == 404
        answers = [client.ask("DESCRIBE", name) for name in ("other/mic", "nobody/mic", "nobody")]
        assert len({answer.reason for answer in answers}) == 1, "nor is it told that there are some"
        forged = text[:-2] + ("AA" if text[-2:] != "AA" else "BB")
        assert plays(client, source.session_id, Authorization=basic(forged)) == 401


def test_what_has_expired_plays_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = serve_with("rtpfanout.rtsp.times", RENEW_SECONDS=0.2)
    monkeypatch.setattr(ServerProcess, "command", command)
    with guarded(tmp_path) as scene, RtspClient(scene.door) as client, ports() as here:
        source = Source(scene, "expiring/mic", next(SSRCS))
        source.feed()
        # There are ten seconds of leeway.
        short = token(role="subscriber", exp=time.time() - 5)
        client.ask("DESCRIBE", source.session_id, Authorization=f"Bearer {short}")
        assert client.set_up(source.session_id, here.transport).status == 200
        assert client.ask("PLAY", source.session_id).status == 200
        assert client.is_closed()
        scene.await_subscribers(source.session_id, 0)
        assert scene.value('rtpfanout_rtsp_ended_total{reason="refused"}') == 1


def test_what_has_expired_is_not_played_anew(tmp_path: Path) -> None:
    """However often a client stops before anybody looks at what it has shown."""
    with guarded(tmp_path) as scene, RtspClient(scene.door) as client, ports() as here:
        source = Source(scene, "expiring/mic", next(SSRCS))
        source.feed()
        short = token(role="subscriber", exp=time.time() - 7)  # there are ten seconds of leeway
        client.ask("DESCRIBE", source.session_id, Authorization=f"Bearer {short}")
        assert client.set_up(source.session_id, here.transport).status == 200

        def play() -> int:
            status = client.ask("PLAY", source.session_id).status
            if status == 200:
                assert client.ask("PAUSE", source.session_id).status == 200
            return status

        assert eventually(play, lambda status: status != 200, "it has expired") == 401
        assert scene.subscribers(source.session_id) == []


def test_one_session_s_token_is_not_good_for_another_s_track(tmp_path: Path) -> None:
    """It does not play on by what was shown for the first track, nor in its class."""
    with guarded(tmp_path) as scene, RtspClient(scene.door) as client:
        sources = [Source(scene, f"pair/{n}", next(SSRCS)) for n in range(2)]
        for each, kind in zip(sources, ("pilot", "monitor"), strict=True):
            each.feed()
            request = pb.IssueJoinTokenRequest(session_id=each.session_id, subscriber_class=kind)
            text = scene.server.stub.IssueJoinToken(request, metadata=ADMIN).token
            response = client.ask(
                "SETUP", each.session_id, Transport="RTP/AVP/TCP", Authorization=basic(text)
            )
            assert response.status == 200
            client.session = response.headers["session"].partition(";")[0]
        assert client.ask("PLAY", "pair").status == 200
        kinds = [scene.subscribers(each.session_id)[0].subscriber_class for each in sources]
        assert kinds == ["pilot", "monitor"]


def test_rtsps(tmp_path: Path) -> None:
    authority = Authority()
    files = write_server(tmp_path, authority)
    with guarded(tmp_path, **files) as scene:
        good = basic(token(role="subscriber"))
        context = ssl.create_default_context(cadata=authority.pem.decode())
        with secured(str(scene.server.grpc), authority) as stub:
            scene.server.stub = stub
            source = Source(scene, "sealed/mic", next(SSRCS))
            source.feed()
            with RtspClient(scene.door, context) as client:
                assert plays(client, source.session_id, Authorization=good) == 200
                sent = source.send(30)
                assert [client.frame()[1] for _ in sent] == sent
            # Who speaks no TLS is told, and shows nothing that he shouldn't.
            with RtspClient(scene.door) as plain:
                refused = plain.ask("OPTIONS", "*")
                assert refused.status == 403
                assert "rtsps://" in refused.reason
                assert plain.is_closed()
            # A new certificate is taken for the next connection.
            write_server(tmp_path, Authority("another"))

            def is_trusted() -> bool:
                try:
                    RtspClient(scene.door, context).close()
                except ssl.SSLCertVerificationError:
                    return False
                return True

            eventually(is_trusted, lambda trusted: not trusted, "the new certificate")


def test_with_a_client_authority_the_certificate_is_who_it_is(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    settings = write_server(tmp_path, authority) | {
        "tls__client_ca": str(tmp_path / "ca.pem"),
        "auth__certificate_roles": '["wall-2 subscriber", "wall-3 viewer", "root admin"]',
        "insecure": True,
    }
    root = authority.issue("root")
    server = ServerProcess(**(DOOR | settings))
    try:
        scene = Scene(server)
        with secured(str(server.grpc), authority, root) as stub:
            server.stub = stub
            source = Source(scene, "walls/mic", next(SSRCS))
            source.feed()
            for name, status in (("wall-2", 200), ("wall-3", 403), ("wall-4", 401)):
                context = ssl.create_default_context(cadata=authority.pem.decode())
                chain, key = authority.issue(name)
                (tmp_path / name).write_bytes(chain + key)
                context.load_cert_chain(tmp_path / name)
                with RtspClient(scene.door, context) as client:
                    assert plays(client, source.session_id) == status
            with RtspClient(scene.door) as plain:  # as it is insecure
                assert plain.ask("OPTIONS", "*").status == 200
                assert plays(plain, source.session_id) == 401
    finally:
        server.stop()


def test_handshakes_that_do_not_end_take_nobody_s_place(tmp_path: Path) -> None:
    authority = Authority()
    files = write_server(tmp_path, authority)
    with guarded(tmp_path, **files) as scene:
        waiting = [socket.create_connection(scene.door.sockaddr) for _ in range(50)]
        for number, sock in enumerate(waiting):
            sock.sendall(b"\x16\x03\x01"[: number % 3])
        context = ssl.create_default_context(cadata=authority.pem.decode())
        with RtspClient(scene.door, context) as client:
            assert client.ask("OPTIONS", "*").status == 200
        for sock in waiting:
            sock.close()
