"""Do copies get to those who are asked about? What the sessions know of that, for `reach`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import ACTIVE_WINDOW_NS, Consent
from rtpfanout.reach import Asked, Reach
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.views import SubscriberState, SubscriberView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.model import IPAddress
    from rtpfanout.sessions.record import Session


@dataclass(eq=False, slots=True)
class Reaching(Part):
    """`reach` is None while nobody listens and looks; `source`: where copies leave from, if set."""

    reach: Reach | None = None
    source: IPAddress | None = None

    def of(self, session_id: str, views: Sequence[SubscriberView]) -> list[SubscriberView]:
        """The same subscribers with what is known of their reach; of a session that is gone as they
        were. Asks the kernel, so it is no business of an event loop."""
        reach, clock = self.reach, self.clock
        served = [view for view in views if view.state is not SubscriberState.REFUSED]
        if reach is None or not served:
            return list(views)
        try:
            with self.state.found(session_id) as session:
                asked = self._asked(session, served)
        except RtpFanoutError:
            return list(views)
        found = dict(zip((view.address for view in served), reach.of(asked), strict=True))
        now = clock.wall_ns()
        told = []
        for view in views:
            reached = found.get(view.address)
            if reached is None:
                told.append(view)
                continue
            since = reached.since_secs
            moment = None if since is None else clock.moment(now - round(since * 1e9))
            told.append(
                replace(
                    view,
                    reach=reached.state,
                    reach_detail=reached.detail,
                    reach_since=moment and max(moment, view.since),
                )
            )
        return told

    def _asked(self, session: Session, views: Sequence[SubscriberView]) -> list[Asked]:
        now = self.clock.monotonic_ns()
        last = int(self.engine.session_stats(session.handle, now)["last_packet_ns"])
        idle_ns = max(0, now - last)
        flows = last > 0 and idle_ns <= ACTIVE_WINDOW_NS
        has_to_echo = session.terms.consent is Consent.ECHO
        return [
            Asked(
                address=view.address,
                source=self.source,
                report_secs=view.report.age_seconds if view.report else None,
                echoes=has_to_echo and view.state is SubscriberState.SENDING,
                idle_secs=idle_ns / 1e9,
                is_taken=flows and view.packets_sent > 0 and view.send_failures == 0,
            )
            for view in views
        ]
