"""What players say, changed at random, through all that reads it: it is read or refused, no more.

The seeds are what ffmpeg and GStreamer sent, and two by hand. RTPFANOUT_FUZZ=full runs 10^7.
"""

from __future__ import annotations

import ipaddress
import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from rtpfanout.rtsp.credentials import CHALLENGE, Names, names_of, token_of
from rtpfanout.rtsp.transport import answer, choose
from rtpfanout.rtsp.urls import Target
from rtpfanout.rtsp.wire import (
    MOST_BODY_BYTES,
    MOST_HEAD_BYTES,
    REASONS,
    Frame,
    Reader,
    RefusedRequest,
    Request,
    response,
)

FULL = os.environ.get("RTPFANOUT_FUZZ") == "full"
RUNS = 10_000_000 if FULL else 5_000
SEEDS = [path.read_bytes() for path in sorted((Path(__file__).parent / "corpus/rtsp").iterdir())]
WORDS = (
    b"\r\n", b"\r\n\r\n", b"$", b"$\x00\xff\xff", b": ", b"CSeq: 1", b"Content-Length: ",
    b"99999999", b"Transport: ", b";", b",", b"=", b"-", b"%2F", b"%00", b"RTSP/1.0", b"rtsp://",
    b"trackID=", b"destination=", b"client_port=1-2", b"interleaved=", b"\x00", b"\xff",
)  # fmt: skip
PEER = ipaddress.ip_address("192.0.2.7")


def changed(chance: random.Random) -> bytes:
    """A seed with bits flipped, words put in, cut, or spliced with another."""
    data = bytearray(chance.choice(SEEDS))
    for _ in range(chance.choice((1, 1, 2, 5, 10))):
        place = chance.randrange(len(data) + 1)
        what = chance.randrange(6)
        if what == 0 and place < len(data):
            data[place] ^= 1 << chance.randrange(8)
        elif what <= 2:
            data[place:place] = chance.choice(WORDS)
        elif what == 3:
            del data[place : place + chance.randrange(1, 40)]
        elif what == 4:
            data[place:] = chance.choice(SEEDS)[chance.randrange(100) :]
        else:
            data[place:place] = data[place // 2 : place] * chance.choice((1, 1, 50))
    return bytes(data)


def read(data: bytes, chance: random.Random) -> int:
    """As a connection does; how many requests there were."""
    reader, found, at = Reader(), 0, 0
    while at < len(data):
        size = chance.choice((1, 7, 100, 5000))
        reader.feed(data[at : at + size])
        at += size
        try:
            while (item := reader.next()) is not None:
                if isinstance(item, Frame):
                    continue
                found += 1
                handle(item)
        except RefusedRequest as refused:
            check(refused)
            return found
        assert len(reader) <= MOST_HEAD_BYTES + MOST_BODY_BYTES + 5000
    return found


def handle(request: Request) -> None:
    token_of(request)
    try:
        target = Target.of(request.url)
        assert target.base.isprintable()
        chosen = choose(request.headers.get("transport", ""), PEER)
        if chosen.is_interleaved:
            chosen = replace(chosen, channels=chosen.channels or (0, 1))
        assert "destination" not in answer(chosen, (5004, 5005))
        assert chosen.is_interleaved or 0 < chosen.ports[0] <= 65_535
    except RefusedRequest as refused:
        check(refused)


def check(refused: RefusedRequest) -> None:
    assert refused.status in REASONS
    text = response(refused.status, "1", refused.headers, b"", refused.sentence)
    assert text.count(b"\r\n\r\n") == 1


@pytest.mark.timeout(7200 if FULL else 120)
def test_changed_requests() -> None:
    seed = random.SystemRandom().getrandbits(32) if FULL else 1
    chance = random.Random(seed)
    print(f"\nseed {seed}", file=sys.stderr)
    began, requests = time.monotonic(), 0
    for _ in range(RUNS):
        requests += read(changed(chance), chance)
    print(f"{RUNS / (time.monotonic() - began):,.0f} runs/s", file=sys.stderr)
    assert requests > RUNS, "most of it is still read"


def test_the_seeds_are_read_whole() -> None:
    chance = random.Random(1)
    counts = [read(data, chance) for data in SEEDS]
    assert counts == [3, 5, 5, 6, 5, 1]


def test_what_a_certificate_may_be() -> None:
    nobody: list[tuple[object, Names]] = [(None, None), ({}, None), ("x", None)]
    assert all(names_of(what) == names for what, names in nobody)
    told = {"subject": ((("commonName", "wall-2"),),), "subjectAltName": (("DNS", "w.example"),)}
    assert names_of(told) == ("wall-2", "w.example")
    assert CHALLENGE.startswith("Basic ")
