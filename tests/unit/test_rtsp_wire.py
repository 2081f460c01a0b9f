"""RTSP as bytes, its URLs and its Transport: whatever comes is read, or refused with a sentence."""

from __future__ import annotations

import contextlib
import ipaddress
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.model import Rtcp
from rtpfanout.rtsp.transport import Transport, answer, choose
from rtpfanout.rtsp.urls import Target, control_of
from rtpfanout.rtsp.wire import (
    MOST_BODY_BYTES,
    MOST_HEAD_BYTES,
    MOST_HEADERS,
    REASONS,
    Frame,
    Reader,
    RefusedRequest,
    Request,
    frame_head,
    response,
)

PEER = ipaddress.ip_address("192.0.2.7")
ID = "0f2c8a52-9f55-4b4e-9bb1-2f1f6a6f7b10"
PLAY = b"PLAY rtsp://h/a/ RTSP/1.0\r\nCSeq: 4\r\nSession: abc\r\n\r\n"

tokens = st.from_regex(r"[A-Za-z][A-Za-z-]{0,20}", fullmatch=True)
texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
once = {"cseq", "content-length", "session", "transport", "authorization"}
headers = st.dictionaries(tokens.map(str.lower).filter(lambda n: n not in once), texts, max_size=8)
requests = st.builds(
    Request,
    st.from_regex(r"[A-Z][A-Z_]{0,10}", fullmatch=True),
    texts,
    headers,
    st.binary(max_size=200),
)
frames = st.builds(Frame, st.integers(0, 255), st.binary(max_size=300))


def written(item: Request | Frame) -> bytes:
    if isinstance(item, Frame):
        return frame_head(item.channel, len(item.data)) + item.data
    lines = [f"{item.method} {item.url} RTSP/1.0"]
    lines += [f"{name}: {value}" for name, value in item.headers.items()]
    lines += [f"Content-Length: {len(item.body)}"] if item.body else []
    return "\r\n".join([*lines, "", ""]).encode() + item.body


def taken(reader: Reader) -> list[Request | Frame]:
    found = []
    while (item := reader.next()) is not None:
        found.append(item)
    return found


@given(st.lists(st.one_of(requests, frames), max_size=5), st.lists(st.integers(1, 50), max_size=40))
def test_what_is_written_is_read_however_it_is_cut(
    items: list[Request | Frame], cuts: list[int]
) -> None:
    data = b"".join(map(written, items))
    reader = Reader()
    found: list[Request | Frame] = []
    for size in (*cuts, len(data)):
        reader.feed(data[:size])
        data = data[size:]
        found += taken(reader)
    assert len(reader) == 0
    assert len(found) == len(items)
    for item, original in zip(found, items, strict=True):
        if isinstance(item, Request) and isinstance(original, Request):
            extra = {"content-length": str(len(original.body))} if original.body else {}
            assert item == Request(
                original.method, original.url, {**original.headers, **extra}, original.body
            )
        else:
            assert item == original


@given(st.lists(st.binary(max_size=400), max_size=20))
def test_no_bytes_do_more_than_be_refused(pieces: list[bytes]) -> None:
    reader = Reader()
    for piece in pieces:
        reader.feed(piece)
        try:
            taken(reader)
        except RefusedRequest:
            return
        assert len(reader) <= MOST_HEAD_BYTES + MOST_BODY_BYTES


def test_empty_lines_before_a_request_are_nothing() -> None:
    reader = Reader()
    reader.feed(b"\r\n\r\n" + PLAY + b"\r\n" + PLAY)
    first, second = taken(reader)
    assert first == second
    assert isinstance(first, Request)
    assert (first.cseq, first.headers["session"]) == ("4", "abc")


@pytest.mark.parametrize(
    ("data", "status", "sentence"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400, "METHOD URL RTSP/1.0"),
        (b"play rtsp://h/a RTSP/1.0\r\n\r\n", 400, "METHOD URL RTSP/1.0"),
        (b"PLAY rtsp://h/\xc3\xa4 RTSP/1.0\r\n\r\n", 400, "METHOD URL RTSP/1.0"),
        (b"PLAY rtsp://h/a RTSP/1.0\r\nCSeq 4\r\n\r\n", 400, "NAME: VALUE"),
        (b"PLAY rtsp://h/a RTSP/1.0\r\nA: b\r\n folded\r\n\r\n", 400, "NAME: VALUE"),
        (b"PLAY rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\nCSeq: 2\r\n\r\n", 400, "twice"),
        (b"PLAY rtsp://h/a RTSP/1.0\r\nContent-Length: -1\r\n\r\n", 400, "no number"),
        (b"PLAY rtsp://h/a RTSP/1.0\r\nContent-Length: 65537\r\n\r\n", 413, "65536"),
        (b"PLAY rtsp://h/a RTSP/1.0\r\n" + b"A: b\r\n" * 65 + b"\r\n", 400, "64 headers"),
        (b"x" * (MOST_HEAD_BYTES + 1), 400, "16384"),
        (b"PLAY rtsp://h/a RTSP/1.0\r\nA: " + b"b" * MOST_HEAD_BYTES + b"\r\n\r\n", 400, "16384"),
    ],
)
def test_what_is_no_request(data: bytes, status: int, sentence: str) -> None:
    reader = Reader()
    reader.feed(data)
    with pytest.raises(RefusedRequest, match=sentence) as refused:
        reader.next()
    assert refused.value.status == status
    assert MOST_HEADERS == 64
    assert MOST_BODY_BYTES == 65_536


@given(st.sampled_from(sorted(REASONS)), st.text(max_size=20), st.text(max_size=400))
def test_a_response_has_no_line_that_was_not_meant(status: int, cseq: str, reason: str) -> None:
    text = response(status, cseq, {"Session": reason}, b"body", reason)
    head, _, body = text.partition(b"\r\n\r\n")
    assert body == b"body"
    lines = head.split(b"\r\n")
    assert [line.partition(b":")[0] for line in lines[1:]] == [
        b"CSeq", b"Server", b"Session", b"Content-Length",
    ]  # fmt: skip
    assert lines[0].startswith(b"RTSP/1.0 %d " % status)
    assert len(lines[0]) <= 255


@pytest.mark.parametrize(
    ("url", "base", "path", "track", "token"),
    [
        ("rtsp://h:8554/rover-7/front", "rtsp://h:8554/rover-7/front/", "rover-7/front", "", ""),
        ("RTSP://h/rover-7/front/", "RTSP://h/rover-7/front/", "rover-7/front", "", ""),
        ("rtsps://h/a?token=t", "rtsps://h/a/", "a", "", "t"),
        ("rtsp://h/a/?token=t/", "rtsp://h/a/", "a", "", "t"),
        ("rtsp://h", "rtsp://h/", "", "", ""),
        ("rtsp://h?token=t", "rtsp://h/", "", "", "t"),
        ("rtsp://u:p@h/a%2Fb", "rtsp://h/a%2Fb/", "a/b", "", ""),
        (f"rtsp://h/a/{control_of(ID)}", "rtsp://h/a/", "a", ID, ""),
        (f"rtsp://h/a//{control_of(ID)}/", "rtsp://h/a/", "a", ID, ""),
    ],
)
def test_urls(url: str, base: str, path: str, track: str, token: str) -> None:
    assert Target.of(url) == Target(base, path, track, token)


@pytest.mark.parametrize(
    ("url", "status"),
    [("*", 400), ("/a", 400), ("http://h/a", 400), ("rtsp://h/a/trackID=7", 404)],
)
def test_what_is_no_url_of_ours(url: str, status: int) -> None:
    with pytest.raises(RefusedRequest) as refused:
        Target.of(url)
    assert refused.value.status == status


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_any_url_is_read_or_refused(rest: str) -> None:
    with contextlib.suppress(RefusedRequest):
        target = Target.of(f"rtsp://h/{rest}")
        assert target.base.endswith("/")
        assert "?" not in target.base


@pytest.mark.parametrize(
    ("header", "expected", "rtcp"),
    [
        ("RTP/AVP;unicast;client_port=5000-5001", Transport("RTP/AVP", (5000, 5001)), "next_port"),
        ("RTP/AVP/UDP;unicast;client_port=5000-5001;mode=play",
         Transport("RTP/AVP/UDP", (5000, 5001)), "next_port"),
        ("RTP/AVP;unicast;client_port=5000-5003", Transport("RTP/AVP", (5000, 5003)), "off"),
        ("RTP/AVP;unicast;client_port=5000", Transport("RTP/AVP", (5000, 0)), "off"),
        ("RTP/AVP;unicast;client_port=5000-5000", Transport("RTP/AVP", (5000, 5000)), "mux"),
        ("RTP/AVP;client_port=5000-5001;RTCP-mux",
         Transport("RTP/AVP", (5000, 5001), wants_mux=True), "mux"),
        ("RTP/AVP/TCP;unicast;interleaved=2-3",
         Transport("RTP/AVP/TCP", channels=(2, 3), is_interleaved=True), "mux"),
        ("RTP/AVP;interleaved=0-1",
         Transport("RTP/AVP/TCP", channels=(0, 1), is_interleaved=True), "mux"),
        ("RTP/AVP/TCP;unicast", Transport("RTP/AVP/TCP", is_interleaved=True), "mux"),
        ("RTP/AVP;multicast, RAW/RAW/UDP, RTP/AVP;client_port=6-7",
         Transport("RTP/AVP", (6, 7)), "next_port"),
        ("RTP/AVP;client_port=6-7;destination=192.0.2.7", Transport("RTP/AVP", (6, 7)),
         "next_port"),
    ],
)  # fmt: skip
def test_what_is_taken_of_a_transport(header: str, expected: Transport, rtcp: str) -> None:
    chosen = choose(header, PEER)
    assert chosen == expected
    assert chosen.rtcp is Rtcp(rtcp)


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("", 461),
        ("RTP/AVP;multicast;client_port=1-2", 461),
        ("MP2T/H2221/UDP;client_port=1-2", 461),
        ("RTP/AVP;unicast", 461),
        ("RTP/AVP;client_port=0-1", 461),
        ("RTP/AVP;client_port=65535", 461),
        ("RTP/AVP;client_port=70000-70001", 461),
        ("RTP/AVP;client_port=x", 461),
        ("RTP/AVP/TCP;interleaved=255-256", 461),
        ("RTP/AVP;client_port=5-6;mode=record", 501),
        ("RTP/AVP;client_port=5-6;destination=192.0.2.8", 403),
        ("RTP/AVP;client_port=5-6;destination=::1", 403),
        ("RTP/AVP;client_port=5-6;destination=host.example", 403),
        ("RTP/AVP;client_port=5-6;dest_addr=\"192.0.2.8:5\"", 403),
        ("RTP/AVP;client_port=5-6;destination=192.0.2.8,RTP/AVP;client_port=5-6", 403),
        ("RTP/AVP/TCP;interleaved=0-1;destination=192.0.2.8", 403),
    ],
)  # fmt: skip
def test_what_is_not_taken(header: str, status: int) -> None:
    with pytest.raises(RefusedRequest) as refused:
        choose(header, PEER)
    assert refused.value.status == status
    assert len(refused.value.sentence) > 20 or not header


def test_the_answer_tells_where_packets_come_from() -> None:
    udp = Transport("RTP/AVP", (6000, 6001))
    told = "RTP/AVP;unicast;client_port=6000-6001;server_port=5004-5005"
    assert answer(udp, (5004, 5005)) == told + ';mode="PLAY"'
    assert answer(udp, (5004, 5005), "192.0.2.1") == told + ';source=192.0.2.1;mode="PLAY"'
    tcp = Transport("RTP/AVP/TCP", channels=(2, 3), is_interleaved=True)
    assert answer(tcp, (5004, 5005)) == 'RTP/AVP/TCP;unicast;interleaved=2-3;mode="PLAY"'


def test_nothing_of_it_is_loaded_where_there_is_no_door() -> None:
    program = (
        "import sys, rtpfanout.server, rtpfanout.supervisor, rtpfanout.service, rtpfanout.http;"
        " sys.exit(any(name.startswith('rtpfanout.rtsp') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
