"""An interface has another index now: link-local addresses follow it, with all that is theirs."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING

import pytest
from managers import SUBSCRIBER, Clock, manager_of

from rtpfanout._fastpath import Engine
from rtpfanout.model import Address
from rtpfanout.store import Store

if TYPE_CHECKING:
    from pathlib import Path

    from rtpfanout.sessions import SessionManager

LO, ANEW = 1, 4711
OURS = Address.parse("[2001:db8::5]:1").packed


def engine(sessions: int) -> Engine:
    return Engine(
        Address.parse("[::]:0"),
        max_sessions=sessions,
        max_subscribers=5,
        receive_queue_packets=64,
    )


def linked(engine: Engine, clock: Clock, store: Store, **limits: int) -> SessionManager:
    """With link-local addresses allowed."""
    manager = manager_of(engine, clock, store, **limits)
    rules = manager._rules
    allow = tuple(map(ipaddress.ip_network, ("fe80::/64", "127.0.0.0/8", "192.0.2.0/24")))
    manager.reconfigure(dataclasses.replace(rules.policy, allow=allow), rules.limits)
    return manager


def at(index: int, port: int) -> str:
    return f"[fe80::1%{index}]:{port}"


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


def test_a_subscriber_keeps_the_address_its_copies_leave_from(path: str, clock: Clock) -> None:
    joined = Address.parse(at(LO, 7))
    joined = Address.unpack(joined.packed, joined.port, joined.scope, OURS)
    with Store(path) as store:
        manager = linked(engine(2), clock, store)
        session_id = manager.create("192.0.2.1:5000", 1, "video").session_id
        manager.signals.join(session_id, joined, lease_secs=60, subscriber_class="pilot")
        assert manager.housekeeping.on_interfaces({"lo": ANEW}) == 1
        (view,) = manager.list_subscribers(session_id)[0]
        assert (str(view.address), view.subscriber_class) == (at(ANEW, 7), "pilot")
    with Store(path) as store:
        (kept,) = store.deliveries()
        assert (kept.record, kept.local) == (view.address.record, OURS)
        manager = linked(engine(2), clock, store)
        manager.restore()  # and so after a restart
        assert manager.housekeeping.on_interfaces({"lo": ANEW}) == 0


def test_a_session_that_is_refused_follows_its_interface(path: str, clock: Clock) -> None:
    with Store(path) as store:
        manager = linked(engine(2), clock, store)
        first = manager.create("192.0.2.1:5000", 1, "video").session_id
        second = manager.create(at(LO, 9), 2, "video").session_id
        manager.add_subscriber(second, at(LO, 7), ttl_secs=60)
        manager.add_subscriber(second, SUBSCRIBER, ttl_secs=60)
    with Store(path) as store:
        manager = linked(engine(1), clock, store, sessions=1)
        manager.restore_packets({"lo": LO})
        manager.restore()
        assert manager.refused == (1, 0)
        assert manager.housekeeping.on_interfaces({"lo": ANEW}) == 1
        assert manager.get(second).source_address == at(ANEW, 9)
        assert manager.housekeeping.on_interfaces({"lo": ANEW}) == 0
        manager.delete(first)
        manager.housekeeping.serve_again()
        assert manager.refused == (0, 0)
        assert manager.get(second).source == Address.parse(at(ANEW, 9))
        shown = {str(view.address) for view in manager.list_subscribers(second)[0]}
        assert shown == {at(ANEW, 7), SUBSCRIBER}
    with Store(path) as store:
        (row,) = store.sessions()
        assert row.source_text == at(ANEW, 9)
        assert len(store.subscribers_of(row.sequence)) == 2
