"""Watches over lost connections, and the mirror made of them; against a real gRPC server."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from client_support import Event, Script, failure, serving, session_event, unavailable

from rtpfanout import errors
from rtpfanout.client import (
    AsyncSessionClient,
    ChangeKind,
    RetryPolicy,
    SessionClient,
    SessionMirror,
    asynchronous,
    blocking,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUICK = RetryPolicy(attempts=3, first_delay=0.01, longest_delay=0.02)

SNAPSHOT = [
    session_event(Event.RESET, revision=5),
    session_event(Event.SNAPSHOT, "a", 3),
    session_event(Event.SNAPSHOT, "b", 5),
    session_event(Event.SYNCED, revision=5),
]


def take_blocking(target: str, count: int, **options: Any) -> list[Event]:
    with (
        SessionClient(target, retries=QUICK) as client,
        client.watch_sessions(**options) as watch,
    ):
        return [next(watch) for _ in range(count)]


def take_asynchronous(target: str, count: int, **options: Any) -> list[Event]:
    async def run() -> list[Event]:
        async with (
            AsyncSessionClient(target, retries=QUICK) as client,
            client.watch_sessions(**options) as watch,
        ):
            return [await anext(watch) for _ in range(count)]

    return asyncio.run(run())


both_clients = pytest.mark.parametrize("take", [take_blocking, take_asynchronous])


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def target(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def asked_after(script: Script) -> list[int]:
    return [request.after_revision for request in script.requests]


@both_clients
@pytest.mark.parametrize(
    "end",
    [
        [],  # the server ends the stream
        [unavailable()],
        [unavailable(0.01)],
        [failure(grpc.StatusCode.CANCELLED, "going down")],
    ],
)
def test_a_lost_watch_goes_on_after_the_last_event(
    take: Callable[..., list[Event]], script: Script, target: str, end: list[Any]
) -> None:
    created = session_event(Event.CREATED, "c", 6)
    deleted = session_event(Event.DELETED, "a", 8)
    script.streams = [[*SNAPSHOT, created, *end], end, [deleted, None]]
    events = take(target, 6, label_selector="x=y")
    assert events == [*SNAPSHOT, created, deleted]
    assert asked_after(script) == [0, 6, 6]
    assert {request.label_selector for request in script.requests} == {"x=y"}


@both_clients
def test_a_snapshot_that_breaks_off_is_begun_anew(
    take: Callable[..., list[Event]], script: Script, target: str
) -> None:
    script.streams = [[*SNAPSHOT[:2], unavailable()], [*SNAPSHOT, None]]
    assert take(target, 6, after_revision=2) == [*SNAPSHOT[:2], *SNAPSHOT]
    assert asked_after(script) == [2, 0]


@both_clients
def test_heartbeats_move_the_revision_and_are_shown_on_demand(
    take: Callable[..., list[Event]], script: Script, target: str
) -> None:
    beat, updated = (
        session_event(Event.HEARTBEAT, revision=9),
        session_event(Event.UPDATED, "a", 10),
    )
    script.streams = [[beat, unavailable()], [updated, None], [beat, updated, None]]
    assert take(target, 1, after_revision=4) == [updated]
    assert take(target, 2, after_revision=4, heartbeats=True) == [beat, updated]
    assert asked_after(script) == [4, 9, 4]


@both_clients
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidArgumentError),
        (grpc.StatusCode.UNAUTHENTICATED, errors.UnauthenticatedError),
        (grpc.StatusCode.UNIMPLEMENTED, errors.UnimplementedError),
    ],
)
def test_what_no_new_connection_mends_is_raised(
    take: Callable[..., list[Event]],
    script: Script,
    target: str,
    code: grpc.StatusCode,
    kind: type[errors.RtpFanoutError],
) -> None:
    script.streams = [[*SNAPSHOT, unavailable()], [failure(code, "no")]]
    with pytest.raises(kind):
        take(target, 5)


@both_clients
@pytest.mark.parametrize("stream", [[], [unavailable()]])
def test_a_server_that_is_never_there_is_told(
    take: Callable[..., list[Event]], script: Script, target: str, stream: list[Any]
) -> None:
    script.streams = [stream] * 9
    with pytest.raises(errors.UnreachableError, match=target):
        take(target, 1)
    assert len(script.requests) == QUICK.attempts


@both_clients
def test_a_server_that_falls_silent_is_called_anew(
    take: Callable[..., list[Event]],
    script: Script,
    target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (blocking, asynchronous):
        monkeypatch.setattr(module, "SILENCE_SECONDS", 0.5)
    script.streams = [[*SNAPSHOT, None], [session_event(Event.CREATED, "c", 6), None]]
    assert take(target, 5)[-1].session.session_id == "c"
    assert asked_after(script) == [0, 5]


def test_close_ends_a_waiting_watch_from_another_thread(script: Script, target: str) -> None:
    script.streams = [[*SNAPSHOT, None]]
    with SessionClient(target) as client, client.watch_sessions() as watch:
        threading.Timer(0.2, watch.close).start()
        assert list(watch) == SNAPSHOT
        assert watch.revision == 5
        assert list(watch) == []


def test_closing_the_client_ends_its_watches(script: Script, target: str) -> None:
    script.streams = [[*SNAPSHOT, None]]
    client = SessionClient(target)
    threading.Timer(0.2, client.close).start()
    assert list(client.watch_sessions()) == SNAPSHOT


def test_close_ends_a_waiting_watch_from_another_task(script: Script, target: str) -> None:
    async def run() -> list[Event]:
        async with AsyncSessionClient(target) as client:
            watch = client.watch_sessions()
            asyncio.get_running_loop().call_later(0.2, watch.close)
            return [event async for event in watch]

    script.streams = [[*SNAPSHOT, None]]
    assert asyncio.run(run()) == SNAPSHOT


def test_cancelling_a_task_that_watches_cancels_it(script: Script, target: str) -> None:
    async def run() -> bool:
        async with AsyncSessionClient(target) as client:
            begun = asyncio.Event()

            async def watch() -> None:
                async for _ in client.watch_sessions():
                    begun.set()

            task = asyncio.create_task(watch())
            await begun.wait()
            task.cancel()
            await asyncio.wait([task])
            return task.cancelled()

    script.streams = [[*SNAPSHOT, None]]
    assert asyncio.run(run())
    assert len(script.requests) == 1


def test_a_server_that_comes_back_is_found_again() -> None:
    """The port is the same, the process another: what an upgrade or a crash looks like."""
    first, second = Script(), Script()
    first.streams = [[*SNAPSHOT, None]]
    with serving(first) as target:
        client = SessionClient(target)
        watch = client.watch_sessions()
        assert [next(watch) for _ in SNAPSHOT] == SNAPSHOT
    second.streams = [[session_event(Event.CREATED, "c", 6), None]]
    with serving(second, target), client, watch:
        assert next(watch).session.session_id == "c"
        assert asked_after(second) == [5]


def kinds(changes: list[Any]) -> list[tuple[ChangeKind, str]]:
    return [(change.kind, change.session.session_id) for change in changes]


def test_a_mirror_shows_a_snapshot_when_it_is_whole() -> None:
    mirror = SessionMirror()
    *before, synced = SNAPSHOT
    assert [mirror.apply(event) for event in before] == [[], [], []]
    assert (mirror.synced, dict(mirror.sessions), mirror.revision) == (False, {}, 0)
    assert kinds(mirror.apply(synced)) == [(ChangeKind.CREATED, "a"), (ChangeKind.CREATED, "b")]
    assert (mirror.synced, set(mirror.sessions), mirror.revision) == (True, {"a", "b"}, 5)


def test_a_mirror_follows_changes_and_tells_what_was_before() -> None:
    mirror = SessionMirror()
    sessions = mirror.sessions
    list(mirror.follow(SNAPSHOT))
    (change,) = mirror.apply(session_event(Event.UPDATED, "a", 6, subscriber_count=2))
    assert (change.kind, change.session.subscriber_count) == (ChangeKind.UPDATED, 2)
    assert change.previous is not None
    assert change.previous.subscriber_count == 0
    assert kinds(mirror.apply(session_event(Event.DELETED, "b", 7))) == [(ChangeKind.DELETED, "b")]
    assert mirror.apply(session_event(Event.DELETED, "b", 7)) == []  # known already
    assert mirror.apply(session_event(Event.HEARTBEAT, revision=8)) == []
    assert (set(sessions), mirror.revision) == ({"a"}, 8)  # the view has kept up


def test_a_mirror_makes_changes_of_what_it_missed() -> None:
    mirror = SessionMirror()
    list(mirror.follow(SNAPSHOT))
    later = [
        session_event(Event.RESET, revision=20),
        session_event(Event.SNAPSHOT, "a", 18, subscriber_count=3),
        session_event(Event.SNAPSHOT, "c", 20),
    ]
    assert list(mirror.follow(later)) == []
    assert set(mirror.sessions) == {"a", "b"}  # what was last known, until the new one is whole
    assert kinds(mirror.apply(session_event(Event.SYNCED, revision=20))) == [
        (ChangeKind.DELETED, "b"),
        (ChangeKind.UPDATED, "a"),
        (ChangeKind.CREATED, "c"),
    ]


def test_a_mirror_takes_changes_that_come_amid_a_snapshot() -> None:
    mirror = SessionMirror()
    events = [
        *SNAPSHOT[:3],
        session_event(Event.DELETED, "a", 6),
        session_event(Event.CREATED, "c", 7),
        session_event(Event.SYNCED, revision=7),
    ]
    assert kinds(list(mirror.follow(events))) == [
        (ChangeKind.CREATED, "b"),
        (ChangeKind.CREATED, "c"),
    ]


def test_a_mirror_does_not_fall_back_behind_its_snapshot() -> None:
    """Sessions that change while a snapshot is made are in it as they are, and follow again."""
    mirror = SessionMirror()
    events = [
        session_event(Event.RESET),
        session_event(Event.SNAPSHOT, "a", subscriber_count=2),
        session_event(Event.SYNCED, revision=5),
        session_event(Event.UPDATED, "a", 6, subscriber_count=1),
        session_event(Event.UPDATED, "a", 7, subscriber_count=2),
    ]
    events[1].session.revision = 7
    events[3].session.revision = 6
    events[4].session.revision = 7
    assert [len(mirror.apply(event)) for event in events] == [0, 0, 1, 0, 0]
    assert (mirror.sessions["a"].subscriber_count, mirror.revision) == (2, 7)


@both_clients
def test_a_server_that_has_forgotten_all_is_asked_for_all(
    take: Callable[..., list[Event]], script: Script, target: str
) -> None:
    reset, synced = session_event(Event.RESET), session_event(Event.SYNCED)
    script.streams = [[*SNAPSHOT, unavailable()], [reset, synced], [reset, synced, None]]
    assert take(target, 8) == [*SNAPSHOT, reset, synced, reset, synced]
    assert asked_after(script) == [0, 5, 0]


def test_a_mirror_follows_an_asynchronous_watch_over_a_lost_connection(
    script: Script, target: str
) -> None:
    async def run() -> list[tuple[ChangeKind, str]]:
        mirror, found = SessionMirror(), []
        async with AsyncSessionClient(target, retries=QUICK) as client:
            watch = client.watch_sessions()
            async for change in mirror.follow_async(watch):
                found.append((change.kind, change.session.session_id))
                if change.kind is ChangeKind.DELETED:
                    watch.close()
        return found

    script.streams = [[*SNAPSHOT[:2], unavailable()], [*SNAPSHOT, unavailable()]]
    script.streams.append([session_event(Event.DELETED, "a", 6), None])
    assert asyncio.run(run()) == [
        (ChangeKind.CREATED, "a"),
        (ChangeKind.CREATED, "b"),
        (ChangeKind.DELETED, "a"),
    ]
