"""What a session is told to carry: by an encoding, or by an SDP; kept, shown, and described."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from descriptions import CAMERA, FFMPEG, H265_CAMERA, SETS
from managers import SOURCE, Clock, engine_of, manager_of

from rtpfanout.errors import AlreadyExistsError, InvalidArgumentError, NotKnownError
from rtpfanout.sdp import Encoding
from rtpfanout.sessions import SessionView
from rtpfanout.sessions.describing import Description
from rtpfanout.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from rtpfanout.sessions import SessionManager

VIEWER = "192.0.2.7:5000"
H264 = {"name": "h264", "payload_type": 96, "clock_rate": 0, "channels": 0, "fmtp": ""}


def described(manager: SessionManager, *parts: tuple[str, str]) -> Description:
    found = manager.describing.describe(parts)
    assert isinstance(found, Description)
    return found


def test_an_encoding_is_shown_changed_and_taken_back(manager: SessionManager) -> None:
    view = manager.create(SOURCE, 1, "video", encoding=H264)
    assert view.terms.encoding == Encoding("H264", 96)
    assert SessionView.from_json(view.to_json()) == view
    changed = manager.update(view.session_id, encoding={"name": "VP8"})
    assert changed.terms.encoding == Encoding("VP8")
    assert manager.update(view.session_id, paused=True).terms.encoding == Encoding("VP8")
    assert manager.update(view.session_id, encoding={"name": ""}).terms.encoding is None


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"encoding": {"name": "H266"}}, "encoding"),
        ({"encoding": {"name": "", "fmtp": "a=b"}}, "encoding"),
        ({"encoding": {"name": "VP8", "payload_type": 128}}, "encoding"),
        ({"sdp": "nothing"}, "sdp"),
        ({"sdp": FFMPEG.replace("H264", "theora")}, "sdp"),
        ({"sdp": FFMPEG, "encoding": {"name": "VP8"}}, "sdp"),
    ],
)
def test_what_is_none_is_refused(manager: SessionManager, said: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        manager.create(SOURCE, 1, "video", **said)
    assert error.value.field == field
    there = manager.create(SOURCE, 1, "video").session_id
    with pytest.raises(InvalidArgumentError) as error:
        manager.update(there, **said)
    assert error.value.field == field


def test_a_description_says_encoding_and_ssrc(manager: SessionManager) -> None:
    view = manager.create(SOURCE, 0, "video", sdp=H265_CAMERA)
    assert view.ssrc == 0x12345678
    assert view.terms.encoding
    assert view.terms.encoding.name == "H265"
    other = manager.create(SOURCE, 7, "video", sdp=H265_CAMERA)
    assert other.ssrc == 7
    audio = manager.create(SOURCE, 8, "audio", sdp=CAMERA)
    assert audio.terms.encoding == Encoding("PCMA", 8, 8000)
    assert manager.update(audio.session_id, sdp="").terms.encoding == Encoding("PCMA", 8, 8000)


def test_the_same_session_has_the_same_encoding(manager: SessionManager) -> None:
    first = manager.create(SOURCE, 1, "video", encoding=H264, if_exists="return")
    again = manager.create(
        SOURCE, 1, "video", encoding={**H264, "name": "H264"}, if_exists="return"
    )
    assert again.session_id == first.session_id
    with pytest.raises(AlreadyExistsError) as error:
        manager.create(SOURCE, 1, "video", encoding={"name": "VP8"}, if_exists="return")
    assert error.value.field == "encoding"


def test_a_request_id_stands_for_an_encoding_too(manager: SessionManager) -> None:
    said: dict[str, Any] = {"encoding": H264, "request_id": "one"}
    assert manager.create(SOURCE, 1, "video", **said) == manager.create(SOURCE, 1, "video", **said)
    with pytest.raises(InvalidArgumentError):
        manager.create(SOURCE, 1, "video", request_id="one")
    with pytest.raises(InvalidArgumentError):
        manager.create(SOURCE, 1, "video", sdp=FFMPEG, request_id="one")


def test_it_survives_a_restart(tmp_path: Path) -> None:
    path, clock = str(tmp_path / "store.db"), Clock()
    store = Store(path)
    with engine_of() as engine:
        manager = manager_of(engine, clock, store)
        sessions = [
            manager.create(SOURCE, 1, "video", sdp=CAMERA),
            manager.create(SOURCE, 2, "video"),
            manager.create("192.0.2.0/24", 3, "video", source_policy="cidr", encoding=H264),
        ]
        store.close()
    with engine_of() as engine:
        after = manager_of(engine, clock, Store(path))
        assert after.restore().sessions == 3
        for before in sessions:
            assert after.get(before.session_id) == before
        text = described(after, (sessions[0].session_id, VIEWER)).text
        assert f"sprop-parameter-sets={SETS}" in text


def test_what_nobody_knows_is_not_described(manager: SessionManager) -> None:
    known = manager.create(SOURCE, 1, "video", encoding=H264, name="front/video").session_id
    unknown = manager.create(SOURCE, 2, "audio", name="front/audio").session_id
    no_type = manager.create(SOURCE, 3, "video", encoding={"name": "VP8"}).session_id
    no_clock = manager.create(SOURCE, 4, "audio", encoding={"name": "L16", "payload_type": 97})
    for name in (unknown, no_type, no_clock.session_id):
        assert isinstance(
            manager.describing.describe([(known, VIEWER), (name, VIEWER)]), NotKnownError
        )
    one = described(manager, ("front/video", "[2001:db8::7]:5000"))
    assert one.notes == ("front/video: no packet has come yet",)
    assert "c=IN IP6 2001:db8::7\r\n" in one.text
    manager.update(unknown, encoding={"name": "OPUS", "payload_type": 97})
    both = described(manager, ("front/video", VIEWER), ("front/audio", "192.0.2.7:5002"))
    assert "s=front\r\n" in both.text
    assert [line for line in both.text.splitlines() if line.startswith("m=")] == [
        "m=video 5000 RTP/AVP 96",
        "m=audio 5002 RTP/AVP 97",
    ]


def test_who_has_rtcp_at_the_port_of_his_packets_is_told(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video", encoding=H264).session_id
    for rtcp, is_told in (("next_port", False), ("mux", True), ("off", False)):
        manager.add_subscriber(session_id, VIEWER, rtcp=rtcp)
        text = described(manager, (session_id, VIEWER)).text
        assert ("a=rtcp-mux\r\n" in text) is is_told


def test_encrypted_media_are_described_by_what_was_told(manager: SessionManager) -> None:
    key = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
    said = (
        CAMERA.replace("RTP/AVP", "RTP/SAVP")
        + f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\n"
    )
    view = manager.create(SOURCE, 1, "video", sdp=said)
    assert view.terms.srtp
    text = described(manager, (view.session_id, VIEWER)).text
    assert "RTP/SAVP 96\r\n" in text
    assert f"sprop-parameter-sets={SETS}" in text
    assert key not in text + view.to_json()
    there = manager.create(SOURCE, 2, "video", encoding=H264)
    assert not there.terms.srtp
    assert manager.update(there.session_id, sdp=said).terms.srtp


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([("there", "nowhere")], "subscriber_address"),
        ([("there", "192.0.2.7:0")], "subscriber_address"),
        ([("there", VIEWER), ("there", "x")], "others[0].subscriber_address"),
        ([("there", VIEWER)] * 33, "others"),
    ],
)
def test_where_nobody_can_listen(
    manager: SessionManager, parts: list[tuple[str, str]], field: str
) -> None:
    manager.create(SOURCE, 1, "video", encoding=H264, name="there")
    with pytest.raises(InvalidArgumentError) as error:
        manager.describing.describe(parts)
    assert error.value.field == field
