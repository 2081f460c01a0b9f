"""The measurements of `rtpfanout bench`: the real engine between sockets of this host."""

import contextlib
import itertools
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

from rtpfanout._fastpath import Engine
from rtpfanout.errors import StartError
from rtpfanout.listening import bound_address
from rtpfanout.model import Address
from rtpfanout.sessions import LatencySummary
from rtpfanout.traffic import rtp

# <linux/udp.h>; the socket module does not export these.
_UDP_SEGMENT = 103
_UDP_GRO = 104

_GROUP_PACKETS = 64
_GROUP_BYTES = 65_000
_QUEUE_PACKETS = 65_536
_WINDOW = 8192
_WINDOW_COPIES = 100_000
"""What may wait before the engine, in packets and in the copies they become."""
_SMALLEST_WINDOW = 2 * _GROUP_PACKETS
_PACKET_CHARGE = 4608
"""Receive buffer to allow for a packet: twice its truesize, so that half the buffer stays free."""
_WAIT_SECONDS = 0.0002
_SPIN_SECONDS = 0.0002
_WARM_UP_SHARE = 0.1
_SOURCES_PER_WORKER = 4
"""The kernel spreads sources over workers by their ports; more of them spread more evenly."""


@dataclass(frozen=True, slots=True)
class Cell:
    """What is measured: packets of `size` bytes, `burst` at a time, to each subscriber."""

    subscribers: int
    burst: int
    size: int
    workers: int
    device_segments: bool


@dataclass(frozen=True, slots=True)
class Capacity:
    """`copies_per_send` is how many packets left by one send; `source_limited`: the engine
    could have done more, the source was never made to wait."""

    copies_per_second: float
    copies_per_cpu_second: float
    copies_per_send: float
    copies_failed: int
    packets_lost_at_ingress: int
    source_limited: bool


@dataclass(frozen=True, slots=True)
class Latency:
    """Added by the engine, to the last subscriber served, at `copies_per_second`."""

    copies_per_second: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Result:
    """One cell: segmented beside plain sends, in the same run."""

    cell: Cell
    segmented: Capacity
    plain: Capacity
    latency: Latency

    @property
    def ratio(self) -> float:
        """Segmented over plain, per CPU second."""
        plain = self.plain.copies_per_cpu_second
        return self.segmented.copies_per_cpu_second / plain if plain else 0.0

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self) | {"ratio": self.ratio}


def measure(cell: Cell, seconds: float) -> Result:
    """Two fifths for each capacity, one fifth for latency. Raises StartError."""
    with _receivers(cell) as subscribers:
        with _Bench(cell, subscribers, segmentation=False) as bench:
            plain = bench.capacity(seconds * 0.4)
        with _Bench(cell, subscribers, segmentation=True) as bench:
            segmented = bench.capacity(seconds * 0.4)
            latency = bench.latency(segmented.copies_per_second / 2, seconds * 0.2)
    return Result(cell, segmented, plain, latency)


@contextmanager
def _receivers(cell: Cell) -> Iterator[list[Address]]:
    """Sockets that nobody reads: the kernel drops at their full queues, at the end of its way."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        addresses = []
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            for _ in range(cell.subscribers):
                sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # the kernel's least
                if cell.device_segments:
                    sock.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
                sock.bind(("127.0.0.1", 0))
                addresses.append(bound_address(sock))
        except OSError as error:
            raise StartError(
                f"{cell.subscribers} receivers cannot be opened ({error.strerror}); measure with "
                f"fewer, or raise the limit on open files, {hard}"
            ) from None
        yield addresses


class _Bench:
    """An engine with its sessions, and the sources that feed it; use with `with`."""

    def __init__(self, cell: Cell, subscribers: list[Address], *, segmentation: bool) -> None:
        self._cell = cell
        self._sent = 0
        self._engine = Engine(
            Address.parse("127.0.0.1:0"),
            max_sessions=_SOURCES_PER_WORKER * cell.workers,
            max_subscribers=cell.subscribers,
            receive_queue_packets=_QUEUE_PACKETS,
            workers=cell.workers,
            segmentation=segmentation,
        )
        room = self._engine.sockets.receive_buffer_bytes // _PACKET_CHARGE
        wanted = max(_SMALLEST_WINDOW, min(_WINDOW, _WINDOW_COPIES // cell.subscribers))
        self._window = max(1, min(wanted, room))
        self._sources = [
            _Source(cell, ssrc, self._engine.bound.port)
            for ssrc in range(1 if cell.workers == 1 else _SOURCES_PER_WORKER * cell.workers)
        ]
        records = b"".join(address.record for address in subscribers)
        for source in self._sources:
            now = time.monotonic_ns()
            handle = self._engine.add_session(source.address, source.ssrc, now)
            self._engine.add_subscribers(handle, records, now)
        self._threads = [
            threading.Thread(target=self._engine.run, args=(i,), daemon=True)
            for i in range(cell.workers)
        ]

    def __enter__(self) -> "_Bench":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.stop()
        for thread in self._threads:
            thread.join()
        for source in self._sources:
            source.close()

    def capacity(self, seconds: float) -> Capacity:
        """Flat out, with a bounded queue before the engine."""
        self._flood(seconds * _WARM_UP_SHARE)
        before, cpu, start = self._engine.stats(), self._cpu_seconds(), time.monotonic()
        waits = self._flood(seconds * (1 - _WARM_UP_SHARE))
        after, cpu, elapsed = (
            self._engine.stats(),
            self._cpu_seconds() - cpu,
            time.monotonic() - start,
        )
        done = {name: after[name] - before[name] for name in after}
        return Capacity(
            copies_per_second=done["packets_sent"] / elapsed,
            copies_per_cpu_second=done["packets_sent"] / cpu if cpu else 0.0,
            copies_per_send=done["packets_sent"] / max(1, done["sends"]),
            copies_failed=done["copies_attempted"] - done["packets_sent"],
            packets_lost_at_ingress=done["kernel_drops"],
            source_limited=waits == 0,
        )

    def latency(self, copies_per_second: float, seconds: float) -> Latency:
        """A burst at a time, evenly spaced, at that rate."""
        self._drain()
        interval = self._cell.burst * self._cell.subscribers / max(1.0, copies_per_second)
        before, stats, start = self._last(), self._engine.stats(), time.monotonic()
        for i, source in enumerate(itertools.cycle(self._sources)):
            due = start + i * interval
            if due >= start + seconds:
                break
            _wait_until(due)
            source.send_burst()
            self._sent += self._cell.burst
        elapsed = time.monotonic() - start
        self._drain()
        copies = self._engine.stats()["packets_sent"] - stats["packets_sent"]
        counts = [after - was for after, was in zip(self._last(), before, strict=True)]
        summary = LatencySummary.of(counts)
        return Latency(
            copies_per_second=copies / elapsed,
            p50_ms=summary.p50_seconds * 1e3 if summary else None,
            p99_ms=summary.p99_seconds * 1e3 if summary else None,
        )

    def _flood(self, seconds: float) -> int:
        """How often the source had to wait for the engine."""
        end, waits = time.monotonic() + seconds, 0
        at_a_time = max(1, _GROUP_PACKETS // self._cell.burst)
        while time.monotonic() < end:
            if self._queued() >= self._window:
                waits += 1
                time.sleep(_WAIT_SECONDS)
                continue
            for source in self._sources:
                for _ in range(at_a_time):
                    source.send_burst()
                self._sent += at_a_time * self._cell.burst
        return waits

    def _queued(self) -> int:
        stats = self._engine.stats()
        return self._sent - stats["packets_received"] - stats["kernel_drops"]

    def _drain(self) -> None:
        deadline = time.monotonic() + 5
        while self._queued() > 0 and time.monotonic() < deadline:
            time.sleep(_WAIT_SECONDS)
        time.sleep(0.01)  # the last turn's sends

    def _last(self) -> list[int]:
        return self._engine.latency()[1][0]

    def _cpu_seconds(self) -> float:
        clocks = (time.pthread_getcpuclockid(thread.ident or 0) for thread in self._threads)
        return sum(map(time.clock_gettime, clocks))


class _Source:
    """A socket that sends bursts, by one send for as many packets as the kernel takes."""

    def __init__(self, cell: Cell, ssrc: int, port: int) -> None:
        self.ssrc = ssrc
        self._target = ("127.0.0.1", port)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._socket.bind(("127.0.0.1", 0))
        self.address = bound_address(self._socket)
        payload = bytes(cell.size - rtp.build(b"", ssrc=ssrc, sequence=0, timestamp=0).__len__())
        packets = [
            rtp.build(payload, ssrc=ssrc, sequence=i, timestamp=0) for i in range(cell.burst)
        ]
        group = max(1, min(_GROUP_PACKETS, _GROUP_BYTES // cell.size))
        if not _has_segmentation(self._socket):
            group = 1
        self._sends = [b"".join(packets[i : i + group]) for i in range(0, len(packets), group)]
        self._control = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", cell.size))]
        self._segments = group > 1 and cell.burst > 1

    def send_burst(self) -> None:
        control = self._control if self._segments else []
        for data in self._sends:
            self._socket.sendmsg([data], control, 0, self._target)

    def close(self) -> None:
        self._socket.close()


def _has_segmentation(sock: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        sock.getsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT)
        return True
    return False


def _wait_until(due: float) -> None:
    """Sleep while it is far off, then look at the clock: a sleep is no better than 0.1 ms."""
    while (left := due - time.monotonic()) > 0:
        if left > _SPIN_SECONDS:
            time.sleep(left - _SPIN_SECONDS)
