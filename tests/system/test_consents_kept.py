"""Consents over the end of a server process: who has consented is not asked again."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from datagram_support import create, outcomes, replaced, subscribers
from support import SETTLE_SECONDS, address_of, eventually, queued, rtp_packet

from rtpfanout import housekeeping
from rtpfanout import server as server_module
from rtpfanout.assembly import Start
from rtpfanout.boot import boot_id
from rtpfanout.config import Settings
from rtpfanout.model import Address
from rtpfanout.receiver import Receiver
from rtpfanout.store import Store

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from support import ServerProcess

SSRC = 0xC0FFEE
ANYWHERE = "127.0.0.1:0"


def commits(server: ServerProcess) -> float:
    return server.metrics()["rtpfanout_store_commits_total"]


@pytest.mark.parametrize("how", ["killed", "upgraded"])
def test_a_receiver_that_says_nothing_more_gets_packets_from_the_next_server(
    how: str,
    start_server: Callable[..., ServerProcess],
    udp: Callable[..., socket.socket],
    tmp_path: Path,
) -> None:
    server = start_server(store__path=str(tmp_path / "store.db"))
    source, beside = udp(), udp()
    session = create(server, source, SSRC, consent="echo")
    receiver = Receiver(server.ingest, bind=Address.parse(ANYWHERE))
    here = f"127.0.0.1:{receiver.local_port}"
    server.add(session, here)
    server.add(session, address_of(beside))
    before = commits(server)
    receiver.join(30)
    if how == "killed":  # an upgrade takes along what the housekeeping has not yet kept
        eventually(lambda: commits(server), lambda now: now > before, "the consent is kept")
    replaced(server, how)
    assert subscribers(server, session) == {here: "sending", address_of(beside): "awaiting_consent"}
    sent = [rtp_packet(SSRC, number) for number in range(10)]
    for packet in sent:
        source.sendto(packet, server.ingest_target)
    receiver._socket.settimeout(SETTLE_SECONDS)  # read without a word to the server
    assert [receiver._socket.recv(2048) for _ in sent] == sent
    server.settled(10)
    assert server.stats(session).copies_withheld == 10
    assert queued(beside) == []
    assert outcomes(server) == {}, "nobody said anything to this server, or was asked"
    receiver.close()


def test_an_orderly_end_keeps_what_was_given_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "HOUSEKEEPING_SECONDS", 3600.0)
    path = str(tmp_path / "store.db")
    settings = Settings.model_validate(
        {
            "bind_address": ANYWHERE,
            "grpc_bind_address": ANYWHERE,
            "enable_metrics": False,
            "store": {"path": path},
        }
    )
    subscriber = Address.parse("127.0.0.1:7000")

    def consent(server: server_module.Server) -> None:
        manager = server.manager
        session_id = manager.create("127.0.0.1:5000", SSRC, "video", consent="echo").session_id
        manager.add_subscriber(session_id, str(subscriber))
        manager.signals.consent_given(session_id, subscriber, time.monotonic() + 3600)

    async def serve() -> None:
        server = server_module.Server(Start(settings))
        await server.start()
        await asyncio.to_thread(consent, server)
        await server.stop()

    asyncio.run(serve())
    with Store(path) as store:
        (found,) = store.consents(boot_id(), time.monotonic_ns())
        assert found.record == subscriber.record
