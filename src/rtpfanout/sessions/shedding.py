"""Shedding carried out: which subscribers of a session get nothing while it has to drop packets."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from rtpfanout.model import SUBSCRIBER_CLASSES, EventKind, Withheld
from rtpfanout.overload import Load, SheddingPolicy, Standing, Step
from rtpfanout.sessions.names import which
from rtpfanout.sessions.state import Part

if TYPE_CHECKING:
    from rtpfanout.model import SubscriberClass
    from rtpfanout.overload import Sample

_Members = dict["SubscriberClass", list[bytes]]
_log = structlog.stdlib.get_logger(__name__)


@dataclass(eq=False)
class Shedding(Part):
    """Called by one thread, about once a second; each step waits for a grace period."""

    def __post_init__(self) -> None:
        self._policy = SheddingPolicy()
        self._dropped: dict[int, int] = {}
        self._dropped_in_all = 0
        self._forwarded: dict[int, int] = {}  # at the last step, if sessions were looked at then
        self._last_ns = self.clock.monotonic_ns()

    def step(self, sample: Sample) -> None:
        """Sheds where packets go on being dropped, brings back what there is room for again."""
        engine = self.engine
        in_all = engine.stats()["dropped_overload"]
        now_ns = self.clock.monotonic_ns()
        seconds = max(0.001, (now_ns - self._last_ns) / 1e9)
        self._last_ns = now_ns
        forwarded, self._forwarded = self._forwarded, {}
        if in_all == self._dropped_in_all and not self._policy.watched:
            return
        self._dropped_in_all = in_all
        stats = engine.all_session_stats(now_ns)
        for handle in self._policy.watched:
            if handle not in stats:
                self._policy.forget(handle)
        dropped = self._dropped
        self._dropped = {h: int(n) for h, of in stats.items() if (n := of["dropped_overload"])}
        self._forwarded = {h: int(of["packets_received"]) for h, of in stats.items()}
        self._policy.begin(Load(sample.busy, sample.work / sample.copies if sample.copies else 0.0))
        for handle, of in stats.items():
            fresh = self._dropped.get(handle, 0) - dropped.get(handle, 0)
            if fresh > 0 or handle in self._policy.watched:
                now, rate = self._forwarded[handle], of["packets_per_second"]
                passed = (now - forwarded[handle]) / seconds if handle in forwarded else rate
                self._step_of(handle, fresh, fresh / max(1.0, fresh + passed * seconds), passed)

    def release(self) -> None:
        """Brings all back that are shed: it is not wanted any more."""
        for handle in self._policy.watched:
            with contextlib.suppress(KeyError):  # deleted meanwhile
                sending, shed = self._members(handle)
                for kind, members in shed.items():
                    step = Step(shed=False, subscriber_class=kind, count=len(members))
                    self._carry_out(handle, step, sending, shed)
            self._policy.forget(handle)

    def _step_of(self, handle: int, dropped: int, share: float, per_second: float) -> None:
        try:
            sending, shed = self._members(handle)
            standing = Standing(
                dropped,
                share,
                per_second,
                {kind: len(members) for kind, members in sending.items()},
                {kind: len(members) for kind, members in shed.items()},
            )
            for step in self._policy.steps(handle, standing):
                self._carry_out(handle, step, sending, shed)
        except KeyError:  # deleted meanwhile
            self._policy.forget(handle)

    def _carry_out(self, handle: int, step: Step, sending: _Members, shed: _Members) -> None:
        """The newest go first, and come back last."""
        state = self.state
        kind = step.subscriber_class
        chosen = sending[kind][-step.count :] if step.shed else shed[kind][: step.count]
        self.engine.withhold(handle, b"".join(chosen), Withheld.SHED, step.shed)
        with state.lock:
            state.counts["shed" if step.shed else "unshed"] += len(chosen)
            session = state.by_handle.get(handle)
            if session is not None:
                state.touch(session)
                what = EventKind.SUBSCRIBER_SHED if step.shed else EventKind.SUBSCRIBER_BACK
                state.events.tell(what, session, records=chosen, detail=str(kind))
        _log.warning(
            "subscribers shed" if step.shed else "subscribers served again",
            **(which(session) if session else {}),
            subscriber_class=kind,
            count=len(chosen),
            left=len(sending[kind]) - len(chosen) if step.shed else None,
        )

    def _members(self, handle: int) -> tuple[_Members, _Members]:
        """Records by class, oldest first: those that get copies, and those that are shed."""
        sending: _Members = defaultdict(list)
        shed: _Members = defaultdict(list)
        rows = self.engine.subscribers(handle, 0, self.rules.limits.fanout)
        for address, _since, _sent, _failed, number, _lease, withheld, _report in rows:
            if withheld & Withheld.SHED:
                shed[SUBSCRIBER_CLASSES[number]].append(address.record)
            elif not withheld:
                sending[SUBSCRIBER_CLASSES[number]].append(address.record)
        return sending, shed
