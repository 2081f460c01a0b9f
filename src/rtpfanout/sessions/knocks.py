"""Who knocks: what the packet path says of strangers, and which session each nearly had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.model import Condition, SourcePolicy

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from rtpfanout._fastpath import Engine
    from rtpfanout.model import Address, IPAddress
    from rtpfanout.sessions.clock import Clock
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.state import State

MOST_KNOCKS = 256


@dataclass(frozen=True, slots=True)
class Knock:
    """Packets of one SSRC and source that no session admits, or that come beside the SSRC which one
    follows; times are in UTC."""

    source: Address
    ssrc: int
    payload_type: int
    packets: int
    first_seen: datetime
    last_seen: datetime
    reason: str
    session_id: str = ""
    """The session that was nearly meant, and its name; empty: there is none."""
    session_name: str = ""
    from_feeder: bool = False
    """It comes from the very address and port that feed the session, beside what that follows."""


def knocks(state: State, engine: Engine, clock: Clock, limit: int) -> list[Knock]:
    """See SessionManager.knocks."""
    if limit < 0:
        raise InvalidArgumentError(f"{limit} is negative", field="limit")
    heard = engine.knocks()[: limit or MOST_KNOCKS]
    found = []
    with state.lock:
        sessions = _Sessions(state.in_order) if heard else None
        for source, ssrc, payload_type, reason, handle, packets, first, last, by_feeder in heard:
            assert sessions is not None
            meant = state.by_handle.get(handle) or sessions.nearly(source)
            found.append(
                Knock(
                    source=source,
                    ssrc=ssrc,
                    payload_type=payload_type,
                    packets=packets,
                    first_seen=clock.moment(clock.wall_ns(first)),
                    last_seen=clock.moment(clock.wall_ns(last)),
                    reason=reason,
                    session_id=meant.session_id if meant else "",
                    session_name=meant.name if meant else "",
                    from_feeder=by_feeder,
                )
            )
    return found


class _Sessions:
    """Those that somebody may have meant: no packets of theirs come, and the address that feeds
    them, or its IP, is his, or they wait for anybody. Who is fed is not to be moved to another.
    """

    def __init__(self, sessions: Iterable[Session]) -> None:
        self._by_address: dict[Address, Session] = {}
        self._by_ip: dict[IPAddress, Session] = {}
        self._waiting: list[Session] = []
        for session in sessions:
            if session.condition not in (Condition.NEVER_FED, Condition.SILENT):
                continue
            terms = session.terms
            feeder = terms.host or terms.feeder
            if feeder is not None:
                self._by_address.setdefault(feeder, session)
                known = self._by_ip.setdefault(feeder.ip, session)
                if known.condition is Condition.NEVER_FED and session.condition is Condition.SILENT:
                    self._by_ip[feeder.ip] = session  # one that was fed is likelier to have moved
            elif terms.source.policy is SourcePolicy.LATCH:
                self._waiting.append(session)

    def nearly(self, source: Address) -> Session | None:
        """The one for a packet from there."""
        if near := self._by_address.get(source) or self._by_ip.get(source.ip):
            return near
        return next((each for each in self._waiting if each.terms.source.admits(source)), None)
