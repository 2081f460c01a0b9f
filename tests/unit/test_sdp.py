"""SDP both ways: what programs and cameras say, what a player hears, and what nobody should say."""

from __future__ import annotations

import ipaddress
import random
from dataclasses import astuple

import pytest
from descriptions import CAMERA, FFMPEG, H265_CAMERA, PPS, PPS5, SETS, SPS, SPS5, VPS5
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout import sdp
from rtpfanout.model import Address
from rtpfanout.sdp import Encoding, Stream


def test_what_ffmpeg_prints() -> None:
    section, encoding = sdp.section_for(FFMPEG, "video")
    assert encoding == Encoding("H264", 96, 90_000, 0, "packetization-mode=1")
    assert section.ssrc is None
    assert not encoding.has_parameter_sets


def test_what_a_camera_ships() -> None:
    video, encoding = sdp.section_for(CAMERA, "video")
    assert (encoding.name, encoding.payload_type) == ("H264", 96)
    assert encoding.has_parameter_sets
    assert SETS in encoding.fmtp
    _, audio = sdp.section_for(CAMERA, "audio")
    assert audio == Encoding("PCMA", 8, 8000)
    assert [section.media for section in sdp.read(CAMERA)] == ["video", "audio", "application"]
    assert sdp.read(CAMERA)[2].others == ("vnd.onvif.metadata",)
    assert video.encodings == (encoding,)


def test_sets_of_h265_and_the_ssrc() -> None:
    section, encoding = sdp.section_for(H265_CAMERA, "video")
    assert encoding.has_parameter_sets
    assert section.ssrc == 0x12345678


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["m=video 5004 RTP/AVP 26"], Encoding("JPEG", 26, 90_000)),
        (["m=video 5004 RTP/AVP 33"], Encoding("MP2T", 33, 90_000)),
        (["m=audio 5004 RTP/AVP 0"], Encoding("PCMU", 0, 8000, 1)),
        (["m=audio 5004 RTP/AVP 10"], Encoding("L16", 10, 44_100, 2)),
        (["m=audio 5004 RTP/AVP 97", "a=rtpmap:97 opus/48000/2"], Encoding("OPUS", 97, 48_000, 2)),
        (["m=video 5004 RTP/AVPF 97 98", "a=rtpmap:98 vp8/90000"], Encoding("VP8", 98, 90_000)),
        (["m=video 9 UDP/TLS/RTP/SAVPF 45", "a=rtpmap:45 AV1/90000"], Encoding("AV1", 45, 90_000)),
        (["m=video 5004/2 RTP/AVP 96", "a=rtpmap:96 HEVC/90000"], Encoding("H265", 96, 90_000)),
    ],
)
def test_one_encoding_after_the_other(lines: list[str], expected: Encoding) -> None:
    kind = lines[0][2:7]
    section, encoding = sdp.section_for("\n".join(["v=0", *lines]), kind)
    assert encoding == expected
    assert section.is_encrypted == ("SAVP" in lines[0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no line v=0"),
        ("<html>", "no line v=0"),
        ("v=0\ns=x\n", "no media of RTP"),
        ("v=0\nm=video 5004 TCP 96\n", "no media of RTP"),
        ("v=0\nm=audio 5004 RTP/AVP 0\n", "give --media-type"),
        ("v=0\nm=audio 5 RTP/AVP 0\nm=text 5 RTP/AVP 98\n", "it has no video, only audio, text"),
        ("v=0\nm=video 5 RTP/AVP 96 97\na=rtpmap:96 theora/90000\n", "of its video, theora, 97, "),
        ("v=0\n" + "m=video 5 RTP/AVP 26\n" * 65, "65 media, more than 64"),
        ("v=0\n" + " " * 70_000, "more than 65536"),
    ],
)
def test_what_is_wrong_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sdp.section_for(text, "video")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("H266", None, 0, 0, ""), "none of H264, H265, VP8, VP9, AV1, JPEG, OPUS, PCMU, PCMA"),
        (("H264", 128, 0, 0, ""), "payload_type 128"),
        (("H264", 96, 2**31, 0, ""), "clock_rate"),
        (("L16", 96, 0, 256, ""), "channels"),
        (("H264", 96, 0, 0, "a=b\r\nm=video 1 RTP/AVP 1"), "not name=value"),
        (("H264", 96, 0, 0, "a=b; a=c"), "each of them once"),
        (("H264", 96, 0, 0, "sprop-parameter-sets=!"), "not name=value"),
        (("H264", 96, 0, 0, "a" * 5000), "more than 4096"),
    ],
)
def test_an_encoding_that_is_none(given: tuple[str, int | None, int, int, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        sdp.encoding_of(*given)


def test_an_encoding_as_a_request_says_it() -> None:
    found = sdp.encoding_of(
        "h264", None, 0, 0, f"Packetization-Mode=1;sprop-parameter-sets={SETS};"
    )
    assert found == Encoding("H264", fmtp=f"packetization-mode=1; sprop-parameter-sets={SETS}")
    assert found.usual_clock_rate == 90_000


def stream(name: str, to: str = "192.0.2.7:5000", number: int = 96, **more: object) -> Stream:
    return Stream(Address.parse(to), Encoding(name), number, **more)  # type: ignore[arg-type]


def test_sets_that_came_are_told() -> None:
    text = sdp.write("front", None, 7, [stream("H264", parameter_sets=[SPS, PPS])])
    assert text.splitlines() == [
        "v=0",
        "o=- 7 7 IN IP4 192.0.2.7",
        "s=front",
        "c=IN IP4 192.0.2.7",
        "t=0 0",
        "a=recvonly",
        "m=video 5000 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        "a=fmtp:96 packetization-mode=1; profile-level-id=4D401E; sprop-parameter-sets=" + SETS,
    ]
    assert text.endswith("\r\n")
    assert not stream("H264", parameter_sets=[SPS, PPS]).lacks_parameter_sets
    assert stream("H264").lacks_parameter_sets
    assert not stream("VP8").lacks_parameter_sets


def test_several_places_and_families_in_one_description() -> None:
    streams = [
        stream("H265", "[2001:db8::7]:5000", parameter_sets=[VPS5, SPS5, PPS5]),
        stream("OPUS", "239.1.2.3:5002", 97, ttl=5, has_mux=True, bits_per_second=64_400.0),
    ]
    origin = ipaddress.ip_address("192.0.2.1")
    lines = sdp.write("rover-7/front", origin, 1, streams).splitlines()
    assert lines[1] == "o=- 1 1 IN IP4 192.0.2.1"
    assert lines[5:8] == [
        "m=video 5000 RTP/AVP 96",
        "c=IN IP6 2001:db8::7",
        "a=rtpmap:96 H265/90000",
    ]
    assert lines[9:] == [
        "m=audio 5002 RTP/AVP 97",
        "c=IN IP4 239.1.2.3/5",
        "b=AS:64",
        "a=rtpmap:97 opus/48000/2",
        "a=rtcp-mux",
    ]


@given(
    st.sampled_from(sorted(sdp.ENCODINGS)),
    st.integers(0, 127),
    st.integers(1, 2**31 - 1),
    st.integers(2, 255),
    st.lists(st.binary(min_size=4, max_size=60), max_size=4),
)
def test_what_is_written_is_read(
    name: str, number: int, rate: int, channels: int, units: list[bytes]
) -> None:
    encoding = Encoding(name, number, rate, channels)
    wrote = Stream(Address.parse("192.0.2.7:5000"), encoding, number, units)
    (section,) = sdp.read(sdp.write("s", None, 1, [wrote]))
    (found,) = section.encodings
    assert (found.name, found.payload_type, found.clock_rate) == (name, number, rate)
    assert found.channels == channels
    assert found.fmtp == wrote.fmtp
    assert found.has_parameter_sets == (name in ("H264", "H265") and not wrote.lacks_parameter_sets)


LINES = st.sampled_from((FFMPEG + CAMERA + H265_CAMERA).splitlines())
PIECES = st.one_of(LINES, st.text(max_size=60), LINES.map(lambda line: line[: len(line) // 2]))


@given(st.lists(PIECES, max_size=30).map(lambda parts: "v=0\n" + "\n".join(parts)))
def test_nothing_that_is_read_can_be_another_line(text: str) -> None:
    try:
        sections = sdp.read(text)
    except ValueError:
        return
    for section in sections:
        for encoding in section.encodings:
            same = sdp.encoding_of(*astuple(encoding))
            assert same == encoding
            to = Address.parse("192.0.2.7:5000")
            lines = sdp.write("s", None, 1, [Stream(to, encoding, encoding.payload_type or 0)])
            assert lines.isascii()
            assert len(lines.splitlines()) <= 9
            assert lines.count("m=") - encoding.fmtp.count("m=") == 1


def test_bytes_of_descriptions_changed_at_random() -> None:
    seed = random.Random(1)
    texts = [FFMPEG, CAMERA, H265_CAMERA]
    for _ in range(20_000):
        text = list(seed.choice(texts))
        for _ in range(seed.randrange(1, 8)):
            text[seed.randrange(len(text))] = chr(seed.choice((*range(128), 0x85, 0x2028, 0x663)))
        try:
            sections = sdp.read("".join(text))
        except ValueError:
            continue
        for section in sections:
            for encoding in section.encodings:
                assert encoding.fmtp.isascii()
                assert encoding.fmtp.isprintable()
