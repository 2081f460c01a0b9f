"""`rtpfanout why` in incidents, each staged between hosts of its own: it names the cause."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import run
from netns import hosts, inside, link, server_in
from procs import thread_states
from rtcp_packets import receiver_report
from support import eventually, requires, requires_root, rtp_packet, udp_socket

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from support import ServerProcess

SERVER, CAMERA, VIEWER, NOBODY = "10.8.1.1", "10.8.1.2", "10.8.2.2", "10.8.2.77"
NAMES = ("wsv", "wcm", "wvw")
KEYFRAME, PICTURE = b"\x65\x88" + bytes(60), b"\x41\x9a" + bytes(60)  # of H.264: IDR, and not
IN_A_CHAIN = "add chain inet f c {{ type filter hook {} priority -300; }}"


class Camera:
    """Sends 100 packets a second from `sock` to the server until the end of the block."""

    def __init__(self, sock: socket.socket, port: int, ssrc: int) -> None:
        self.sock, self.ssrc = sock, ssrc
        self.payload, self.payload_type = b"no video", 0
        self._to = (SERVER, port)
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def address(self) -> str:
        return "{}:{}".format(*self.sock.getsockname())

    def send(self) -> None:
        self._number += 1
        packet = rtp_packet(
            self.ssrc,
            self._number,
            self.payload,
            timestamp=900 * self._number,
            payload_type=self.payload_type,
        )
        self.sock.sendto(packet, self._to)

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.01):
            self.send()


class Scene:
    """Three hosts: the camera's, the server's and the viewer's."""

    def __init__(self, stack: ExitStack, directory: Path, tag: str, **settings: object) -> None:
        self.stack = stack
        self.ns = stack.enter_context(hosts(*(f"{name}{tag}" for name in NAMES)))
        self.ns = {name: self.ns[f"{name}{tag}"] for name in NAMES}
        link(self.ns["wsv"], f"{SERVER}/24", self.ns["wcm"], f"{CAMERA}/24")
        link(self.ns["wsv"], "10.8.2.1/24", self.ns["wvw"], f"{VIEWER}/24")
        kind = server_in(self.ns["wsv"], directory)
        self.server: ServerProcess = kind(
            bind_address="0.0.0.0:0", enable_metrics=False, **settings
        )
        stack.callback(self.server.stop)
        self._ssrc = 0x77000000
        self.seconds = 0.5

    def socket(self, host: str, ip: str) -> socket.socket:
        with inside(self.ns[host]):
            return self.stack.enter_context(udp_socket(ip))

    def camera(self, ssrc: int = 0) -> Camera:
        self._ssrc += 1
        port = self.server.ingest.port
        return Camera(self.socket("wcm", CAMERA), port, ssrc or self._ssrc)

    def viewer(self) -> tuple[socket.socket, str]:
        sock = self.socket("wvw", VIEWER)
        return sock, "{}:{}".format(*sock.getsockname())

    def create(self, name: str, camera: Camera, *subscribers: str, **terms: Any) -> str:
        request = pb.CreateSessionRequest(
            source_address=camera.address, ssrc=camera.ssrc, media_type="video", name=name, **terms
        )
        session = str(self.server.stub.CreateSession(request).session_id)
        for address in subscribers:
            self.server.add(session, address)
        return session

    def condition(self, name: str) -> str:
        return str(self.server.stub.GetSession(pb.GetSessionRequest(session_id=name)).condition)

    def until(self, name: str, condition: str) -> None:
        eventually(lambda: self.condition(name), lambda found: found == condition, condition)

    def nft(self, host: str, *lines: str) -> None:
        for line in ("add table inet f", *lines):
            command = ["ip", "netns", "exec", self.ns[host], "nft", line]
            subprocess.run(command, check=True, capture_output=True)

    def drop_at(self, viewer: socket.socket) -> None:
        """What comes to it, in its host's firewall."""
        rule = f"add rule inet f c udp dport {viewer.getsockname()[1]} drop"
        self.nft("wvw", IN_A_CHAIN.format("input"), rule)

    def command(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        return run(*arguments, "-s", self.server.calls_target)

    def why(self, *arguments: object) -> dict[str, dict[str, Any]]:
        """What isn't well, by station and kind; the exit code says whether there is anything."""
        done = self.command("why", *arguments, "--seconds", self.seconds, "-o", "json")
        told = json.loads(done.stdout)
        found = {
            f"{each['station']}/{each['kind']}": each
            for each in told["findings"]
            if each["level"] in ("cause", "either")
        }
        assert told["cause_found"] == bool(found)
        assert done.returncode == bool(found), done.stderr
        return found

    def names(self, kind: str, *arguments: object) -> dict[str, Any]:
        """The finding, as soon as it is the only trouble."""
        found = eventually(lambda: self.why(*arguments), lambda f: set(f) == {kind}, kind)
        return found[kind]


@contextmanager
def scene(directory: Path, tag: str = "", **settings: object) -> Iterator[Scene]:
    requires_root()
    requires("ip", "nft")
    with ExitStack() as stack:
        yield Scene(stack, directory, tag, **settings)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all who leave the server alone; each has a session of its own."""
    with scene(tmp_path_factory.mktemp("w")) as made:
        yield made


def test_viewers_whose_port_is_closed_or_whose_host_is_not_there(shared: Scene) -> None:
    s = shared
    camera = s.camera()
    _viewer, there = s.viewer()
    closed, nobody = f"{VIEWER}:9", f"{NOBODY}:6000"
    s.create("closed", camera, there, closed, nobody)
    with camera:
        s.until("closed", "flowing")
        both = {"reach/port_closed", "reach/no_arp"}
        found = eventually(lambda: s.why("closed"), lambda f: set(f) == both, "both troubles")
        table = s.command("why", "closed", closed, "--seconds", 0.5)
    assert found["reach/port_closed"]["text"].startswith(f"{closed}: nobody takes it")
    assert f"{NOBODY} does not answer ARP" in found["reach/no_arp"]["text"]
    assert table.returncode == 1
    (line,) = [line for line in table.stdout.splitlines() if line.startswith("reach")]
    assert line.split()[1] == "CAUSE"


def test_a_firewall_at_the_viewer_that_drops_silently(shared: Scene) -> None:
    """Without RTCP nothing tells it from a program that does not play, and that is said."""
    s = shared
    camera = s.camera()
    viewer, there = s.viewer()
    s.create("walled", camera, there)
    s.drop_at(viewer)
    with camera:
        s.until("walled", "flowing")
        done = s.command("why", "walled", there, "--seconds", 0.5)
    assert done.returncode == 0, done.stdout
    assert "a firewall that drops silently, or the program that is to play them" in done.stderr
    assert "whether anybody listens at the port nothing tells" in done.stdout


@pytest.mark.slow("waits 30 s for reports that do not come any more")
def test_a_firewall_that_drops_what_goes_to_a_viewer_with_rtcp(shared: Scene) -> None:
    s = shared
    camera = s.camera()
    viewer, there = s.viewer()
    _other, never = s.viewer()
    session = s.create("reporting", camera)
    for address in (there, never):
        s.server.stub.AddSubscriber(
            pb.AddSubscriberRequest(session_id=session, subscriber_address=address, rtcp="mux")
        )
    with camera:
        s.until("reporting", "flowing")

        def reported() -> bool:
            viewer.sendto(receiver_report(5, camera.ssrc), ("10.8.2.1", s.server.ingest.port))
            return not s.why("reporting", there)

        eventually(reported, bool, "it is reached")
        s.drop_at(viewer)
        found = s.names("report/never_reported", "reporting", never)
        assert "a firewall drops" in found["text"]
        deadline = time.monotonic() + 60
        while not (trouble := s.why("reporting", there)) and time.monotonic() < deadline:
            time.sleep(1)
    assert set(trouble) == {"reach/silent_receiver"}
    assert (
        "its program ended or hangs, or a firewall drops"
        in trouble["reach/silent_receiver"]["text"]
    )


def test_a_camera_that_sends_from_another_port(shared: Scene) -> None:
    s = shared
    camera = s.camera()
    moved = s.camera(camera.ssrc)
    _viewer, there = s.viewer()
    s.create("moved", camera, there)
    with camera:
        s.until("moved", "flowing")
    with moved:
        s.until("moved", "silent")
        found = s.names("camera/knocks", "moved", there)
        assert f"{moved.address} sends what may be its" in found["text"]
        program, *command = shlex.split(found["next"][0])
        assert program == "rtpfanout"
        assert s.command(*command).returncode == 0
        s.until("moved", "flowing")


def test_a_tenth_is_lost_on_the_uplink(shared: Scene) -> None:
    s = shared
    camera = s.camera()
    _viewer, there = s.viewer()
    s.create("lossy", camera, there)
    s.nft(
        "wsv",
        IN_A_CHAIN.format("prerouting"),
        f"add rule inet f c udp sport {camera.sock.getsockname()[1]} numgen inc mod 10 0 drop",
    )
    with camera:
        s.until("lossy", "flowing")
        s.seconds = 1.0  # for a share of enough packets
        found = s.names("reception/lost_on_the_way", "lossy", there)
    assert "are lost between camera and server" in found["text"]


def test_a_receive_queue_that_is_too_short(tmp_path: Path) -> None:
    """Whenever the server gets no CPU for a moment."""
    with scene(tmp_path, "q", buffer_size=64, workers=1) as s:
        _queue_too_short(s)


def _queue_too_short(s: Scene) -> None:
    camera = s.camera()
    _viewer, there = s.viewer()
    s.create("queue", camera, there)
    camera.send()
    stop = threading.Event()

    def stall() -> None:
        while not stop.wait(0.2):
            os.kill(s.server.pid, signal.SIGSTOP)
            try:
                eventually(lambda: thread_states(s.server.pid), lambda now: now == {"T"}, "a stop")
                for _ in range(400):
                    camera.send()
            finally:
                os.kill(s.server.pid, signal.SIGCONT)

    stalls = threading.Thread(target=stall)
    stalls.start()
    try:
        s.until("queue", "flowing")
        found = s.names("server/receive_queue", "queue", there)
    finally:
        stop.set()
        stalls.join()
    assert "its receive queue is full again and again" in found["text"]
    assert any("buffer_size" in step for step in found["next"])


@pytest.mark.slow("waits 20 s and more for keyframes that do not come")
def test_an_encoder_without_keyframes(shared: Scene) -> None:
    s = shared
    camera = s.camera()
    _viewer, there = s.viewer()
    s.create("no-keyframes", camera, there, encoding=pb.Encoding(name="H264"))
    camera.payload, camera.payload_type = KEYFRAME, 96
    camera.send()
    camera.payload = PICTURE
    with camera:
        s.until("no-keyframes", "flowing")
        deadline = time.monotonic() + 60
        while s.condition("no-keyframes") != "no_keyframes" and time.monotonic() < deadline:
            time.sleep(0.5)
        found = s.names("reception/no_keyframes", "no-keyframes", there)
    assert found["next"][0] == "rtpfanout session keyframe no-keyframes"


def test_a_session_that_nobody_has_is_no_cause_but_an_error(shared: Scene) -> None:
    s = shared
    s.create("rover-7/front", s.camera())
    done = s.command("why", "rover-7/frnt")
    assert done.returncode == 3
    assert "is it one of these? rover-7/front" in done.stderr
