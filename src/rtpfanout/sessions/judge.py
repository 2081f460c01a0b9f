"""Which subscribers today's configuration refuses.

They stay in the engine with the bit REFUSED, so their leases run on and whatever asks for them
finds them. They are looked at again when what refused them may have changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from rtpfanout.model import EventKind, Withheld
from rtpfanout.sessions.admission import split_records
from rtpfanout.sessions.names import which
from rtpfanout.sessions.state import Part

if TYPE_CHECKING:
    from rtpfanout.sessions.record import Session

_log = structlog.stdlib.get_logger(__name__)
_MOST_TOLD = 20
"""Sessions that have a line in the log each, of those that one change concerns."""


class Judge(Part):
    """Which subscribers are refused, when that may have changed. Any thread may use it."""

    def all(self, *, only_refused: bool = False) -> tuple[int, int]:
        """How many are refused now, and how many aren't any more; about 0.4 us for each there is.

        When it returns no more packets leave to those that are refused.
        """
        state = self.state
        with state.lock:
            sessions = [s for s in state.in_order if s.refused or not only_refused]
        return self.some(sessions)

    def some(self, sessions: Sequence[Session]) -> tuple[int, int]:
        """The same of these."""
        withheld = served = told = 0
        for session in sessions:
            try:
                on, off, reason = self._one(session)
            except KeyError:  # deleted meanwhile
                continue
            withheld += on
            served += off
            if (on or off) and told < _MOST_TOLD:
                told += 1
                self._tell(session, on, off, reason)
        if told == _MOST_TOLD:
            _log.warning(
                "subscribers are refused, or not any more, in many sessions",
                withheld=withheld,
                served_again=served,
            )
        self.state.count("refused", withheld)
        self.state.count("readmitted", served)
        return withheld, served

    def _one(self, session: Session) -> tuple[int, int, str]:
        state = self.state
        engine, handle = self.engine, session.handle
        records = engine.subscriber_records(handle)
        left, reason = self.rules.admission.divide(records)
        before = engine.withheld_records(handle, Withheld.REFUSED) if session.refused else b""
        if not reason and not before:
            return 0, 0, ""
        feeder = session.terms.feeder
        denied = set() if not reason else set(split_records(records)) - set(split_records(left))
        denied -= state.relays.keys()
        if feeder is not None and feeder.record in split_records(before):
            denied.add(feeder.record)
        known = split_records(before)
        on = sorted(denied.difference(known))
        if on:
            # Waits for a grace period.
            engine.withhold(handle, b"".join(on), Withheld.REFUSED, True)
        with state.lock:
            state.recount_refused(session)
            off = [record for record in known if record not in denied]
            off = off[: state.room_to_serve(session, self.rules.limits)]
            if off:
                engine.withhold(handle, b"".join(off), Withheld.REFUSED, False)
                state.recount_refused(session)
            if on or off:
                state.touch(session)
            if on:
                state.events.tell(EventKind.SUBSCRIBER_REFUSED, session, records=on, detail=reason)
            if off:
                state.events.tell(EventKind.SUBSCRIBER_BACK, session, records=off)
        return len(on), len(off), reason

    def _tell(self, session: Session, on: int, off: int, reason: str) -> None:
        if on:
            _log.warning(
                "subscribers withheld: they are refused now, and kept",
                **which(session),
                count=on,
                first_reason=reason,
            )
        if off:
            _log.info(
                "subscribers served again: they are not refused any more",
                **which(session),
                count=off,
            )
