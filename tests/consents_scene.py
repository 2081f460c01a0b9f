"""A session that asks for consent, its manager begun anew, and what the store has of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from managers import SOURCE, Clock, deny, engine_of, manager_of

from rtpfanout.model import Address
from rtpfanout.sessions.views import SubscriberState
from rtpfanout.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.sessions import SessionManager

SENDING, AWAITING = SubscriberState.SENDING, SubscriberState.AWAITING_CONSENT


@contextmanager
def started(path: str, clock: Clock, *, denied: str = "") -> Iterator[SessionManager]:
    """A manager with what the store has; it ends as a killed one does, keeping nothing more."""
    with Store(path) as store, engine_of(fanout=9) as engine:
        manager = manager_of(engine, clock, store, fanout=9)
        if denied:
            deny(manager, denied)
        manager.restore()
        yield manager


def states(manager: SessionManager) -> dict[str, SubscriberState]:
    """By address, of the only session."""
    (view,) = manager.list_page()[0]
    return {str(v.address): v.state for v in manager.list_subscribers(view.session_id)[0]}


def give(manager: SessionManager, session_id: str, address: str, clock: Clock, secs: float) -> None:
    manager.signals.consent_given(session_id, Address.parse(address), clock.now / 1e9 + secs)


def asking(manager: SessionManager, *addresses: str, ttl_secs: float = 0.0) -> str:
    """A session that asks these for their consent."""
    session_id = manager.create(SOURCE, 1, "video", consent="echo").session_id
    for address in addresses:
        manager.add_subscriber(session_id, address, ttl_secs=ttl_secs)
    return session_id
