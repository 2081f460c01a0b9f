"""Whatever errno the kernel gives to the packet loop: it lives, and counts to the packet.

strace fails system calls of the worker's thread alone, so gRPC and HTTP are not touched.
Each packet is longer than the one before, hence a send entry of its own, so that one
failed call is one lost copy.
"""

from __future__ import annotations

import itertools
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from procs import worker_threads
from scrape import Metrics
from support import (
    ServerProcess,
    address_of,
    eventually,
    queued,
    receive,
    requires,
    requires_root,
    rtp_packet,
    send_segmented,
    udp_socket,
)

from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The policy of egress.h, said once more.
FAILURES = {
    "would_block": (),
    "no_buffer": ("ENOBUFS", "ENOMEM"),
    "unreachable": (
        "ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN", "ENODEV", "ENXIO",
        "EADDRNOTAVAIL", "ECONNREFUSED",
        "EINVAL",  # of a route that is a blackhole, since these destinations are definite
    ),
    "denied": ("EPERM", "EACCES"),
    "too_big": ("EMSGSIZE",),
    "invalid": ("EAFNOSUPPORT", "EDESTADDRREQ"),
    "other": (
        "EIO", "EBADF", "ENOTSOCK", "EFAULT", "EPIPE", "ENOTCONN", "ECONNRESET", "EOPNOTSUPP",
        "ETIMEDOUT", "EPROTO", "ENOSYS",
    ),
}  # fmt: skip
REASONS = [(errno, reason) for reason, errnos in FAILURES.items() for errno in errnos]
PASSING = ("EAGAIN", "EINTR")
SEGMENTATION = {"EINVAL": "invalid", "EMSGSIZE": "too_big", "EIO": "io"}
RECEIVE = (
    "ENOMEM", "ENOBUFS", "ENETDOWN", "ECONNREFUSED", "EHOSTUNREACH", "EIO", "EBADF", "EFAULT",
    "EINVAL", "ENOTSOCK", "EPERM", "ENOSYS",
)  # fmt: skip
POLL = ("EINTR", "ENOMEM", "EFAULT", "EINVAL")

SUBSCRIBERS = 4
PACKETS = 40
SOME = "when=2+5"

ssrcs = itertools.count(1)


class Scene:
    """One server for all errnos, with a session of its own for each."""

    def __init__(self, server: ServerProcess, log: Path) -> None:
        self.server, self._log = server, log
        self.worker = worker_threads(server.pid)["rtp-worker-0"]
        self.source = udp_socket()
        self.viewers = [udp_socket() for _ in range(SUBSCRIBERS)]
        self.ssrc, self.session = 0, ""
        self.before, self.empty = Metrics(), 0

    def new_session(self) -> None:
        """Subscribers whose segment limits are forgotten; counters are read from here on."""
        if self.session:
            self.server.delete(self.session)
        for viewer in self.viewers:
            queued(viewer)
        self.ssrc = next(ssrcs)
        addresses = [address_of(viewer) for viewer in self.viewers]
        self.session = self.server.create(address_of(self.source), self.ssrc, *addresses)
        self.before, self.empty = self.server.settled(), 0

    def packets(self, count: int = PACKETS) -> list[bytes]:
        return [rtp_packet(self.ssrc, i, bytes(100 + i)) for i in range(count)]

    def send(self, packets: list[bytes]) -> None:
        for packet in packets:
            self.source.sendto(packet, self.server.ingest_target)
            time.sleep(0.001)

    @contextmanager
    def injected(self, *rules: str) -> Iterator[list[str]]:
        """The calls that were made to fail, once the block has ended."""
        calls: list[str] = []
        names = ",".join(["recvmmsg", *(rule.partition(":")[0] for rule in rules)])
        self._log.write_text("")
        command = ["strace", "-o", str(self._log), "-e", f"trace={names}", "-p", str(self.worker)]
        for rule in rules:
            command += ["-e", f"inject={rule}"]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert tracer.stderr is not None
            assert "attached" in tracer.stderr.readline()
            self._await_trace()
            yield calls
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.communicate(timeout=30)
        calls += [line for line in self._log.read_text().splitlines() if "(INJECTED)" in line]

    def _await_trace(self) -> None:
        """Attached is not yet traced: until a call is in the log, with empty datagrams to see."""

        def provoke() -> str:
            self.source.sendto(b"", self.server.ingest_target)
            self.empty += 1
            return self._log.read_text()

        eventually(provoke, bool, "strace logs the worker's calls")

    def counted(self, received: int) -> Metrics:
        """What was added to each metric since `new_session`, once the packets are all the way
        through: at rest as in `settled`, and every copy attempted."""
        packets = self.before["rtp_packets_received_total"] + received + self.empty
        copies = self.before["rtpfanout_copies_attempted_total"] + received * SUBSCRIBERS
        now = eventually(
            self.server.metrics,
            lambda m: (
                m.differences() == (0, 0, 0, 0)
                and m["rtp_packets_received_total"] >= packets
                and m["rtpfanout_copies_attempted_total"] >= copies
            ),
            f"{packets} packets received and {copies} copies attempted",
        )
        return Metrics({key: value - self.before.get(key, 0) for key, value in now.items()})

    def check(self, packets: list[bytes], failures: dict[str, int]) -> None:
        """Each subscriber got, in order, what is counted as sent to it; the rest is counted
        as failed for these reasons; nobody was held up for good."""
        counted = self.counted(len(packets))
        assert counted["rtpfanout_packets_forwarded_total"] == len(packets)
        assert failed(counted) == failures
        request = session_pb2.ListSubscribersRequest(session_id=self.session)
        listed = self.server.stub.ListSubscribers(request).subscribers
        assert sum(entry.send_failures for entry in listed) == sum(failures.values())
        sent = {entry.subscriber_address: entry.packets_sent for entry in listed}
        for viewer in self.viewers:
            got = receive(viewer, sent[address_of(viewer)])
            assert [p for p in packets if p in set(got)] == got
            assert not queued(viewer)
        self.check_all_is_well()

    def check_all_is_well(self) -> None:
        packets = [rtp_packet(self.ssrc, 1000 + i, bytes(50 + i)) for i in range(5)]
        self.send(packets)
        for viewer in self.viewers:
            assert receive(viewer, 5) == packets
        assert self.server.process.poll() is None

    def close(self) -> None:
        for sock in (self.source, *self.viewers):
            sock.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    requires_root()
    requires("strace")
    server = ServerProcess(workers=1)
    try:
        scene = Scene(server, tmp_path_factory.mktemp("strace") / "calls")
        yield scene
        scene.close()
        server.check_identities()
    finally:
        server.stop()


@pytest.fixture
def scene(shared: Scene) -> Scene:
    shared.new_session()
    return shared


def failed(counted: Metrics) -> dict[str, int]:
    prefix = 'rtpfanout_send_failures_total{reason="'
    counts = {k[len(prefix) : -2]: int(v) for k, v in counted.items() if k.startswith(prefix)}
    return {reason: count for reason, count in counts.items() if count}


@pytest.mark.parametrize(("errno", "reason"), REASONS)
def test_a_failed_sendmmsg_costs_one_copy(scene: Scene, errno: str, reason: str) -> None:
    packets = scene.packets()
    with scene.injected(f"sendmmsg:error={errno}:{SOME}") as calls:
        scene.send(packets)
        scene.counted(len(packets))
    assert calls
    scene.check(packets, {reason: len(calls)})


def test_when_every_send_fails_every_copy_is_counted_and_it_recovers(scene: Scene) -> None:
    packets = scene.packets()
    with scene.injected("sendmmsg:error=EPERM"):
        scene.send(packets)
        scene.counted(len(packets))
    scene.check(packets, {"denied": len(packets) * SUBSCRIBERS})


@pytest.mark.parametrize("errno", PASSING)
def test_what_passes_costs_nothing(scene: Scene, errno: str) -> None:
    packets = scene.packets()
    with scene.injected(f"sendmmsg:error={errno}:{SOME}") as calls:
        scene.send(packets)
        scene.counted(len(packets))
    assert calls
    scene.check(packets, {})


def test_a_send_buffer_that_stays_full_costs_that_copy_alone(scene: Scene) -> None:
    """Two waits of a millisecond for the batch, then the entry at fault is given up."""
    packets = scene.packets(1)
    with scene.injected("sendmmsg:error=EAGAIN:when=1..3") as calls:
        scene.send(packets)
        scene.counted(1)
    assert len(calls) == 3
    scene.check(packets, {"would_block": 1})


@pytest.mark.parametrize(("errno", "reason"), SEGMENTATION.items())
def test_a_segmented_send_that_is_refused_goes_singly(
    scene: Scene, errno: str, reason: str
) -> None:
    packets = [rtp_packet(scene.ssrc, i, bytes(500)) for i in range(6)]
    with scene.injected(f"sendmmsg:error={errno}:when=1") as calls:
        send_segmented(scene.source, packets, scene.server.ingest_target)
        scene.counted(len(packets))
    assert len(calls) == 1
    assert scene.counted(6)[f'rtpfanout_gso_fallbacks_total{{reason="{reason}"}}'] == 1
    scene.check(packets, {})


@pytest.mark.parametrize(("errno", "reason"), REASONS)
def test_a_failed_sendmsg_of_the_fallback_costs_one_packet(
    scene: Scene, errno: str, reason: str
) -> None:
    packets, failures = fall_back(scene, f"sendmsg:error={errno}:when=2+3")
    scene.check(packets, {reason: failures})


@pytest.mark.parametrize("errno", PASSING)
def test_what_passes_costs_nothing_in_the_fallback_either(scene: Scene, errno: str) -> None:
    """Two of them: for a third EAGAIN in one batch there would be no time left."""
    packets, _ = fall_back(scene, f"sendmsg:error={errno}:when=2+4")
    scene.check(packets, {})


def fall_back(scene: Scene, rule: str) -> tuple[list[bytes], int]:
    """A burst whose first segmented send is refused: its packets, and how many sendmsg failed."""
    packets = [rtp_packet(scene.ssrc, i, bytes(500)) for i in range(6)]
    with scene.injected("sendmmsg:error=EIO:when=1", rule) as calls:
        send_segmented(scene.source, packets, scene.server.ingest_target)
        scene.counted(len(packets))
    failures = sum(call.startswith("sendmsg(") for call in calls)
    assert failures
    return packets, failures


@pytest.mark.parametrize("errno", RECEIVE)
def test_a_failed_recvmmsg_is_counted_and_loses_nothing(scene: Scene, errno: str) -> None:
    packets = scene.packets()
    with scene.injected(f"recvmmsg:error={errno}:{SOME}") as calls:
        scene.send(packets)
        scene.counted(len(packets))
    assert calls
    assert scene.counted(len(packets))["rtpfanout_receive_errors_total"] == len(calls)
    scene.check(packets, {})


def test_when_every_receive_fails_the_packets_wait(scene: Scene) -> None:
    packets = scene.packets()
    with scene.injected("recvmmsg:error=ENETDOWN"):
        scene.send(packets)
        now = scene.server.metrics()
        assert now["rtp_packets_received_total"] == scene.before["rtp_packets_received_total"]
    scene.check(packets, {})


@pytest.mark.parametrize("errno", PASSING)
def test_a_recvmmsg_that_has_nothing_is_no_error(scene: Scene, errno: str) -> None:
    packets = scene.packets()
    with scene.injected(f"recvmmsg:error={errno}:{SOME}") as calls:
        scene.send(packets)
        scene.counted(len(packets))
    assert calls
    assert scene.counted(len(packets))["rtpfanout_receive_errors_total"] == 0
    scene.check(packets, {})


@pytest.mark.parametrize("errno", POLL)
@pytest.mark.parametrize("when", ["when=1+1", SOME])
def test_a_poll_that_fails_delays_at_most(scene: Scene, errno: str, when: str) -> None:
    packets = scene.packets()
    with scene.injected(f"poll:error={errno}:{when}") as calls:
        scene.send(packets)
        scene.counted(len(packets))
    assert calls
    scene.check(packets, {})
