"""Sessions played by RTSP: what is said, who gets packets, and when that ends."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import pytest
from rtsp_client import RtspClient
from rtsp_scene import Scene, Source, ports, scene_of
from serving import serve_with
from support import ServerProcess, eventually, queued

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

SSRCS = count(1)
TCP = "RTP/AVP/TCP;unicast;interleaved=0-1"


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with scene_of() as scene:
        yield scene


@pytest.fixture
def client(scene: Scene) -> Iterator[RtspClient]:
    with RtspClient(scene.door) as client:
        yield client


@pytest.fixture
def source(scene: Scene, request: pytest.FixtureRequest) -> Iterator[Source]:
    """Of a session that is fed and has the name of the test."""
    source = Source(scene, f"{request.node.originalname}/mic", next(SSRCS))
    source.feed()
    yield source
    scene.server.delete(source.session_id)
    source.sock.close()


def name_of(source: Source, scene: Scene) -> str:
    request = pb.GetSessionRequest(session_id=source.session_id)
    return str(scene.server.stub.GetSession(request).name)


def test_a_client_with_ports_is_a_subscriber_while_it_plays(
    scene: Scene, client: RtspClient, source: Source
) -> None:
    name, ingest = name_of(source, scene), scene.server.ingest.port
    assert "PLAY" in client.ask("OPTIONS", "*").headers["public"]
    described = client.ask("DESCRIBE", name, Accept="application/sdp")
    assert described.status == 200, described
    assert described.headers["content-base"] == f"{client.url}{name}/"
    assert "m=audio 0 RTP/AVP 0\r\n" in described.body
    assert f"a=control:trackID={source.session_id}\r\n" in described.body
    with ports() as here:
        track = f"{name}/trackID={source.session_id}"
        answer = client.set_up(track, here.transport)
        assert answer.status == 200, answer
        assert f";server_port={ingest}-{ingest + 1}" in answer.headers["transport"]
        assert "source=" not in answer.headers["transport"]
        assert "timeout=60" in answer.headers["session"]
        assert scene.subscribers(source.session_id) == []
        assert client.ask("PLAY", f"{name}/", Range="npt=0.000-").status == 200
        (subscriber,) = scene.subscribers(source.session_id)
        assert (subscriber.subscriber_address, subscriber.rtcp) == (here.address, "next_port")
        assert subscriber.expires_at
        sent = source.send(20)
        came = [here.rtp.recvfrom(2048) for _ in sent]
        assert [data for data, _ in came] == sent
        assert {sender for _, sender in came} == {("127.0.0.1", ingest)}
        source.sender_report()
        assert here.rtcp.recvfrom(2048)[0][1] == 200
        assert client.ask("TEARDOWN", f"{name}/").status == 200
        assert scene.subscribers(source.session_id) == []
        assert client.ask("PLAY", f"{name}/").status == 454
    assert client.ask("GET_PARAMETER", "*").status == 454


def test_a_broken_connection_ends_it(scene: Scene, client: RtspClient, source: Source) -> None:
    with ports() as here:
        assert client.set_up(source.session_id, here.transport).status == 200
        assert client.ask("PLAY", source.session_id).status == 200
        source.send(1)
        here.take(1)
        client.close()
        scene.await_subscribers(source.session_id, 0)
        source.send(2)
        assert queued(here.rtp) == []


def test_only_the_peer_itself_gets_packets(
    scene: Scene, client: RtspClient, source: Source
) -> None:
    for transport in (
        "RTP/AVP;unicast;destination=127.0.0.2;client_port=6000-6001",
        "RTP/AVP;unicast;client_port=6000-6001;destination=192.0.2.1,RTP/AVP;client_port=6000-6001",
        "RTP/AVP/TCP;unicast;interleaved=0-1;destination=10.0.0.1",
    ):
        refused = client.set_up(source.session_id, transport)
        assert refused.status == 403
        assert "destination" in refused.reason
        assert "session" not in refused.headers
    assert client.ask("PLAY", source.session_id).status == 454
    with ports() as here, RtspClient(scene.door, host="127.0.0.5") as other:
        assert other.set_up(source.session_id, here.transport).status == 200
        other.ask("PLAY", source.session_id)
        (subscriber,) = scene.subscribers(source.session_id)
        assert subscriber.subscriber_address.startswith("127.0.0.5:")
        other.ask("TEARDOWN", source.session_id)


def test_a_session_is_of_its_connection(scene: Scene, client: RtspClient, source: Source) -> None:
    with ports() as here, RtspClient(scene.door) as other:
        client.set_up(source.session_id, here.transport)
        client.ask("PLAY", source.session_id)
        other.session = client.session
        for method in ("PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER"):
            assert other.ask(method, source.session_id).status == 454
        # Nor does anybody take an address that is somebody's.
        other.session = ""
        other.set_up(source.session_id, here.transport)
        refused = other.ask("PLAY", source.session_id)
        assert (refused.status, "already" in refused.reason) == (461, True)
        other.ask("TEARDOWN", source.session_id)
        assert len(scene.subscribers(source.session_id)) == 1
        client.ask("TEARDOWN", source.session_id)


def test_who_was_added_otherwise_stays(scene: Scene, client: RtspClient, source: Source) -> None:
    with ports() as here:
        scene.server.add(source.session_id, here.address)
        client.set_up(source.session_id, here.transport)
        assert client.ask("PLAY", source.session_id).status == 461
        client.close()
        scene.server.remove(source.session_id, here.address)


def test_pause_and_play_again(scene: Scene, client: RtspClient, source: Source) -> None:
    with ports() as here:
        client.set_up(source.session_id, here.transport)
        for _ in range(2):
            assert client.ask("PLAY", source.session_id).status == 200
            sent = source.send(1)
            assert here.take(1) == sent
            assert client.ask("PAUSE", source.session_id).status == 200
            assert scene.subscribers(source.session_id) == []
            source.send(1)
        assert queued(here.rtp) == []


def test_over_the_connection_come_the_same_packets(
    scene: Scene, client: RtspClient, source: Source
) -> None:
    answer = client.set_up(source.session_id, "RTP/AVP/TCP;unicast;interleaved=4-5")
    assert "interleaved=4-5" in answer.headers["transport"]
    assert client.ask("PLAY", source.session_id).status == 200
    sent = source.send(50)
    assert [client.frame() for _ in sent] == [(4, packet) for packet in sent]
    (subscriber,) = scene.subscribers(source.session_id)
    assert subscriber.subscriber_address.startswith("127.0.0.1:")
    assert subscriber.rtcp == "mux"
    source.sender_report()
    channel, report = client.frame()
    assert (channel, report[1]) == (5, 200)
    assert scene.value('rtpfanout_rtsp_playing{over="tcp"}') == 1
    # What it reports is the subscriber's report; what is no report feeds nobody.
    block = source.ssrc.to_bytes(4) + bytes(4) + (53).to_bytes(4) + bytes(12)
    client.send_frame(5, (0x81C90007).to_bytes(4) + (99).to_bytes(4) + block)
    eventually(
        lambda: scene.subscribers(source.session_id)[0].HasField("report"), bool, "its report"
    )
    before = scene.server.stats(source.session_id).packets_received
    client.send_frame(5, sent[-1])
    client.send_frame(4, sent[-1])
    assert client.ask("OPTIONS", "*").status == 200
    assert scene.server.stats(source.session_id).packets_received == before
    assert client.ask("TEARDOWN", source.session_id).status == 200
    assert scene.subscribers(source.session_id) == []


def test_nobody_speaks_for_a_camera_over_the_connection(
    scene: Scene, client: RtspClient, source: Source
) -> None:
    """Whose address, on this host as the relay's, would be taken for a source's."""
    other = Source(scene, "spoken/for", next(SSRCS))
    other.feed()
    client.set_up(source.session_id, "RTP/AVP/TCP;unicast;interleaved=0-1")
    assert client.ask("PLAY", source.session_id).status == 200
    times = bytes(20)
    sender_report = (0x80C80006).to_bytes(4) + other.ssrc.to_bytes(4) + times
    receiver_report = (0x80C90001).to_bytes(4) + (99).to_bytes(4)
    client.send_frame(1, sender_report)
    client.send_frame(1, receiver_report + sender_report)
    # Its own report, which comes after them.
    block = source.ssrc.to_bytes(4) + bytes(4) + (53).to_bytes(4) + bytes(12)
    client.send_frame(1, (0x81C90007).to_bytes(4) + (99).to_bytes(4) + block)
    eventually(
        lambda: scene.subscribers(source.session_id)[0].HasField("report"), bool, "its report"
    )
    assert scene.server.stats(other.session_id).feedback.sender_reports == 0


def test_all_below_a_name_are_tracks(scene: Scene, client: RtspClient) -> None:
    sources = [Source(scene, f"below/{part}", next(SSRCS)) for part in ("b", "a/x")]
    for source in sources:
        source.feed()
    text = client.ask("DESCRIBE", "below").body
    assert text.count("m=audio") == 2
    assert "s=below\r\n" in text
    assert text.index(sources[1].session_id) < text.index(sources[0].session_id)
    assert client.set_up("below", TCP).status == 455
    for source in sources:
        assert client.set_up(f"below/trackID={source.session_id}", "RTP/AVP/TCP").status == 200
    assert client.ask("PLAY", "below").status == 200
    for channel, source in enumerate(sources):
        assert source.send(1) == [client.frame()[1]]
        assert client.frames[-1][0] == 2 * channel
    first = f"below/trackID={sources[0].session_id}"
    assert client.ask("TEARDOWN", first).status == 200
    assert scene.subscribers(sources[0].session_id) == []
    assert len(scene.subscribers(sources[1].session_id)) == 1
    assert client.ask("DESCRIBE", "belo").status == 404
    for source in sources:
        scene.server.delete(source.session_id)


def test_what_is_refused_is_refused_with_a_sentence(
    scene: Scene, client: RtspClient, source: Source
) -> None:
    unknown = client.ask("DESCRIBE", "rover-9/front")
    assert unknown.status == 404
    assert unknown.reason.startswith("no session has the name 'rover-9/front'")
    assert client.ask("DESCRIBE", "").status == 404
    assert client.ask("DESCRIBE", "0f2c8a52-9f55-4b4e-9bb1-2f1f6a6f7b10").status == 404
    for method in ("ANNOUNCE", "RECORD"):
        refused = client.ask(method, "rover-9/front", body="v=0\r\n")
        assert refused.status == 501
        assert f"RTP to {scene.server.ingest} by UDP" in refused.reason
    assert client.ask("REDIRECT", "a").status == 501
    assert client.ask("DESCRIBE", source.session_id, Accept="text/html").status == 406
    required = client.ask("SETUP", source.session_id, Require="a.b")
    assert (required.status, required.headers["unsupported"]) == (551, "a.b")
    assert client.ask("GET_PARAMETER", "*", body="packets_received\r\n").status == 451
    assert client.set_up(source.session_id, "RTP/AVP;multicast;port=6000-6001").status == 461
    assert client.set_up(source.session_id, TCP).status == 200
    assert client.set_up(source.session_id, TCP).status == 455
    client.session = ""
    assert client.set_up(source.session_id, TCP).status == 455
    assert scene.value('rtpfanout_rtsp_requests_total{method="other",status="501"}') >= 3


def test_of_what_never_came_nothing_can_be_told_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = serve_with("rtpfanout.rtsp.times", DESCRIBE_SECONDS=1.0)
    monkeypatch.setattr(ServerProcess, "command", command)
    with scene_of() as scene, RtspClient(scene.door) as client:
        source = Source(scene, "late/mic", next(SSRCS))
        other = Source(scene, "late/other", next(SSRCS))
        refused = client.ask("DESCRIBE", "late/mic")
        assert refused.status == 503
        assert refused.reason.startswith("late/mic: no packet has come yet")
        # It waits, and then tells of those that are known.
        source.send(1)
        described = client.ask("DESCRIBE", "late")
        assert described.status == 200
        assert described.body.count("m=") == 1
        assert other.session_id not in described.body


def test_deleting_the_session_ends_the_playing(
    scene: Scene, client: RtspClient, source: Source
) -> None:
    client.set_up(source.session_id, TCP)
    client.ask("PLAY", source.session_id)
    other = Source(scene, "deleted/mic", next(SSRCS))
    with RtspClient(scene.door) as viewer, ports() as here:
        viewer.set_up(other.session_id, here.transport)
        viewer.ask("PLAY", other.session_id)
        scene.server.delete(other.session_id)
        assert viewer.ask("TEARDOWN", other.session_id).status == 200
    assert source.send(1) == [client.frame()[1]]
