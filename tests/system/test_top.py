"""TopSessions of a real server, and `rtpfanout top` on a terminal of 80 columns."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cli_support import COMMAND, environment, run_json
from support import ServerProcess, address_of, eventually, rtp_packet

from rtpfanout.api import session_pb2 as pb
from rtpfanout.client import SessionClient

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.lent_servers


@pytest.fixture
def camera(udp: Callable[..., socket.socket]) -> socket.socket:
    return udp()


@pytest.fixture
def fed(server: ServerProcess, camera: socket.socket) -> Iterator[ServerProcess]:
    """Three sessions, of which one gets packets all the time."""
    with SessionClient(server.calls_target) as client:
        client.create_session(
            address_of(camera), 1, "video", name="rover-7/front", labels={"vehicle": "7"}
        )
        client.add_subscriber("rover-7/front", "127.0.0.1:6000")
        client.create_session("192.0.2.8:1", 2, "video", name="rover-8/front")
        client.create_session("192.0.2.9:1", 3, "audio", labels={"vehicle": "9"})
    over = threading.Event()

    def feed() -> None:
        number = 0
        while not over.wait(0.01):
            number += 1
            camera.sendto(rtp_packet(1, number, bytes(1000)), server.ingest_target)

    thread = threading.Thread(target=feed)
    thread.start()
    yield server
    over.set()
    thread.join()


def test_figures_are_those_of_each_session(fed: ServerProcess) -> None:
    with SessionClient(fed.calls_target) as client:
        found = eventually(
            client.top_sessions,
            lambda f: any(s.condition == "flowing" and s.bitrate_bps > 0 for s in f.sessions),
            "one flows",
        )
        assert [s.name for s in found.sessions][1:] != []
        front = next(s for s in found.sessions if s.name == "rover-7/front")
        session = client.get_session("rover-7/front")
        assert front.session_id == session.session_id
        assert (front.condition, front.status) == (session.condition, session.status)
        assert front.condition_since[:19] == session.condition_since[:19]
        assert (front.subscriber_count, dict(front.labels)) == (1, {"vehicle": "7"})
        assert (found.total, found.matched, found.subscribers) == (3, 3, 1)
        assert found.bitrate_bps == pytest.approx(front.bitrate_bps)
        by_name = client.top_sessions(order_by="name")
        assert [s.name for s in by_name.sessions] == ["rover-7/front", "rover-8/front", ""]
        turned = client.top_sessions(order_by="name", reverse=True, limit=1)
        assert ([s.name for s in turned.sessions], turned.matched) == ([""], 3)
        most = client.top_sessions(order_by="bitrate", limit=1)
        assert [s.name for s in most.sessions] == ["rover-7/front"]
        some = client.top_sessions(words="VEHICLE=9")
        assert (len(some.sessions), some.matched, some.total) == (1, 1, 3)
        assert client.top_sessions(label_selector="vehicle=7").total == 1
        assert client.top_sessions(state="never_fed").matched == 2


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"order_by": "size"}, b"order_by"),
        ({"state": "ill"}, b"state"),
        ({"words": "x" * 257}, b"words"),
        ({"limit": -1}, b"limit"),
        ({"label_selector": "x"}, b"label_selector"),
    ],
)
def test_what_cannot_be_asked_for(
    server: ServerProcess, fields: dict[str, Any], field: bytes
) -> None:
    with pytest.raises(grpc.RpcError) as error:
        server.stub.TopSessions(pb.TopSessionsRequest(**fields))
    failure: Any = error.value
    assert failure.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert field in dict(failure.trailing_metadata())["grpc-status-details-bin"]


class Terminal:
    """A command on a terminal of 80 columns and 24 lines, without its colours."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            command = [*COMMAND, *arguments]
            os.execvpe(command[0], command, environment(TERM="xterm"))  # noqa: S606
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._said = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self.file, 65536):
                self._said += data
        except OSError:  # the command has ended
            pass

    @property
    def text(self) -> str:
        """All it said since the last key."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._said.decode(errors="replace"))

    def until(self, pattern: str) -> str:
        """What it said, when that is there."""
        return eventually(
            lambda: self.text, lambda text: re.search(pattern, text) is not None, pattern
        )

    def press(self, keys: str) -> None:
        self._said = b""
        os.write(self.file, keys.encode())

    def ended(self) -> int:
        found: list[int] = []

        def look() -> list[int]:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                found.append(os.waitstatus_to_exitcode(status))
            return found

        eventually(look, bool, "it ends")
        os.close(self.file)
        return found[0]


def test_on_a_terminal(fed: ServerProcess) -> None:
    terminal = Terminal("top", "--interval", "0.2", "-s", fed.calls_target)
    terminal.until(r"rover-7/front +flowing +0\.\d\d")
    assert "3 sessions" in terminal.text
    terminal.press("n")
    terminal.until(r"NAME\^")
    terminal.press("/7/front\r")
    terminal.until(r"7/front: 1 of 3 sessions")
    terminal.press("\r")
    terminal.until(r"127\.0\.0\.1:6000 +monitor +sending")
    terminal.until("Esc back")
    terminal.press("q")
    terminal.until("Enter open q")
    terminal.press("q")
    assert terminal.ended() == 0


def test_a_frame_for_programs(fed: ServerProcess) -> None:
    found = run_json("top", "--sort", "name", "-s", fed.calls_target)
    assert [each["name"] for each in found["sessions"]] == ["rover-7/front", "rover-8/front", ""]
