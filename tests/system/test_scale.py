"""Much state in one server: 200,000 subscribers set up over gRPC, none of them lost or mixed up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import address_of, receive, rtp_packet

from rtpfanout.client import SessionClient

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from support import ServerProcess

SESSIONS = 200
SUBSCRIBERS = 1000
BYTES_PER_SUBSCRIBER = 128


def resident_bytes(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    match = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
    assert match
    return int(match[1]) * 1024


def addresses(session: int) -> list[str]:
    return [f"10.{session}.{n // 250}.{n % 250}:{6000 + session}" for n in range(SUBSCRIBERS)]


@pytest.mark.slow("sets up 200,000 subscribers")
def test_many_sessions_of_many_subscribers(
    start_server: Callable[..., ServerProcess], udp: Callable[..., socket.socket], tmp_path: Path
) -> None:
    server = start_server(store__path=tmp_path / "state.db")  # what is in a file is in no memory
    source, subscriber = udp(), udp()
    before = resident_bytes(server)
    with SessionClient(str(server.grpc), timeout=60) as client:
        ids = [
            client.create_session(address_of(source), ssrc, "video").session_id
            for ssrc in range(SESSIONS)
        ]
        for number, session_id in enumerate(ids):
            answer = client.add_subscribers(session_id, addresses(number))
            assert (answer.added, answer.already_present) == (SUBSCRIBERS, 0)
        taken = resident_bytes(server) - before
        assert server.metrics()["total_subscribers"] == SESSIONS * SUBSCRIBERS
        # 4 MiB for the sessions and for what the first of many calls brings with it, and so small
        # a file (10 MB) is in SQLite's page cache as a whole.
        assert taken <= SESSIONS * SUBSCRIBERS * BYTES_PER_SUBSCRIBER + (16 << 20)

        for number in (0, 77, SESSIONS - 1):
            listed = [s.subscriber_address for s in client.iter_subscribers(ids[number], 300)]
            assert listed == addresses(number)

        chosen = ids[77]
        client.remove_subscribers(chosen, addresses(77))
        client.add_subscriber(chosen, address_of(subscriber))
        packet = rtp_packet(77, 1)
        source.sendto(packet, server.ingest_target)
        assert receive(subscriber, 1) == [packet]
        each = server.metrics("/metrics/sessions")
        total = each.total("rtpfanout_session_subscribers")
        assert total == (SESSIONS - 1) * SUBSCRIBERS + 1
        for session_id in ids:
            client.delete_session(session_id)
    assert server.metrics()["total_subscribers"] == 0
