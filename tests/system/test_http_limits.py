"""Strangers at the metrics port: what they do to themselves, and that others notice nothing.

Time-outs that take seconds are shortened for the test.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from serving import limited, serve_with
from support import SETTLE_SECONDS, ServerProcess, eventually, target

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = 400
"""Open files that the server may have."""
STRANGERS = 600
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"

pytestmark = pytest.mark.lent_servers


@pytest.fixture
def start_with(
    start_server: Callable[..., ServerProcess], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., ServerProcess]:
    """Starts a server with FILES, and with constants of http.server such as REQUEST_SECONDS."""

    def start(**changed: float) -> ServerProcess:
        command = limited(FILES, serve_with("rtpfanout.http.server", **changed))
        monkeypatch.setattr(ServerProcess, "command", command)
        return start_server(enable_supervisor=False)

    return start


def connect(server: ServerProcess, stack: ExitStack) -> socket.socket:
    assert server.metrics_address
    return stack.enter_context(
        socket.create_connection(target(server.metrics_address), SETTLE_SECONDS)
    )


def is_ended(sock: socket.socket) -> bool:
    """Closed or reset by the server, after whatever it had to say."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


def is_refused(sock: socket.socket, heap: bytes) -> bool:
    """Whatever is sent, there is an end to it."""
    try:
        while True:
            sock.sendall(heap)
    except (ConnectionResetError, BrokenPipeError):
        return True


def log_bytes(server: ServerProcess) -> int:
    return len(json.dumps(server.log)) + sum(map(len, server.other_lines))


def ended(server: ServerProcess, reason: str) -> float:
    return server.metrics()[f'rtpfanout_connections_ended_total{{reason="http_{reason}"}}']


def descriptors(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


@pytest.mark.usefixtures("many_files")
def test_silent_connections_take_neither_health_nor_descriptors_nor_the_log(
    start_with: Callable[..., ServerProcess],
) -> None:
    server = start_with()
    before = log_bytes(server)
    with ExitStack() as stack:
        silent = []
        for _ in range(STRANGERS):
            silent.append(connect(server, stack))
            if len(silent) % 100 == 0:
                assert server.http("/healthz").status_code == 200
                server.stub.ListSessions(pb.ListSessionsRequest(), timeout=SETTLE_SECONDS)
        assert descriptors(server) < FILES - 100, "some are kept back"
        assert is_ended(silent[0]), "the oldest made room"
        assert ended(server, "crowded") > STRANGERS / 2
    assert log_bytes(server) == before


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /healthz HT", GET % b"/healthz" + b"GET /hea"],
    ids=["nothing", "half a request", "half of the next one"],
)
def test_who_does_not_ask_is_sent_away(
    start_with: Callable[..., ServerProcess], said: bytes
) -> None:
    server = start_with(REQUEST_SECONDS=0.2)
    with ExitStack() as stack:
        slow = connect(server, stack)
        slow.sendall(said)
        assert is_ended(slow)
    assert ended(server, "late") == 1


def test_who_does_not_take_the_answer_is_sent_away(
    start_with: Callable[..., ServerProcess],
) -> None:
    server = start_with(ANSWER_SECONDS=0.5)
    source = "[2001:db8::%x]:5000"
    for n in range(300):
        server.create(source % (n + 1), n)
    with ExitStack() as stack:
        asks = GET % b"/metrics/sessions" * 50
        slow = stack.enter_context(socket.socket())
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(SETTLE_SECONDS)
        assert server.metrics_address
        slow.connect(target(server.metrics_address))
        slow.sendall(asks)
        eventually(lambda: ended(server, "late"), lambda n: n == 1, "it was sent away")
        assert is_ended(slow)
    assert len(server.metrics("/metrics/sessions")) > 300


def test_requests_sent_ahead_are_answered_one_after_the_other(server: ServerProcess) -> None:
    with ExitStack() as stack:
        sock = connect(server, stack)
        sock.sendall(GET % b"/healthz" + GET % b"/nothing" + GET % b"/readyz")
        got = b""
        while got.count(b"HTTP/1.1 ") < 3 or not got.endswith(b"ok\n"):
            got += sock.recv(65536)
    statuses = [part.split()[0] for part in got.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404", b"200"]


@pytest.mark.parametrize("page", [b"/metrics", b"/metrics/sessions"])
def test_a_heap_of_requests_costs_its_sender_the_connection(
    server: ServerProcess, page: bytes
) -> None:
    heap = GET % page * 2000
    with ExitStack() as stack:
        senders = [connect(server, stack) for _ in range(5)]
        for sender in senders:
            assert is_refused(sender, heap)
        assert server.http("/healthz").status_code == 200


def test_pages_of_who_has_gone_are_not_made(server: ServerProcess) -> None:
    """35 KB of requests and a close: nothing is left to do for them."""
    for n in range(20):
        server.create(f"[2001:db8::{n + 1:x}]:5000", n)
    for _ in range(20):
        with ExitStack() as stack:
            connect(server, stack).sendall(GET % b"/metrics/sessions" * 200)
    before = server.metrics()["process_cpu_seconds_total"]
    assert len(server.metrics("/metrics/sessions")) > 20
    after = eventually(
        lambda: server.metrics()["process_cpu_seconds_total"], lambda n: n >= before, "a scrape"
    )
    assert after - before < 5, "4,000 pages take longer"


def test_many_who_ask_at_a_time_get_whole_pages(server: ServerProcess) -> None:
    for n in range(100):
        server.create(f"[2001:db8::{n + 1:x}]:5000", n)
    sizes: list[int] = []

    def scrape() -> None:
        sizes.append(len(server.http("/metrics/sessions").text.splitlines()))

    scrapers = [threading.Thread(target=scrape) for _ in range(40)]
    for scraper in scrapers:
        scraper.start()
    for scraper in scrapers:
        scraper.join()
    whole = len(server.http("/metrics/sessions").text.splitlines())
    assert whole > 100 * 11
    assert sizes == [whole] * 40


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET /%ff%00%0a HTTP/1.1\r\nHost: \xff\r\nAuthorization: \xff\r\n\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n",
        b"x" * 100_000,
    ],
    ids=["tls", "no host", "upgrade", "bytes", "body", "long"],
)
def test_what_strangers_send_writes_no_line(server: ServerProcess, garbage: bytes) -> None:
    before = log_bytes(server)
    for _ in range(20):
        with ExitStack() as stack:
            stranger = connect(server, stack)
            try:
                stranger.sendall(garbage)
                stranger.shutdown(socket.SHUT_WR)
            except OSError:
                continue
            is_ended(stranger)
    assert server.http("/healthz").status_code == 200
    assert log_bytes(server) == before
