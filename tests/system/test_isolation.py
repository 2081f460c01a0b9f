"""One bad subscriber does not hurt a good one: dead neighbours and a slow path beside many good.

Dead are addresses of our own link that answer no ARP request, so that the kernel keeps
what is sent to them until it gives up; the slow path is a queue of 1 MB drained at
200 kbit/s. With RTPFANOUT_ISOLATION=full there are 1,000 subscribers, 500 of them dead.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, ClassVar

import pytest
from cli_support import run_json
from netns import hosts, inside, link
from support import (
    ServerProcess,
    eventually,
    requires,
    requires_root,
    rtp_packet,
    send_segmented,
    udp_socket,
)

from rtpfanout.traffic.rtp import STAMP_SIZE, Stamp, pack_stamp, read_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SSRC = 7
GOOD, DEAD = (499, 500) if os.environ.get("RTPFANOUT_ISOLATION") == "full" else (100, 50)
FRAME_PACKETS = 14
PACKET_BYTES = 1200
FRAMES_PER_SECOND = 30
FRAMES = 300
SLOW_QUEUE = ("rate", "200kbit", "burst", "16kb", "limit", "1mb")

UDP_GRO = 104
SO_TIMESTAMPNS = 35
IP_PKTINFO = 8

pytestmark = [
    pytest.mark.slow("a neighbour is known to be dead after seconds"),
    pytest.mark.timeout(300),
]


class UnprivilegedServer(ServerProcess):
    """Without CAP_NET_ADMIN its buffers are what net.core.{r,w}mem_max allows."""

    command: ClassVar[list[str]] = [
        "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *ServerProcess.command,
    ]  # fmt: skip


class Receivers:
    """Sockets of one namespace, all read by a thread; bursts are taken whole (UDP_GRO)."""

    def __init__(self, namespace: str, hosts: Sequence[str]) -> None:
        self.sequences: dict[str, list[int]] = {}
        self.latency_ms: list[float] = []
        self._stop = threading.Event()
        self._selector = selectors.EpollSelector()
        with inside(namespace):
            for host in hosts:
                sock = udp_socket(host, receive_buffer=4 << 20)
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_UDP, UDP_GRO, 1)
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
                self._selector.register(sock, selectors.EVENT_READ)
        self.sockets = [
            key.fileobj
            for key in self._selector.get_map().values()
            if isinstance(key.fileobj, socket.socket)
        ]
        self._thread = threading.Thread(target=self._read)

    def received(self, address: str) -> list[int]:
        """Sequence numbers in the order of arrival."""
        return list(self.sequences.get(address, ()))

    def addresses(self) -> list[str]:
        return ["{}:{}".format(*sock.getsockname()) for sock in self.sockets]

    def __enter__(self) -> Receivers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for sock in self.sockets:
            sock.close()
        self._selector.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.05):
                self._take(key.fileobj)

    def _take(self, sock: socket.socket) -> None:
        try:
            data, control, _, _ = sock.recvmsg(65536, 256)
        except BlockingIOError:
            return
        segment, arrived, host = len(data), 0, ""
        for level, kind, value in control:
            if (level, kind) == (socket.IPPROTO_UDP, UDP_GRO):
                segment = struct.unpack("=i", value[:4])[0]
            elif (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("@ll", value)
                arrived = seconds * 1_000_000_000 + nanoseconds
            elif (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                host = socket.inet_ntoa(value[8:12])  # where it was sent to
        to = f"{host}:{sock.getsockname()[1]}"
        for start in range(0, len(data), segment):
            packet = data[start : start + segment]
            self.sequences.setdefault(to, []).append(int.from_bytes(packet[2:4], "big"))
            stamp = read_stamp(packet[12:])
            if stamp:
                self.latency_ms.append((arrived - stamp.sent_ns) / 1e6)


class Source:
    """A camera: frames of equal packets, numbered from 0."""

    def __init__(self, sock: socket.socket, to: tuple[str, int]) -> None:
        self._sock, self._to, self.sent = sock, to, 0

    def frame(self) -> None:
        packets = []
        for _ in range(FRAME_PACKETS):
            stamp = pack_stamp(Stamp(time.time_ns(), self.sent))
            fill = bytes(PACKET_BYTES - 12 - STAMP_SIZE)
            packets.append(rtp_packet(SSRC, self.sent & 0xFFFF, stamp + fill))
            self.sent += 1
        send_segmented(self._sock, packets, self._to)

    def frames(self, count: int) -> None:
        start = time.monotonic()
        for i in range(count):
            time.sleep(max(0.0, start + i / FRAMES_PER_SECOND - time.monotonic()))
            self.frame()


class Scene:
    """The server's host, the good subscribers' and the slow one's; a camera on the server's."""

    def __init__(self, stack: ExitStack, server_type: type[ServerProcess]) -> None:
        self.ns = stack.enter_context(hosts("sv", "good", "slow"))
        sv, good, slow = self.ns["sv"], self.ns["good"], self.ns["slow"]
        link(sv, "10.1.0.1/16", good, "10.1.0.2/16")
        link(sv, "10.2.0.1/24", slow, "10.2.0.2/24")
        device = f"to-{slow}"[:15]
        command = ["tc", "-n", sv, "qdisc", "add", "dev", device, "root", "tbf", *SLOW_QUEUE]
        subprocess.run(command, check=True)
        self.good = stack.enter_context(Receivers(good, ["10.1.0.2"] * GOOD))
        self.slow = stack.enter_context(Receivers(slow, ["10.2.0.2"]))
        self.late = stack.enter_context(Receivers(good, ["0.0.0.0"]))
        self.dead_hosts = [f"10.1.{128 + i // 250}.{1 + i % 250}" for i in range(DEAD)]
        port = self.late.sockets[0].getsockname()[1]
        self.dead = [f"{host}:{port}" for host in self.dead_hosts]
        with inside(sv):
            self.server = server_type(bind_address="0.0.0.0:0")
            stack.callback(self.server.stop)
            source = stack.enter_context(udp_socket())
        self.source = Source(source, ("127.0.0.1", self.server.ingest.port))
        self.session = self._create("{}:{}".format(*source.getsockname()))

    def _create(self, source: str) -> str:
        """By the command line, as its process is in the namespace with all its threads."""
        to = ("--server", str(self.server.grpc))
        everyone = [*self.good.addresses(), *self.slow.addresses(), *self.dead]
        with inside(self.ns["sv"]):
            session = run_json("session", "create", source, "--ssrc", SSRC, *to)["session_id"]
            run_json("subscriber", "add", session, *everyone, *to)
        return str(session)

    def subscribers(self) -> dict[str, tuple[int, int]]:
        """Packets sent and send failures, by address."""
        with inside(self.ns["sv"]):
            to = ("--server", self.server.grpc)
            answer = run_json("subscriber", "list", self.session, "--all", *to)
        return {
            entry["subscriber_address"]: (entry["packets_sent"], entry["send_failures"])
            for entry in answer
        }

    def revive(self) -> None:
        """The dead answer from now on, and get whole frames soon, without anyone's help."""
        good = self.ns["good"]
        device = f"to-{self.ns['sv']}"[:15]
        lines = "".join(f"address add {host}/32 dev {device}\n" for host in self.dead_hosts)
        subprocess.run(["ip", "-n", good, "-batch", "-"], input=lines, text=True, check=True)

        def send_a_frame() -> set[str]:
            """Those that have not got it."""
            self.source.frames(2)
            time.sleep(0.1)
            frame = list(range(self.source.sent - FRAME_PACKETS, self.source.sent))
            return {a for a in self.dead if self.late.received(a)[-FRAME_PACKETS:] != frame}

        eventually(send_a_frame, lambda missing: not missing, "all that were dead receive")
        self.settle()

    def settle(self) -> None:
        """Until every copy was attempted; then the identities must hold."""
        copies = self.source.sent * (GOOD + len(self.dead) + 1)
        with inside(self.ns["sv"]):
            eventually(
                self.server.metrics,
                lambda m: m["rtpfanout_copies_attempted_total"] >= copies,
                f"{copies} copies attempted",
            )
            self.server.check_identities()


@contextmanager
def scene(server_type: type[ServerProcess]) -> Iterator[Scene]:
    requires_root()
    requires("ip", "tc", "setpriv")
    with ExitStack() as stack:
        yield Scene(stack, server_type)


def report(what: str, s: Scene) -> None:
    """Figures for whoever runs it with -s; no test asserts them."""
    latencies = sorted(s.good.latency_ms)
    losses = [s.source.sent - len(s.good.sequences.get(a, [])) for a in s.good.addresses()]
    print(
        f"\n{what}, {DEAD} dead: the good lost {sum(losses)} of {s.source.sent * GOOD} copies, "
        f"{sum(map(bool, losses))} of {GOOD} lost some; latency "
        f"p50 {latencies[len(latencies) // 2]:.3f} p99 {latencies[len(latencies) * 99 // 100]:.3f} "
        f"max {latencies[-1]:.3f} ms",
        file=sys.stderr,
    )


def test_the_good_lose_nothing_beside_the_dead_and_the_slow() -> None:
    with scene(ServerProcess) as s:
        s.source.frames(FRAMES)
        s.settle()
        everything = list(range(s.source.sent))
        for address in s.good.addresses():
            eventually(
                lambda address=address: s.good.received(address),
                lambda got: got == everything,
                f"{address} has every packet, once and in order",
            )
        report("with CAP_NET_ADMIN", s)
        (slow,) = s.slow.addresses()
        assert 0 < len(s.slow.received(slow)) < s.source.sent
        for address, (sent, failed) in s.subscribers().items():
            assert sent + failed == s.source.sent, address
            if address in s.good.addresses():
                assert failed == 0, address
        s.revive()


def test_without_cap_net_admin_few_suffer_and_what_is_lost_is_counted_to_the_packet() -> None:
    """The kernel then limits the send buffer to net.core.wmem_max, which the dead may fill:
    subscribers are spread over several sockets."""
    with scene(UnprivilegedServer) as s:
        s.source.frames(FRAMES)
        s.settle()
        report("without CAP_NET_ADMIN", s)
        counts = s.subscribers()
        lost = 0
        for address in s.good.addresses():
            sent, failed = counts[address]
            assert sent + failed == s.source.sent, address
            lost += failed
            eventually(
                lambda address=address: len(s.good.received(address)),
                lambda got, sent=sent: got == sent,
                f"{address} has what was sent to it",
            )
        assert lost < 0.5 * s.source.sent * len(s.good.addresses()), "one socket: 87 %"
        s.revive()
