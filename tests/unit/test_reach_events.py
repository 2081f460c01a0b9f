"""Subscribers that ICMP errors come of: an event when that begins, and when it is over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from managers import SECOND, Clock, send
from support import address_of, eventually, udp_socket

from rtpfanout.model import Address
from rtpfanout.reach.heard import MOST_ONCE, STALE_SECS, HeardErrors
from rtpfanout.reach.icmp import IcmpError, Told
from rtpfanout.sessions import reaching

if TYPE_CHECKING:
    import socket

    from rtpfanout.sessions import SessionManager

GONE, OTHER = "192.0.2.8:7000", "192.0.2.9:7000"


class FakeReach:
    def __init__(self) -> None:
        self.said: dict[Address, str] = {}

    def listen(self) -> None:
        pass

    def refused(self) -> dict[Address, str]:
        return dict(self.said)


def told(manager: SessionManager, after: int) -> list[tuple[str, str, str, str]]:
    return [
        (str(e.kind), e.name, e.subscriber_address, e.detail)
        for e in manager.events.after(after).events
    ]


@pytest.fixture
def reach(manager: SessionManager) -> FakeReach:
    fake = FakeReach()
    manager.reaching.reach = fake  # type: ignore[assignment]
    return fake


def fed(manager: SessionManager, clock: Clock, source: socket.socket, name: str) -> None:
    session = manager.create(address_of(source), 7, "video", name=name)
    send(source, manager._engine, 7)
    eventually(
        lambda: manager.stats(session.session_id).packets_received, lambda n: n == 1, "a packet"
    )
    clock.now = time.monotonic_ns()
    manager.housekeeping.tell_conditions()


def test_it_is_told_once_and_when_it_is_over(
    manager: SessionManager, clock: Clock, reach: FakeReach
) -> None:
    with udp_socket() as source:
        fed(manager, clock, source, "one")
    manager.create("192.0.2.1:1", 8, "video", name="idle")
    manager.create("192.0.2.1:1", 9, "video", name="without")
    manager.add_subscriber("one", GONE)
    manager.add_subscriber("idle", GONE)
    at = manager.events.position
    reach.said = {Address.parse(GONE): "so it is", Address.parse(OTHER): "nobody's"}
    for _ in range(3):
        manager.reaching.look()
    assert told(manager, at) == [
        ("subscriber_unreachable", "one", GONE, "so it is"),
        ("subscriber_unreachable", "idle", GONE, "so it is"),
    ]
    at = manager.events.position
    reach.said = {}
    clock.now += 10 * SECOND
    manager.reaching.look()
    assert told(manager, at) == [], "it has not been sent to for long"
    clock.now += int(STALE_SECS) * SECOND
    for _ in range(2):
        manager.reaching.look()
    assert told(manager, at) == [("subscriber_back", "one", GONE, "")], "idle sent nothing"
    manager.remove_subscriber("idle", GONE)
    manager.reaching.look()
    assert told(manager, at)[1:] == [("subscriber_left", "idle", GONE, "")]
    assert not manager.reaching._told


def test_who_goes_is_forgotten(manager: SessionManager, reach: FakeReach) -> None:
    manager.create("192.0.2.1:1", 8, "video", name="one")
    manager.add_subscriber("one", GONE)
    reach.said = {Address.parse(GONE): "so it is"}
    manager.reaching.look()
    manager.delete("one")
    at = manager.events.position
    reach.said = {}
    manager.reaching.look()
    assert told(manager, at) == []
    assert not manager.reaching._told
    manager.reaching.reach = None
    manager.reaching.look()


def test_who_is_added_again_is_told_again(manager: SessionManager, reach: FakeReach) -> None:
    manager.create("192.0.2.1:1", 8, "video", name="one")
    reach.said = {Address.parse(GONE): "so it is"}
    at = manager.events.position
    for _ in range(2):
        manager.add_subscriber("one", GONE)
        manager.reaching.look()
        manager.remove_subscriber("one", GONE)
        manager.reaching.look()
        assert not manager.reaching._told
    assert [kind for kind, *_ in told(manager, at)] == [
        "subscriber_joined", "subscriber_unreachable", "subscriber_left",
    ] * 2  # fmt: skip


def test_a_look_is_bounded(
    manager: SessionManager, reach: FakeReach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaching, "_LOOKED_AT", 4)
    monkeypatch.setattr(reaching, "_MOST_TOLD", 5)
    for ssrc in range(2):
        manager.create("192.0.2.1:1", ssrc, "video")
    reach.said = {Address.parse(f"192.0.2.8:{port}"): "x" for port in range(1, 20)}
    counts = []
    for _ in range(4):
        manager.reaching.look()
        counts.append(len(manager.reaching._told))
    assert counts == [2, 4, 5, 5]


def test_errors_that_go_on_coming() -> None:
    heard = HeardErrors()
    to = Address.parse(GONE)
    error = IcmpError(Told.PORT, to.ip, to, 5004)
    heard.note(error, 1.0)
    assert heard.again(1.0) == {}, "one says little"
    heard.note(error, 2.0)
    assert list(heard.again(2.0 + STALE_SECS)) == [to]
    assert heard.again(2.1 + STALE_SECS) == {}
    for port in range(MOST_ONCE * 2):
        once = Address(to.ip, port)
        heard.note(IcmpError(Told.PORT, to.ip, once, 5004), 3.0)
    assert list(heard.again(3.0)) == [to], "who is made up pushes out nobody"
