"""The incidents of docs/operations.md, staged, and solved by the commands that stand there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import run
from support import ServerProcess, address_of, eventually, requires, rtp_packet, udp_socket

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.lent_servers

PAGE = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
SSRC = 0xCA3E7A
NAME = "rover-7/front"


def commands(title: str) -> list[str]:
    """Those of one incident, in order."""
    section = PAGE[PAGE.index("## Three incidents") :]
    section = section[: section.index("\n## ", 1)]
    (incident,) = [part for part in section.split("\n**")[1:] if part.startswith(title)]
    found = re.findall(r"^```sh\n(.*?)^```$", incident, re.MULTILINE | re.DOTALL)
    return [line for block in found for line in block.splitlines()]


@pytest.fixture
def shell(server: ServerProcess) -> Callable[[str], str]:
    """Runs a line of the page; what it says."""

    def shell(line: str) -> str:
        program, *arguments = shlex.split(line)
        assert program == "rtpfanout"
        done = run(*arguments, RTP_FANOUT_SERVER=str(server.grpc))
        assert done.returncode == 0, done.stderr
        return done.stdout

    return shell


def create(server: ServerProcess, source: str) -> str:
    request = pb.CreateSessionRequest(
        source_address=source, ssrc=SSRC, media_type="video", name=NAME
    )
    return str(server.stub.CreateSession(request).session_id)


def condition(server: ServerProcess) -> str:
    return str(server.stub.GetSession(pb.GetSessionRequest(session_id=NAME)).condition)


def row(table: str, name: str) -> str:
    (found,) = [line for line in table.splitlines() if line.startswith(name)]
    return found


class Camera:
    """Sends until it is told to stop, from `sock`."""

    def __init__(self, sock: socket.socket, server: ServerProcess, lose_each: int = 0) -> None:
        self._sock = sock
        self._server = server
        self._lose_each = lose_each
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _send(self) -> None:
        number = 0
        while not self._stop.wait(0.01):
            number += 1
            if self._lose_each == 0 or number % self._lose_each:
                packet = rtp_packet(SSRC, number, timestamp=number * 900, payload_type=26)
                self._sock.sendto(packet, self._server.ingest_target)


@pytest.fixture
def source() -> Iterator[socket.socket]:
    with udp_socket() as sock:
        yield sock


def test_a_camera_sends_from_another_port(
    server: ServerProcess, shell: Callable[[str], str], source: socket.socket
) -> None:
    list_, stats, knocks, update = commands("A camera sends from another port")
    create(server, address_of(source))
    with Camera(source, server):
        eventually(lambda: condition(server), lambda found: found == "flowing", "packets")
    with udp_socket() as moved, Camera(moved, server):
        eventually(lambda: condition(server), lambda found: found == "silent", "silence")
        (line,) = [line for line in shell(list_).splitlines() if NAME in line]
        assert " silent " in line
        said = shell(stats)
        assert re.search(r"wrong_source [1-9]", row(said, "dropped"))
        assert row(said, "last_wrong_source").endswith(address_of(moved))
        expected = update.replace("127.0.0.1:40002", address_of(moved))
        assert expected in shell(knocks)
        shell(expected)
        eventually(lambda: condition(server), lambda found: found == "flowing", "packets again")


def test_a_tenth_is_lost_before_the_server(
    server: ServerProcess, shell: Callable[[str], str], source: socket.socket
) -> None:
    (stats,) = commands("Pictures break for all viewers of one camera")
    create(server, address_of(source))
    with Camera(source, server, lose_each=10):

        def lost() -> Any:
            return re.search(r"^lost +[1-9]\d* \((\d+\.\d+)%\)", shell(stats), re.MULTILINE)

        found = eventually(
            lost, lambda match: bool(match) and 9 < float(match[1]) < 11, "a tenth is lost"
        )
    assert found
    assert server.metrics()["rtpfanout_kernel_receive_drops_total"] == 0


@pytest.mark.slow("waits 20 s and more for keyframes that do not come")
def test_nobody_can_begin_to_watch(
    server: ServerProcess, shell: Callable[[str], str], source: socket.socket
) -> None:
    requires("ffmpeg")
    list_, stats, keyframe = commands("Who joins sees nothing")
    port = source.getsockname()[1]
    source.close()
    create(server, f"127.0.0.1:{port}")
    ffmpeg = [
        shutil.which("ffmpeg") or "ffmpeg", "-v", "error", "-re",
        "-f", "lavfi", "-i", "testsrc2=size=160x120:rate=25",
        "-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "100000",
        "-f", "rtp", "-ssrc", str(SSRC),
        f"rtp://127.0.0.1:{server.ingest.port}?localrtpport={port}&pkt_size=1200",
    ]  # fmt: skip
    camera = subprocess.Popen(ffmpeg, stdout=subprocess.DEVNULL)
    try:
        eventually(lambda: condition(server), lambda found: found == "flowing", "packets")
        deadline = time.monotonic() + 60
        while condition(server) != "no_keyframes" and time.monotonic() < deadline:
            time.sleep(0.5)
        (line,) = [line for line in shell(list_).splitlines() if NAME in line]
        assert " no_keyframes " in line
        said = shell(stats)
        assert re.search(r"^keyframes +1, last (2\d|3\d|[4-9]\d)\S* s ago$", said, re.MULTILINE)
        assert re.search(r"^encoding +H264 ", said, re.MULTILINE)
        shell(keyframe)
    finally:
        camera.kill()
        camera.wait()
