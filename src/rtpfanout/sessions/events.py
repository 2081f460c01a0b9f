"""The log of events: a line for each thing that somebody on call wants to hear of.

Whatever changes something tells it here, by `EventLog.tell`, once it has happened. Events are
numbered and the last KEPT of them are read by `watch_events` (in `event_watch`). They are about
what happened, where the log of `changes` is about how sessions are now: subscribers are here one by
one, or as one event for each batch.

The numbers of a server's run are consecutive. They begin with its start in microseconds since 1970,
so those of a later run are greater, and who goes on from a number is told what was missed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from rtpfanout import __version__
from rtpfanout.errors import InvalidArgumentError
from rtpfanout.model import EventKind, shown
from rtpfanout.sessions.admission import address_of
from rtpfanout.sessions.fields import label_selector_of, matches, session_of
from rtpfanout.sessions.listened import Listened

if TYPE_CHECKING:
    from datetime import datetime

    from rtpfanout.model import Pairs
    from rtpfanout.sessions.clock import Clock

KEPT = 16_384
_AT_A_TIME = 256
_NO_LABELS: Mapping[str, str] = {}


class Named(Protocol):
    """A session, as whoever tells has it: a record, a view."""

    @property
    def session_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, str]: ...


class Seen(NamedTuple):
    """A session's name and labels, by which it is decided who may see an event."""

    name: str
    labels: Mapping[str, str]


class Wanted(NamedTuple):
    """Which events somebody is shown. By default all.

    Those of the server itself are shown to who has no `selector`, so to nobody who is confined.
    """

    selector: Pairs = ()
    session: str = ""
    """Of the session with this id, or that had this name when it happened."""
    kinds: frozenset[EventKind] = frozenset()
    """Empty: all."""

    @classmethod
    def of(cls, label_selector: str, session: str, kinds: Sequence[str]) -> Wanted:
        """Of WatchEventsRequest. Raises InvalidArgumentError."""
        try:
            found = frozenset(map(EventKind, kinds))
        except ValueError:
            unknown = next(kind for kind in kinds if kind not in set(EventKind))
            raise InvalidArgumentError(
                f"{shown(unknown)} is no kind of event; there are {', '.join(EventKind)}",
                field="kinds",
            ) from None
        try:
            named = session_of(session) if session else ""
        except InvalidArgumentError as error:
            raise InvalidArgumentError(error.message, field="session") from None
        return cls(label_selector_of(label_selector), named, found)

    def takes(self, kind: EventKind) -> bool:
        """Whether events of this kind are asked for; a gap and a heartbeat are always told."""
        always = (EventKind.GAP, EventKind.HEARTBEAT)
        return not self.kinds or kind in self.kinds or kind in always


class Event(NamedTuple):
    """One line. `time` is in UTC; without a `session_id` it is about the server itself."""

    sequence: int
    kind: EventKind
    time: datetime
    session_id: str = ""
    name: str = ""
    labels: Mapping[str, str] = _NO_LABELS
    record: bytes = b""
    """The subscriber it is about, if it is about one."""
    count: int = 1  # type: ignore[assignment]
    """How many subscribers it is about; how often it happened; of GAP, how many events are not
    known, 0: nobody can tell."""
    detail: str = ""
    """For people."""
    before: Seen | None = None
    """Where labels changed: how those knew the session for whom it is gone now."""

    @property
    def subscriber_address(self) -> str:
        """Empty: it is about no subscriber, or about several."""
        return str(address_of(self.record)) if self.record else ""

    def to(self, wanted: Wanted) -> Event | None:
        """As it is shown to one who asked for that; None: not at all."""
        event = self._in(wanted.selector)
        if event is None or not wanted.takes(event.kind):
            return None
        if wanted.session and wanted.session not in (event.session_id, event.name):
            return None
        return event

    def _in(self, selector: Pairs) -> Event | None:
        """What of it is seen by one for whom only the sessions with these labels exist."""
        if not selector:
            return self
        if not self.session_id:
            return None
        after = matches(self.labels, selector)
        if self.before is None or after is matches(self.before.labels, selector):
            return self if after else None
        if after:
            return self._replace(kind=EventKind.CREATED, detail="")
        name, labels = self.before
        return self._replace(kind=EventKind.DELETED, name=name, labels=labels, detail="")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, by the names of Event in session.proto."""
        return {
            "sequence": self.sequence,
            "kind": str(self.kind),
            "time": self.time.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "session_id": self.session_id,
            "session_name": self.name,
            "labels": dict(self.labels),
            "subscriber_address": self.subscriber_address,
            "count": self.count,
            "detail": self.detail,
        }


class Reading(NamedTuple):
    """What comes after a position; the next one."""

    events: Sequence[Event]
    position: int
    gap: Event | None
    """Tells what was missed before the first of `events`."""


class EventLog(Listened):
    """The last events. Thread-safe; what is told here is held for moments only."""

    def __init__(self, clock: Clock, kept: int = KEPT) -> None:
        super().__init__()
        self._clock = clock
        self._entries: deque[Event] = deque(maxlen=kept)
        now = self.now()
        self._began = self._lost = now
        self._first = self._next = int(now.timestamp() * 1e6)
        self.tell(EventKind.STARTED, detail=f"rtpfanout {__version__}")

    @property
    def position(self) -> int:
        """After the last event; from here on only what is new is read."""
        return self._next - 1

    def tell(
        self,
        kind: EventKind,
        session: Named | None = None,
        *,
        records: Sequence[bytes] = (),
        count: int = 1,
        detail: str = "",
        before: Seen | None = None,
    ) -> None:
        """It has happened, to this session or the server. `records` are the subscribers, if it
        is about some; about none of several it is nothing. Waits for nobody.
        """
        now = self.now()
        of = ("", "", _NO_LABELS)
        if session is not None:
            of = session.session_id, session.name, session.labels
        record = records[0] if len(records) == 1 else b""
        with self._lock:
            event = Event(self._next, kind, now, *of, record, len(records) or count, detail, before)
            self._next += 1
            if len(self._entries) == self._entries.maxlen:
                self._lost = self._entries[0].time
            self._entries.append(event)
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def since(self, moment: datetime) -> int:
        """The position before the first event from `moment` on."""
        with self._lock:
            if moment < self._began:
                return -1
            if moment <= self._lost:
                return self._first - 1
            later = (each.sequence for each in self._entries if each.time >= moment)
            return next(later, self._next) - 1

    def all(self) -> Sequence[Event]:
        """Those that are kept, the oldest first; there is one at least."""
        with self._lock:
            return tuple(self._entries)

    def after(self, position: int, limit: int = _AT_A_TIME) -> Reading:
        """Up to `limit` events after `position`; 0: all that are kept.

        A position of another run of the server is read as the beginning of this one.
        """
        with self._lock:
            is_other = position != 0 and not self._first - 1 <= position < self._next
            oldest = self._entries[0].sequence
            start = self._first - 1 if is_other or position == 0 else position
            missed = max(0, oldest - 1 - start)
            low = bisect_right(self._entries, start, key=attrgetter("sequence"))
            found = [self._entries[i] for i in range(low, min(low + limit, len(self._entries)))]
            last = found[-1].sequence if found else self.position
        gap = self._gap(oldest, missed, is_other=is_other) if is_other or missed else None
        return Reading(found, last, gap)

    def _gap(self, oldest: int, missed: int, *, is_other: bool) -> Event:
        if is_other:
            began = self._began.isoformat(timespec="seconds").replace("+00:00", "Z")
            detail = f"the server began anew at {began}; what happened before is not known"
            return Event(oldest - 1, EventKind.GAP, self.now(), count=0, detail=detail)
        detail = f"{missed} events, of whatever session, are not kept any more"
        return Event(oldest - 1, EventKind.GAP, self.now(), count=missed, detail=detail)

    def now(self) -> datetime:
        """In UTC."""
        return self._clock.now()
