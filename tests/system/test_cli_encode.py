"""`send --encode`: a real encoder's stream, by ffmpeg alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest
from cli_support import background, receiver, run
from players import bound, ffmpeg, free_pair
from support import SETTLE_SECONDS, eventually, requires

from rtpfanout.traffic import rtp

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CODECS = {"h264": "H264/90000", "h265": "H265/90000", "vp8": "VP8/90000"}
FRAMES = 10


@pytest.mark.parametrize(("codec", "rtpmap"), CODECS.items())
def test_a_player_sees_a_clock_that_runs(codec: str, rtpmap: str, tmp_path: Path) -> None:
    requires("ffmpeg")
    port = free_pair()
    sdp = tmp_path / "stream.sdp"
    sdp.write_text(
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 {rtpmap}\n"
    )
    player = ffmpeg(
        *("-protocol_whitelist", "file,udp,rtp", "-i", str(sdp)),
        *("-frames:v", str(FRAMES), "-f", "framemd5", "-"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        eventually(lambda: bound(port), bool, "the player listens")
        with background("send", f"127.0.0.1:{port}", "--encode", codec, "-o", "json") as send:
            out = player.communicate(timeout=2 * SETTLE_SECONDS)[0]
            code, said = send.finish(signal.SIGINT)
    finally:
        player.kill()
        player.wait()
    hashes = [line.split(",")[-1] for line in out.splitlines() if not line.startswith("#")]
    assert len(set(hashes)) == FRAMES
    assert code == 0
    assert json.loads(said)["packets"] >= FRAMES


def test_a_beep_is_sent_as_opus_with_the_numbers_that_were_asked_for() -> None:
    requires("ffmpeg")
    wanted = ("--ssrc", "0xfffffff0", "--payload-type", 111)
    with receiver("--expect", 20, "--clock-rate", 48000) as (recv, address):
        done = run("send", address, "--encode", "opus", "--count", 20, *wanted, "-o", "json")
        code, out = recv.finish()
    assert (done.returncode, code) == (0, 0), done.stderr
    sent, (source,) = json.loads(done.stdout), json.loads(out)["sources"]
    assert source["ssrc"] == sent["ssrc"] == 0xFFFFFFF0
    assert source["payload_types"] == [111]
    assert source["from"] == sent["source"]
    assert source["packets"] == sent["packets"] == 20


def test_packets_are_no_longer_than_asked_for_and_reports_come_beside_them() -> None:
    requires("ffmpeg")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(SETTLE_SECONDS)
        target = f"127.0.0.1:{udp.getsockname()[1]}"
        with background("send", target, "--encode", "h264", "--size", 400) as send:
            came = [udp.recv(65536) for _ in range(60)]
            assert send.finish(signal.SIGTERM)[0] == 0
    assert max(map(len, came)) <= 400
    assert any(rtp.is_report(data) for data in came)


@pytest.fixture
def fake_ffmpeg(tmp_path: Path) -> Callable[[str], str]:
    """A PATH with this shell script in place of ffmpeg."""

    def make(script: str) -> str:
        program = tmp_path / "ffmpeg"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return f"{tmp_path}:{os.environ['PATH']}"

    return make


def test_without_ffmpeg_it_says_what_to_install(tmp_path: Path) -> None:
    done = run("send", "127.0.0.1:9", "--encode", "h264", PATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        "error: --encode needs ffmpeg, which is not in PATH; install it, as by "
        "`apt install ffmpeg`\n"
    )


def test_an_encoder_that_is_missing_is_named(fake_ffmpeg: Callable[[str], str]) -> None:
    path = fake_ffmpeg("echo ' V....D libx264  H.264'")
    done = run("send", "127.0.0.1:9", "--encode", "h265", PATH=path)
    assert done.returncode == 2
    assert "this ffmpeg cannot encode h265: it was built without libx265" in done.stderr


def test_an_ffmpeg_that_fails_is_quoted(fake_ffmpeg: Callable[[str], str]) -> None:
    path = fake_ffmpeg(
        'case "$*" in *-encoders) echo " V....D libx264 H.264";; '
        "*) echo first >&2; echo why it fails >&2; exit 3;; esac"
    )
    done = run("send", "127.0.0.1:9", "--encode", "h264", PATH=path)
    assert done.returncode == 1
    assert done.stderr.endswith("error: ffmpeg ended with code 3: why it fails\n")


@pytest.mark.parametrize("more", [("--pcap", "x"), ("--rate", 5), ("--burst", 5)])
def test_what_does_not_go_with_an_encoder_is_refused(more: tuple[object, ...]) -> None:
    done = run("send", "127.0.0.1:9", "--encode", "h264", *more)
    assert done.returncode == 2
    assert "--encode goes at its own pace" in done.stderr
