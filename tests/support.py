"""What tests share: tools they need, packets, sockets, and a real server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import grpc
import httpx
import pytest
from procs import no_worker_runs
from scrape import Metrics

from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.model import Address
from rtpfanout.traffic import rtp

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UDP_SEGMENT = 103  # linux/udp.h
START_SECONDS = 60.0
SETTLE_SECONDS = 30.0
"""Generous: a machine under load must not turn a right answer into a failure."""

_T = TypeVar("_T")


def requires(*programs: str) -> None:
    """Skip, or with RTPFANOUT_REQUIRE_ALL=1 fail, unless all `programs` are in PATH."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        unmet(f"needs {', '.join(missing)}")


def requires_root() -> None:
    """Skip, or with RTPFANOUT_REQUIRE_ALL=1 fail, unless run by root."""
    if os.geteuid() != 0:
        unmet("needs root")


def unmet(reason: str) -> None:
    """Skip, or with RTPFANOUT_REQUIRE_ALL=1 fail."""
    if os.environ.get("RTPFANOUT_REQUIRE_ALL") == "1":
        pytest.fail(f"{reason}, and RTPFANOUT_REQUIRE_ALL=1")
    pytest.skip(reason)


def eventually(read: Callable[[], _T], is_right: Callable[[_T], bool], what: str) -> _T:
    """What `read` returns as soon as `is_right` holds of it; fails after SETTLE_SECONDS."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while not is_right(value := read()):
        if time.monotonic() > deadline:
            pytest.fail(f"never came true: {what}; last seen: {value}")
        time.sleep(0.01)
    return value


def rtp_packet(ssrc: int, sequence: int = 0, payload: bytes = b"payload", **header: Any) -> bytes:
    """An RTP packet; `header` as in rtp.build (csrcs, extension, padding, ...)."""
    header.setdefault("timestamp", 3000 * sequence)
    return rtp.build(payload, ssrc=ssrc, sequence=sequence, **header)


def udp_socket(host: str = "127.0.0.1", receive_buffer: int = 8 << 20) -> socket.socket:
    """A bound UDP socket on a free port; the kernel may grant less buffer."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, 33, receive_buffer)  # SO_RCVBUFFORCE
    except PermissionError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.bind((host, 0))
    sock.settimeout(SETTLE_SECONDS)
    return sock


def free_tcp_port() -> int:
    """A port nobody listens on right now, for programs that cannot choose by themselves."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def address_of(sock: socket.socket) -> str:
    """The bound address as the API spells it."""
    host, port, *_ = sock.getsockname()
    return str(Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}"))


def target(address: Address) -> tuple[str, int]:
    """An address for sendto; a wildcard becomes its loopback address."""
    if address.ip.is_unspecified:
        return "::1" if address.ip.version == 6 else "127.0.0.1", address.port
    return str(address.ip), address.port


def receive(sock: socket.socket, count: int) -> list[bytes]:
    """Exactly `count` datagrams; fails when they do not come."""
    datagrams: list[bytes] = []
    try:
        while len(datagrams) < count:
            datagrams.append(sock.recv(65536))
    except TimeoutError:
        pytest.fail(f"{len(datagrams)} of {count} datagrams came")
    return datagrams


def queued(sock: socket.socket) -> list[bytes]:
    """What is in the socket's queue at this moment."""
    datagrams = []
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            datagrams.append(sock.recv(65536))
    sock.settimeout(SETTLE_SECONDS)
    return datagrams


def transfer(
    sender: socket.socket,
    to: tuple[str, int],
    packets: Sequence[bytes],
    receivers: Sequence[socket.socket],
    window: int = 32,
) -> list[list[bytes]]:
    """Send through the server; what each receiver got. Never more than `window` in flight,
    so that no queue overflows however slow the machine is."""
    got: list[list[bytes]] = [[] for _ in receivers]
    for start in range(0, len(packets), window):
        some = packets[start : start + window]
        for packet in some:
            sender.sendto(packet, to)
        for received, sock in zip(got, receivers, strict=True):
            received += receive(sock, len(some))
    return got


class ServerProcess:
    """`rtpfanout serve` as a process of its own, on free ports of 127.0.0.1.

    Settings are keys of the configuration, ``__`` for nesting: ``log__level="debug"``.
    """

    command: ClassVar[list[str]] = [sys.executable, "-m", "rtpfanout", "serve"]
    pass_fds: ClassVar[tuple[int, ...]] = ()
    pid: int
    ingest: Address
    grpc: Address
    metrics_address: Address | None

    def __init__(self, **settings: object) -> None:
        defaults: dict[str, object] = {
            "bind_address": "127.0.0.1:0",
            "grpc_bind_address": "127.0.0.1:0",
            "metrics_bind_address": "127.0.0.1:0",
            "log__format": "json",
        }
        self.process = subprocess.Popen(
            self.command,
            env=server_environment(defaults | settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=self.pass_fds,
        )
        self.log: list[dict[str, Any]] = []
        self.other_lines: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        try:
            ready = self.logged("ready", START_SECONDS)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        self.pid: int = ready["pid"]
        self.ingest = Address.parse(ready["bind_address"])
        self.grpc = Address.parse(ready["grpc_bind_address"])
        metrics = ready["metrics_bind_address"]
        self.metrics_address = Address.parse(metrics) if metrics else None
        self._connect()
        self._http = httpx.Client(trust_env=False, timeout=30)
        self._before = Metrics()

    @property
    def ingest_target(self) -> tuple[str, int]:
        """Where sources send to."""
        return target(self.ingest)

    @property
    def calls_target(self) -> str:
        """Where calls go, as gRPC names it."""
        return str(self.grpc)

    def logged(self, event: str, seconds: float = SETTLE_SECONDS) -> dict[str, Any]:
        """The first log entry of that name, as soon as it is there."""
        deadline = time.monotonic() + seconds
        while True:
            for entry in list(self.log):
                if entry["event"] == event:
                    return entry
            if not self._reader.is_alive() or time.monotonic() > deadline:
                pytest.fail(f"no '{event}' in the log: {self.log} {self.other_lines}")
            time.sleep(0.01)

    def create(self, source: str, ssrc: int, *subscribers: str, media_type: str = "video") -> str:
        """A session with subscribers; its id."""
        session = self.stub.CreateSession(
            session_pb2.CreateSessionRequest(
                source_address=source, ssrc=ssrc, media_type=media_type
            )
        )
        for address in subscribers:
            self.add(session.session_id, address)
        return str(session.session_id)

    def add(self, session_id: str, address: str) -> None:
        """AddSubscriber."""
        self.stub.AddSubscriber(
            session_pb2.AddSubscriberRequest(session_id=session_id, subscriber_address=address)
        )

    def remove(self, session_id: str, address: str) -> None:
        """RemoveSubscriber."""
        self.stub.RemoveSubscriber(
            session_pb2.RemoveSubscriberRequest(session_id=session_id, subscriber_address=address)
        )

    def delete(self, session_id: str) -> None:
        """DeleteSession."""
        self.stub.DeleteSession(session_pb2.DeleteSessionRequest(session_id=session_id))

    def stats(self, session_id: str) -> session_pb2.SessionStatsResponse:
        """GetSessionStats."""
        return self.stub.GetSessionStats(session_pb2.GetSessionStatsRequest(session_id=session_id))

    def http(self, path: str, **headers: str) -> httpx.Response:
        """GET from the HTTP side."""
        return self._http.get(f"http://{self.metrics_address}{path}", headers=headers)

    def readiness(self) -> int:
        """The status of /readyz; 0 while nobody listens, as between two servers."""
        try:
            return self.http("/readyz").status_code
        except httpx.TransportError:
            return 0

    def metrics(self, path: str = "/metrics") -> Metrics:
        """A scrape; counters count since the server began, or began anew."""
        return Metrics.parse(self.http(path).text).since(self._before)

    def _connect(self) -> None:
        self.channel = grpc.insecure_channel(
            self.calls_target, options=[("grpc.enable_http_proxy", 0)]
        )
        self.stub = session_pb2_grpc.SessionServiceStub(self.channel)

    def rest(self) -> None:
        """Until it begins anew. An open channel would keep gRPC's threads, which connect for
        later tests, too, and in the network namespace that they were made in."""
        self.channel.close()

    def begin_anew(self) -> None:
        """For another test: its counters and its log are those of now."""
        self._connect()
        self._await_log()
        self._before = Metrics()
        self._before = self.metrics() if self.metrics_address else Metrics()
        self.log.clear()
        self.other_lines.clear()

    def _await_log(self) -> None:
        """What has been logged is read: up to the line of a call that is refused."""
        nobody = str(uuid.uuid4())
        with contextlib.suppress(grpc.RpcError):
            self.delete(nobody)
        eventually(
            lambda: nobody in [entry.get("session_id") for entry in list(self.log)],
            bool,
            "the line of the last call",
        )

    def settled(self, received: int | None = None) -> Metrics:
        """A scrape with no packet in flight, after `received` datagrams if given.

        What a worker does in a turn it counts bit by bit, and all of it before it sleeps.
        """

        def at_rest() -> Metrics:
            found = self.metrics()
            if received is not None and found["rtp_packets_received_total"] < received:
                return found
            return self.metrics() if no_worker_runs(self.process.pid) else Metrics()

        return eventually(
            at_rest,
            lambda m: (
                bool(m)
                and m.differences() == (0, 0, 0, 0)
                and (received is None or m["rtp_packets_received_total"] >= received)
            ),
            f"identities, received >= {received}",
        )

    def send_signal(self, number: signal.Signals) -> None:
        """To the process that was started, which is the supervisor of process `pid`."""
        self.process.send_signal(number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait; its exit code. Stopping twice is fine."""
        self.channel.close()
        self._http.close()
        if self.process.poll() is None:
            self.send_signal(number)
        try:
            code = self.process.wait(SETTLE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the server did not end: {self.log[-5:]}")
        self._reader.join(SETTLE_SECONDS)
        return code

    def check_identities(self) -> None:
        """Assert DESIGN section 6, and that the sessions' counters add up to the server's."""
        if self.process.poll() is not None or self.metrics_address is None:
            return
        total = self.settled()
        assert total.differences() == (0, 0, 0, 0)
        if total["rtpfanout_sessions_deleted_total"] or total["rtpfanout_sessions_expired_total"]:
            return  # what they counted is in the totals alone
        eventually(  # the page may be a second old
            lambda: unequal_sums(self.metrics("/metrics/sessions"), self.settled()),
            lambda unequal: not unequal,
            "all sessions together have what the server has",
        )

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                entry = json.loads(line)
                entry["event"]
            except (ValueError, KeyError, TypeError):
                self.other_lines.append(line.rstrip())
            else:
                self.log.append(entry)


def unequal_sums(sessions: Metrics, total: Metrics) -> list[str]:
    """What the counters of all sessions together and those of their server differ in."""
    unequal = [
        one
        for one, all_of_them in (
            ("packets_received", "rtpfanout_packets_forwarded_total"),
            ("packets_sent", "rtp_packets_sent_total"),
            ("bytes_sent", "rtp_bytes_sent_total"),
            ("send_failures", "rtpfanout_send_failures_total"),
        )
        if sessions.total(f"rtpfanout_session_{one}_total") != total.total(all_of_them)
    ]
    for reason in ("overload", "rate_limit", "paused", "latching", "misrouted"):
        dropped = sum(
            value
            for key, value in sessions.items()
            if key.startswith("rtpfanout_session_packets_dropped_total{")
            and f'reason="{reason}"' in key
        )
        if dropped != total.dropped().get(reason, 0):
            unequal.append(reason)
    return unequal


def server_environment(settings: dict[str, object]) -> dict[str, str]:
    """This process's environment with nothing but `settings` for the server."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RTP_FANOUT_")}
    for key, value in settings.items():
        environment[f"RTP_FANOUT__{key.upper()}"] = str(value)
    return environment


def send_segmented(sock: socket.socket, packets: Sequence[bytes], to: tuple[str, int]) -> None:
    """One send that the kernel hands on as packets: all equal in length but the last."""
    segment = len(packets[0]).to_bytes(2, sys.byteorder)
    sock.sendmsg([b"".join(packets)], [(socket.IPPROTO_UDP, UDP_SEGMENT, segment)], 0, to)
