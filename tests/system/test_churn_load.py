"""1,000 adds and removes a second while the packet loop is 80 % busy, judged on the wire.

The load is one wide session: most of its subscribers are counted and dropped where their host's
interface would take them in, some are real and checked byte for byte. Guests come and go
beside them. RTPFANOUT_CHURN=full makes it 100,000 removals.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from churner import ADDING, GUEST_PORT, MARKER_PORT
from cli_support import run_json
from netns import hosts, inside, link
from support import ServerProcess, eventually, requires, requires_root, rtp_packet, udp_socket
from wire import Datagram, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

FULL = os.environ.get("RTPFANOUT_CHURN") == "full"
REMOVALS = 100_000 if FULL else 2_000
RATE = 1_000.0
LOAD = 0.8
COUNTED, CHECKED = 490, 10
COUNTED_PORT = 20_000
SSRC = 7
BURST = 14
PACKET_BYTES = 1200
IN_FLIGHT = 12 * BURST
"""The most packets on their way, so that no queue overflows however slow the machine is."""
UDP_SEGMENT, UDP_GRO = 103, 104
HEADERS = 28  # IPv4 and UDP

pytestmark = [
    pytest.mark.slow("2,000 removals, each with its proof in a capture"),
    pytest.mark.timeout(900 if FULL else 300),
]


class Camera:
    """Bursts of numbered packets, as many a second as keep the packet loop busy to LOAD."""

    def __init__(self, sock: socket.socket, to: tuple[str, int], loop: PacketLoop) -> None:
        self.packets = 0
        self.arrived: list[int] = []
        """Packets that each of the checked has, by their own count."""
        self._bursts: dict[int, bytes] = {}
        self._sock, self._to, self._loop = sock, to, loop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def expected(self, first: int, count: int) -> bytes:
        """Those packets, one after the other."""
        found = b""
        for number in range(first // BURST, (first + count - 1) // BURST + 1):
            found += self._bursts.get(number, b"")
        start = first % BURST * PACKET_BYTES
        return found[start : start + count * PACKET_BYTES]

    def _run(self) -> None:
        pause, due = 0.003, time.monotonic()
        segment = struct.pack("=H", PACKET_BYTES)
        while not self._stop.is_set():
            busy = self._loop.look()
            if busy is not None:
                pause = min(0.05, pause * min(1.3, max(0.8, busy / LOAD)))
            due = max(due + pause, time.monotonic() - 5 * pause)
            time.sleep(max(0.0, due - time.monotonic()))
            while self.packets - min(self.arrived) > IN_FLIGHT and not self._stop.is_set():
                time.sleep(0.0005)
            numbers = range(self.packets, self.packets + BURST)
            burst = b"".join(map(numbered, numbers))
            self._bursts[self.packets // BURST] = burst
            self._bursts.pop(self.packets // BURST - 64, None)
            self.packets += BURST
            control = [(socket.IPPROTO_UDP, UDP_SEGMENT, segment)]
            self._sock.sendmsg([burst], control, 0, self._to)


def numbered(number: int) -> bytes:
    head = rtp_packet(SSRC, number & 0xFFFF, number.to_bytes(8, "big"))
    return head + bytes(PACKET_BYTES - len(head))


class PacketLoop:
    """How busy the server's busiest threads are, as many as it has workers: they run, or
    wait for a CPU that others have (schedstat)."""

    LOOK_SECONDS = 0.1

    def __init__(self, pid: int, workers: int) -> None:
        self.shares: list[float] = []
        self._tasks = Path(f"/proc/{pid}/task")
        self._workers = workers
        self._at = time.monotonic()
        self._before = self._read()

    def look(self) -> float | None:
        """The share of the time since the last look, 0 to 1; None so soon after it."""
        seconds = time.monotonic() - self._at
        if seconds < self.LOOK_SECONDS:
            return None
        now = self._read()
        used = sorted(ns - self._before.get(task, 0) for task, ns in now.items())
        self._at, self._before = time.monotonic(), now
        self.shares.append(sum(used[-self._workers :]) / 1e9 / seconds / self._workers)
        return self.shares[-1]

    def _read(self) -> dict[str, int]:
        found = {}
        for task in self._tasks.iterdir():
            try:
                running, waiting, _ = map(int, (task / "schedstat").read_text().split())
            except OSError:  # it has ended
                continue
            found[task.name] = running + waiting
        return found


class Checked:
    """Subscribers whose every byte is compared; what is wrong is told, not raised."""

    def __init__(self, sockets: list[socket.socket], camera: Camera) -> None:
        self.faults: list[str] = []
        self._camera = camera
        self._stop = threading.Event()
        self._selector = selectors.EpollSelector()
        for index, sock in enumerate(sockets):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
            self._selector.register(sock, selectors.EVENT_READ, index)
        camera.arrived = [0] * len(sockets)
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self._selector.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.05):
                assert isinstance(key.fileobj, socket.socket)
                self._take(key.fileobj.recv(65536), key.data)

    def _take(self, data: bytes, index: int) -> None:
        first, count = self._camera.arrived[index], len(data) // PACKET_BYTES
        if data != self._camera.expected(first, count):
            number = int.from_bytes(data[12:20], "big")
            self.faults.append(f"{index}: {len(data)} bytes from {number} instead of {first}")
        self._camera.arrived[index] += count


class Guests:
    """What is captured of the guests, against what the churner says: see churner.py."""

    def __init__(self) -> None:
        self.present: set[int] = set()
        self.copies = 0
        self.removed = 0
        self.late: list[int] = []

    def sees(self, datagram: Datagram) -> None:
        if datagram.port != MARKER_PORT:
            self.copies += 1
            if datagram.port not in self.present:
                self.late.append(datagram.port)
            return
        what, *packed = struct.unpack(f"!B{len(datagram.payload) // 2}H", datagram.payload)
        if what == ADDING:
            self.present.update(packed)
        else:
            self.present.difference_update(packed)
            self.removed += len(packed)


class Scene:
    """A camera, the server, and a host with all the subscribers, each in a namespace."""

    def __init__(self, stack: ExitStack, workers: int, store: Path) -> None:
        self.ns = stack.enter_context(hosts("cam", "sv", "all"))
        self.out = f"to-{self.ns['all']}"[:15]
        link(self.ns["cam"], "10.1.0.2/24", self.ns["sv"], "10.1.0.1/24")
        link(self.ns["sv"], "10.2.0.1/24", self.ns["all"], "10.2.0.2/24")
        rules = f"""table netdev churn {{
            counter counted {{ }}
            chain arriving {{
                type filter hook ingress device "to-{self.ns["sv"]}" priority 0; policy accept;
                udp dport {COUNTED_PORT}-{COUNTED_PORT + COUNTED - 1} counter name counted drop
                udp dport {MARKER_PORT}-65535 drop
            }}
        }}"""
        self._nft("-f", "-", stdin=rules)
        with inside(self.ns["all"]):
            ports = range(COUNTED_PORT + COUNTED, MARKER_PORT)  # free for the checked
            sockets = [stack.enter_context(checked_socket(ports)) for _ in range(CHECKED)]
        with inside(self.ns["sv"]):
            self.server = ServerProcess(
                bind_address="0.0.0.0:0",
                workers=workers,
                max_fanout_per_session=2_000,
                store__path=store,
                overload__busy=0,  # so busy that nobody new would be taken
            )
            stack.callback(self.server.stop)
        with inside(self.ns["cam"]):
            source = stack.enter_context(udp_socket("10.1.0.2"))
        self.session = self._create("{}:{}".format(*source.getsockname()), sockets)
        self.loop = PacketLoop(self.server.pid, workers)
        self.camera = Camera(source, ("10.1.0.1", self.server.ingest.port), self.loop)
        self.checked = Checked(sockets, self.camera)

    def churn(self) -> dict[str, Any]:
        """All the removals, under load; what the churner says."""
        options = {
            "--server": self.server.grpc, "--session": self.session, "--to": "10.2.0.2",
            "--removals": REMOVALS, "--rate": RATE,
        }  # fmt: skip
        script = Path(__file__).parents[1] / "churner.py"
        words = [str(word) for option in options.items() for word in option]
        self.checked.start()
        self.camera.start()
        try:
            time.sleep(1.0)  # until the load is what it is to be
            with inside(self.ns["sv"]):
                done = subprocess.run(
                    [sys.executable, str(script), *words],
                    stdout=subprocess.PIPE,
                    check=True,
                    timeout=REMOVALS / RATE * 8 + 60,
                )
        finally:
            self.camera.stop()
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def settle(self) -> dict[str, float]:
        """Until the checked have all that was sent; the server's numbers then."""
        eventually(
            lambda: min(self.camera.arrived),
            lambda least: least >= self.camera.packets,
            f"{self.camera.packets} packets at each of the checked",
        )
        with inside(self.ns["sv"]):
            self.server.check_identities()
            return self.server.metrics()

    def counted(self) -> int:
        """Copies that reached the counted subscribers' interface; a GSO packet is many."""
        listed = json.loads(self._nft("-j", "list", "counter", "netdev", "churn", "counted"))
        (counter,) = (item["counter"] for item in listed["nftables"] if "counter" in item)
        return int(counter["bytes"] - HEADERS * counter["packets"]) // PACKET_BYTES

    def _create(self, source: str, sockets: list[socket.socket]) -> str:
        """By the command line, whose process is in the namespace with all its threads."""
        everyone = [f"10.2.0.2:{COUNTED_PORT + i}" for i in range(COUNTED)]
        everyone += ["{}:{}".format(*sock.getsockname()) for sock in sockets]
        to = ("--server", str(self.server.grpc))
        with inside(self.ns["sv"]):
            session = run_json("session", "create", source, "--ssrc", SSRC, *to)["session_id"]
            run_json("subscriber", "add", session, *everyone, *to)
        return str(session)

    def _nft(self, *arguments: str, stdin: str | None = None) -> str:
        command = ["ip", "netns", "exec", self.ns["all"], "nft", *arguments]
        return subprocess.run(
            command, input=stdin, check=True, capture_output=True, text=True
        ).stdout


def checked_socket(ports: range) -> socket.socket:
    """On a port that no rule is about."""
    while True:
        sock = udp_socket("10.2.0.2", receive_buffer=16 << 20)
        if sock.getsockname()[1] in ports:
            return sock
        sock.close()


@pytest.fixture(params=[1, 2])
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    requires_root()
    requires("ip", "nft")
    with ExitStack() as stack:
        yield Scene(stack, request.param, tmp_path / "sessions.db")


def test_churn_under_load_costs_nobody_a_packet_and_nothing_leaves_after_a_remove(
    scene: Scene,
) -> None:
    guests = Guests()
    with Wire(scene.ns["sv"], scene.out, MARKER_PORT, guests.sees) as wire:
        churned = scene.churn()
        metrics = scene.settle()
        missed = wire.missed()
    scene.checked.stop()
    sent = scene.camera.packets
    shares = sorted(scene.loop.shares)
    print(
        f"\n{churned['removed']} added and removed, {churned['removed'] / churned['seconds']:.0f} "
        f"a second; the packet loop busy {shares[len(shares) // 2]:.0%} in the median; "
        f"{sent} packets, {sent * (COUNTED + CHECKED)} copies to the steady, {guests.copies} "
        "sends to guests",
        file=sys.stderr,
    )
    assert missed == 0, "the capture is not whole"
    assert guests.removed == churned["removed"] >= REMOVALS
    assert guests.present == set()
    assert guests.copies > 0
    assert guests.late == []
    assert scene.checked.faults == []
    assert scene.camera.arrived == [sent] * CHECKED
    assert scene.counted() == sent * COUNTED
    assert metrics["rtp_packets_received_total"] == sent
    assert metrics["rtpfanout_packets_forwarded_total"] == sent
    assert metrics["total_subscribers"] == COUNTED + CHECKED


def test_the_capture_would_tell() -> None:
    """A copy after the removal, and one before the adding, are found."""
    guests = Guests()
    guests.sees(Datagram(GUEST_PORT, b""))
    guests.sees(Datagram(MARKER_PORT, struct.pack("!BH", ADDING, GUEST_PORT)))
    guests.sees(Datagram(GUEST_PORT, b""))
    guests.sees(Datagram(MARKER_PORT, struct.pack("!BH", 0, GUEST_PORT)))
    guests.sees(Datagram(GUEST_PORT, b""))
    assert guests.late == [GUEST_PORT, GUEST_PORT]
