"""The client library against the real server, and the examples of docs/api.md."""

from __future__ import annotations

import asyncio
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import ServerProcess, address_of, eventually, receive, rtp_packet

from rtpfanout import errors
from rtpfanout.client import (
    AsyncSessionClient,
    ChangeKind,
    RetryPolicy,
    SessionClient,
    SessionMirror,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    MakeSocket = Callable[..., socket.socket]

pytestmark = pytest.mark.lent_servers

DOCS = Path(__file__).resolve().parents[2] / "docs/api.md"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SessionClient]:
    with SessionClient(str(server.grpc)) as client:
        yield client


def test_the_examples_of_the_documentation_run(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    section = DOCS.read_text().split("## Client library\n")[1].split("\n## ")[0]
    examples = re.findall(r"(?<!-->\n)^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert len(examples) == 5
    scope: dict[str, Any] = {"__name__": "examples"}
    for example in examples:  # as one program: later ones use what was imported before
        exec(example.replace("127.0.0.1:50051", str(server.grpc)), scope)  # noqa: S102
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].endswith(" 1")
    assert printed[-1].startswith("deleted ")
    assert printed[-1].endswith(" of 0")


def test_what_create_and_update_say_is_what_the_server_keeps(client: SessionClient) -> None:
    session = client.create_session(
        "192.0.2.0/24",
        7,
        "video",
        source_policy="cidr",
        labels={"vehicle": "rover-7", "site": "north"},
        ingest_limit_bps=8_000_000,
        max_subscribers=2,
        move_key=b"k" * 16,
    )
    assert session.source_policy == "cidr"
    assert dict(session.labels) == {"vehicle": "rover-7", "site": "north"}
    assert (session.ingest_limit_bps, session.max_subscribers) == (8_000_000, 2)
    assert session.signed_move
    later = client.update_session(
        session.session_id, ingest_limit_bps=0, labels={"site": ""}, paused=True
    )
    assert dict(later.labels) == {"vehicle": "rover-7"}
    assert (later.ingest_limit_bps, later.max_subscribers, later.status) == (0, 2, "paused")
    assert later.revision > session.revision
    with pytest.raises(errors.AbortedError):
        client.update_session(session.session_id, paused=False, if_revision=session.revision)
    moved = client.update_session(
        session.session_id, source_address="192.0.2.7:5000", source_policy="exact", paused=False
    )
    assert (moved.source_address, moved.status) == ("192.0.2.7:5000", "idle")
    assert client.get_session(session.session_id) == moved


def test_pausing_drops_and_resuming_forwards(
    client: SessionClient, server: ServerProcess, udp: MakeSocket
) -> None:
    source, subscriber = udp(), udp()
    id_ = client.create_session(address_of(source), 7, "video").session_id
    client.add_subscriber(id_, address_of(subscriber))
    client.update_session(id_, paused=True)
    source.sendto(rtp_packet(7, 0), server.ingest_target)
    server.settled(received=1)
    client.update_session(id_, paused=False)
    source.sendto(rtp_packet(7, 1), server.ingest_target)
    assert receive(subscriber, 1) == [rtp_packet(7, 1)]
    server.settled(received=2)
    stats = client.get_session_stats(id_)
    assert (stats.dropped_paused, stats.packets_sent) == (1, 1)
    each = server.metrics("/metrics/sessions")
    drops = {k: v for k, v in each.items() if k.startswith("rtpfanout_session_packets_dropped")}
    (paused,) = [key for key in drops if 'reason="paused"' in key]
    assert drops.pop(paused) == 1
    assert list(drops.values()) == [0, 0]


def test_the_same_request_id_creates_once(client: SessionClient) -> None:
    first = client.create_session("192.0.2.7:5000", 1, "video", request_id="again")
    assert client.create_session("192.0.2.7:5000", 1, "video", request_id="again") == first
    with pytest.raises(errors.AlreadyExistsError):
        client.create_session("192.0.2.7:5000", 1, "video")
    client.delete_session(first.session_id, request_id="gone")
    client.delete_session(first.session_id, request_id="gone")
    with pytest.raises(errors.NotFoundError):
        client.delete_session(first.session_id)


def test_a_mirror_is_the_list_whatever_happens(client: SessionClient) -> None:
    mirror = SessionMirror()
    before = [client.create_session("192.0.2.7:5000", n, "video").session_id for n in range(5)]
    with client.watch_sessions() as watch:
        following = threading.Thread(target=lambda: [None for _ in mirror.follow(watch)])
        following.start()
        eventually(lambda: set(mirror.sessions), lambda ids: ids == set(before), "the snapshot")
        for session_id in before[:2]:
            client.delete_session(session_id)
        for n in range(5, 9):
            client.create_session("192.0.2.7:5000", n, "data", labels={"n": str(n)})
        client.add_subscriber(before[4], "192.0.2.9:6000")
        client.update_session(before[3], paused=True)

        def differences() -> list[Any]:
            listed = {s.session_id: s for s in client.iter_sessions()}
            return [
                (mirror.sessions.get(id_), listed.get(id_))
                for id_ in {*listed, *mirror.sessions}
                if mirror.sessions.get(id_) != listed.get(id_)
            ]

        eventually(differences, lambda found: not found, "the mirror shows what the list says")
        watch.close()
        following.join()
    with client.watch_sessions(mirror.revision) as resumed:
        created = client.create_session("192.0.2.7:5000", 99, "video")
        events = (event.session.session_id for event in resumed)
        assert next(events) == created.session_id  # without a snapshot


def test_a_watch_with_labels_sees_only_what_matches(server: ServerProcess) -> None:
    async def run() -> list[tuple[ChangeKind, str]]:
        found = []
        async with AsyncSessionClient(str(server.grpc)) as client:
            make = client.create_session
            mine = await make("192.0.2.7:5000", 1, "video", labels={"vehicle": "a"})
            other = await make("192.0.2.7:5000", 2, "video", labels={"vehicle": "b"})
            watch = client.watch_sessions(label_selector="vehicle=a")
            async for change in SessionMirror().follow_async(watch):
                found.append((change.kind, change.session.session_id == mine.session_id))
                if change.kind is ChangeKind.CREATED and change.session.ssrc == 1:
                    await client.update_session(other.session_id, labels={"vehicle": "a"})
                elif change.kind is ChangeKind.CREATED:
                    await client.update_session(mine.session_id, labels={"vehicle": "c"})
                elif change.kind is ChangeKind.DELETED:
                    watch.close()
        return found

    assert asyncio.run(run()) == [
        (ChangeKind.CREATED, True),
        (ChangeKind.CREATED, False),
        (ChangeKind.DELETED, True),
    ]


@pytest.mark.parametrize("durable", [True, False])
def test_watches_and_calls_outlive_a_server(
    start_server: Callable[..., ServerProcess], tmp_path: Path, durable: bool
) -> None:
    """The next server has the same address and, if the store is a file, the same memory."""
    store = str(tmp_path / "sessions.db") if durable else ":memory:"
    first = start_server(store__path=store)
    patient = RetryPolicy(attempts=1000, longest_delay=0.2)
    with SessionClient(str(first.grpc), overall_timeout=60, retries=patient) as client:
        old = client.create_session("192.0.2.7:5000", 1, "video")
        mirror, watch = SessionMirror(), client.watch_sessions()
        changes = mirror.follow(watch)
        assert next(changes).session.session_id == old.session_id
        answers: list[Any] = []

        def create() -> None:
            answers.append(client.create_session("192.0.2.7:5000", 2, "video"))

        first.stop()
        calling = threading.Thread(target=create)
        calling.start()  # while nobody is there
        start_server(grpc_bind_address=str(first.grpc), store__path=store)
        calling.join()
        (new,) = answers
        kinds = {new.session_id: ChangeKind.CREATED}
        if not durable:
            kinds[old.session_id] = ChangeKind.DELETED
        seen = {change.session.session_id: change.kind for _, change in zip(kinds, changes)}  # noqa: B905
        assert seen == kinds
        expected = {old.session_id, new.session_id} if durable else {new.session_id}
        assert set(mirror.sessions) == expected
        watch.close()
