"""Guests: subscribers that are not in the store, and end with their lease or their connection."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING

import pytest
from managers import SECOND, SOURCE, Clock, deny, engine_of, manager_of, subscribers

from rtpfanout.errors import (
    AddressDeniedError,
    AlreadyExistsError,
    LimitError,
    NotFoundError,
    RtpFanoutError,
)
from rtpfanout.model import Address, Rtcp
from rtpfanout.sessions import SCOPE, Place
from rtpfanout.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions import SessionManager

HERE = Address.parse("127.0.0.1:6010")
THERE = ipaddress.ip_address("198.51.100.7")
RELAY = Place(Address.parse("127.0.0.1:6100"), relayed_to=THERE)


@pytest.fixture
def session_id(manager: SessionManager) -> str:
    return manager.create(SOURCE, 1, "video", name="rover-7/front").session_id


def test_a_guest_is_there_until_its_lease_is_over(
    manager: SessionManager, session_id: str, clock: Clock
) -> None:
    guest = manager.guests.add(session_id, Place(HERE, rtcp=Rtcp.NEXT_PORT), 10)
    (view,) = manager.list_subscribers(session_id)[0]
    assert (view.address, view.rtcp) == (HERE, Rtcp.NEXT_PORT)
    assert manager.total_subscribers == 1
    clock.now += 8 * SECOND
    assert manager.guests.renew(guest, 10)
    clock.now += 8 * SECOND
    manager.housekeeping.expire_subscribers()
    assert subscribers(manager, session_id) == [str(HERE)]
    clock.now += 4 * SECOND
    manager.housekeeping.expire_subscribers()
    assert subscribers(manager, session_id) == []
    assert not manager.guests.renew(guest, 10)
    assert manager.total_subscribers == 0
    manager.guests.remove([guest])


def test_the_store_never_has_it(engine: Engine, tmp_path: Path, clock: Clock) -> None:
    path = str(tmp_path / "store.db")
    store = Store(path)
    manager = manager_of(engine, clock, store)
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.guests.add(session_id, Place(HERE), 1000)
    manager.add_subscriber(session_id, "127.0.0.1:6002")
    store.close()
    store = Store(path)
    with engine_of() as fresh:
        again = manager_of(fresh, clock, store)
        again.restore()
        assert subscribers(again, session_id) == ["127.0.0.1:6002"]
    store.close()


def test_nobody_else_s_address_is_taken_or_ended(manager: SessionManager, session_id: str) -> None:
    manager.add_subscriber(session_id, str(HERE))
    with pytest.raises(AlreadyExistsError):
        manager.guests.add(session_id, Place(HERE), 10)
    other = Place(Address.parse("127.0.0.1:6002"))
    guest = manager.guests.add(session_id, other, 10)
    with pytest.raises(AlreadyExistsError):
        manager.guests.add(session_id, other, 10)
    # Who is added for good stays, also when the guest goes.
    manager.add_subscriber(session_id, str(other.address))
    assert manager.guests.renew(guest, 10)
    manager.guests.remove([guest])
    assert subscribers(manager, session_id) == [str(HERE), str(other.address)]
    assert manager.list_subscribers(session_id)[0][1].expires_at is None


def test_limits_and_policy_hold(manager: SessionManager, session_id: str) -> None:
    for port in (6000, 6002, 6004):
        manager.guests.add(session_id, Place(Address.parse(f"127.0.0.1:{port}")), 10)
    with pytest.raises(LimitError):
        manager.guests.add(session_id, RELAY, 10)
    deny(manager, f"{THERE}/32")
    with pytest.raises(AddressDeniedError):
        manager.guests.add(session_id, RELAY, 10)
    with pytest.raises(AddressDeniedError):
        manager.guests.add(session_id, Place(Address(THERE, 6000)), 10)
    assert manager.total_subscribers == 3


def test_no_port_of_our_own_becomes_a_guest(manager: SessionManager, session_id: str) -> None:
    """As packets that come there feed some session, and copies of them would, and so on."""
    rules = manager._rules
    policy = dataclasses.replace(rules.policy, side_ports=frozenset((7000,)))
    manager.reconfigure(policy, rules.limits)
    for port in (policy.ingress.port, 7000):
        with pytest.raises(AddressDeniedError):
            manager.guests.add(session_id, Place(Address(HERE.ip, port)), 60)
    manager.guests.add(session_id, Place(Address(HERE.ip, 7001)), 60)


def test_the_policy_judges_who_is_behind_a_relay(manager: SessionManager, session_id: str) -> None:
    """And not the relay, which is ours."""
    manager.guests.add(session_id, RELAY, 10)
    deny(manager, "127.0.0.0/8")
    assert manager.housekeeping.judge_policy() == 0
    manager.guests.check(RELAY)
    manager.guests.check(Place(RELAY.address, relayed_to=HERE.ip))  # who is here is no victim
    deny(manager, f"{THERE}/32")
    with pytest.raises(AddressDeniedError):
        manager.guests.check(RELAY)


def test_subscriptions_of_an_address_are_those_behind_a_relay(engine: Engine, clock: Clock) -> None:
    manager = manager_of(engine, clock, subscribers_per_ip=1)
    session_id = manager.create(SOURCE, 1, "video").session_id
    guest = manager.guests.add(session_id, RELAY, 10)
    manager.guests.add(session_id, Place(HERE), 10)
    other = Place(Address.parse("127.0.0.1:6102"), relayed_to=THERE)
    with pytest.raises(LimitError, match=f"{THERE} has 1 subscriptions"):
        manager.guests.add(session_id, other, 10)
    manager.guests.remove([guest])
    second = manager.guests.add(session_id, other, 10)
    manager.delete(session_id)
    manager.guests.remove([second])
    assert manager._state.per_ip == {}
    assert manager._state.relays == {}


def test_who_connected_has_consented(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video", consent="echo").session_id
    manager.guests.add(session_id, Place(HERE), 10)
    (view,) = manager.list_subscribers(session_id)[0]
    assert view.state == "sending"


def test_paths(manager: SessionManager, session_id: str) -> None:
    below = [manager.create(SOURCE, ssrc, "audio", name=f"rover-8/{ssrc}") for ssrc in (3, 2)]
    manager.create(SOURCE, 4, "data", name="rover-8/lidar")
    find = manager.guests.sessions_at
    assert find("rover-7/front") == find(session_id.upper()) == find("rover-7") == [session_id]
    assert find("rover-8") == [below[1].session_id, below[0].session_id]
    for path in ("", "rover", "rover-7/fron", "rover-8/", "0f2c8a52-9f55-4b4e-9bb1-2f1f6a6f7b10"):
        with pytest.raises(NotFoundError):
            find(path)


def test_paths_are_of_the_caller_s_labels(manager: SessionManager, session_id: str) -> None:
    token = SCOPE.set((("vehicle", "rover-8"),))
    try:
        for path in ("rover-7/front", "rover-7", session_id):
            with pytest.raises(NotFoundError):
                manager.guests.sessions_at(path)
        with pytest.raises(NotFoundError):
            manager.guests.add(session_id, Place(HERE), 10)
    finally:
        SCOPE.reset(token)


def test_a_guest_can_leave_what_has_become_another_s(manager: SessionManager) -> None:
    """Else copies would go on to a port that may be somebody else's by then."""
    ours, theirs = {"site": "a"}, {"site": "b"}
    session_id = manager.create(SOURCE, 1, "video", labels=ours).session_id
    token = SCOPE.set((("site", "a"),))
    try:
        guest = manager.guests.add(session_id, Place(HERE), 60)
        SCOPE.reset(token)
        manager.update(session_id, labels=theirs)
        token = SCOPE.set((("site", "a"),))
        manager.guests.remove([guest])
        assert SCOPE.get() == (("site", "a"),)
    finally:
        SCOPE.reset(token)
    assert subscribers(manager, session_id) == []


def test_too_many_below_a_path(engine: Engine, clock: Clock) -> None:
    manager = manager_of(engine, clock)
    for ssrc in range(1, 34):
        manager.create(SOURCE, ssrc, "video", name=f"wall/{ssrc}")
    with pytest.raises(LimitError, match="33 sessions are below 'wall'"):
        manager.guests.sessions_at("wall")


def test_no_report_has_come(manager: SessionManager, session_id: str) -> None:
    guest = manager.guests.add(session_id, Place(HERE, rtcp=Rtcp.MUX), 10)
    assert manager.guests.reported_ns(guest) == 0
    manager.delete(session_id)
    assert manager.guests.reported_ns(guest) == 0
    with pytest.raises(RtpFanoutError):
        manager.guests.add(session_id, Place(HERE), 10)
