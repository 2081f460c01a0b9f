"""A hook: one thread that reads the log of events and posts what it finds there.

The log is its queue: it is bounded, and what is not kept any more when a receiver is back has been
dropped, which is counted, told in the log, and said in the next delivery. Nobody who tells an event
waits, or knows of it. A delivery is made again until it is taken, with growing pauses, and has the
same id and the same body each time.
"""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import structlog

from rtpfanout.hooks.post import Outcome, Poster
from rtpfanout.model import EventKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rtpfanout.hooks.signing import Secrets
    from rtpfanout.sessions import Event, EventLog, Wanted

MOST_EVENTS = 100
"""Of one delivery."""
PAUSE_SECONDS = 0.1
"""Between two deliveries, so that a burst makes few."""
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 60.0
"""After a failure; twice as long after each further one."""
TYPE = "rtpfanout.events"

_log = structlog.stdlib.get_logger(__name__)


class Delivery(NamedTuple):
    """What is posted, and up to which event it tells."""

    message_id: str
    body: bytes
    events: int
    dropped: int


class Hook:
    """`start` it, then `stop` it; again, if need be: it goes on where it was. `counts` are of
    deliveries that were "delivered", "failed" (each try) and "refused", and of events "sent" and
    "dropped".
    """

    def __init__(
        self,
        url: str,
        secrets: Secrets,
        log: EventLog,
        wanted: Wanted,
        server: str,
        wait: Callable[[int], float] | None = None,
    ) -> None:
        """`server` names us in each body. `wait`: seconds after so many failures."""
        self.counts = Counter(delivered=0, failed=0, refused=0, sent=0, dropped=0)
        self._poster = Poster(url)
        self._secrets = secrets
        self._events = log
        self._wanted = wanted
        self._server = server
        self._wait = wait or _wait_after
        self._position = 0
        self._dropped = 0
        """Since what was delivered last."""
        self._held: Delivery | None = None
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Events that have not been looked at yet, of whatever kind."""
        return self._events.position - self._position if self._position else 0

    def start(self) -> None:
        """From here on it posts."""
        self._stopping = threading.Event()  # of this thread alone
        self._events.listen(self._woken.set)
        self._thread = threading.Thread(
            target=self._run, args=(self._stopping,), name="rtpfanout-hook", daemon=True
        )
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """What there is still may leave within so many; a post under way ends then."""
        self._events.unlisten(self._woken.set)
        self._stopping.set()
        self._woken.set()
        if self._thread:
            self._thread.join(seconds)
            self._poster.cancel()
            self._thread.join(seconds)
            self._thread = None

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                self._work(stopping)
            except Exception:
                _log.exception("the hook failed")
                held, self._held = self._held, None
                if held:
                    self._drop(held.events, "it could not be posted")
                stopping.wait(LONGEST_WAIT_SECONDS)

    def _work(self, stopping: threading.Event) -> None:
        failures = 0
        while True:
            self._woken.clear()
            self._held = self._held or self._next()
            if self._held is None:
                if stopping.is_set():
                    return
                self._woken.wait()
                continue
            outcome = self._post(self._held)
            if not outcome.reason or outcome.is_refused:
                failures = self._settle(self._held, outcome, failures)
                stopping.wait(PAUSE_SECONDS)
                continue
            if stopping.is_set():
                return
            failures += 1
            self._fail(outcome, failures)
            if stopping.wait(max(outcome.wait_seconds, self._wait(failures))):
                return

    def _next(self) -> Delivery | None:
        """The events that come next, if any; what is not wanted is passed over."""
        while True:
            found, position, gap = self._events.after(self._position, MOST_EVENTS)
            if gap is not None:
                self._drop(gap.count, "the receiver took none for too long")
            self._position = position
            events = [event for each in found if (event := each.to(self._wanted)) is not None]
            if events:
                return self._delivery(events)
            if not found:
                return None

    def _delivery(self, events: Sequence[Event]) -> Delivery:
        body = {
            "type": TYPE,
            "timestamp": self._events.now().isoformat().replace("+00:00", "Z"),
            "server": self._server,
            "dropped": self._dropped,
            "events": [event.as_dict() for event in events if event.kind is not EventKind.GAP],
        }
        text = json.dumps(body, separators=(",", ":")).encode()
        return Delivery(f"evt_{uuid.uuid4().hex}", text, len(events), self._dropped)

    def _post(self, delivery: Delivery) -> Outcome:
        """With a time stamp of now: a receiver refuses old ones."""
        headers = self._secrets.headers(delivery.message_id, int(time.time()), delivery.body)
        return self._poster.post(delivery.body, headers)

    def _settle(self, delivery: Delivery, outcome: Outcome, failures: int) -> int:
        """It is done with; how many failures there are in a row."""
        self._held = None
        if outcome.is_refused:
            self.counts["refused"] += 1
            self._drop(delivery.events, outcome.reason)
            return failures
        self.counts["delivered"] += 1
        self.counts["sent"] += delivery.events
        self._dropped -= delivery.dropped
        if failures:
            _log.info("events are delivered again", host=self._poster.host, waiting=self.waiting)
        return 0

    def _fail(self, outcome: Outcome, failures: int) -> None:
        self.counts["failed"] += 1
        if failures == 1:
            _log.warning(
                "events are not delivered; it is tried again and again",
                host=self._poster.host,
                reason=outcome.reason,
                key="events.webhook",
            )

    def _drop(self, number: int, reason: str) -> None:
        self._dropped += number
        self.counts["dropped"] += number
        _log.warning("events dropped", host=self._poster.host, count=number, reason=reason)


def _wait_after(failures: int) -> float:
    """Seconds; spread, so that not all servers come back to a receiver at once."""
    full = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** min(failures - 1, 16))
    return full * random.uniform(0.5, 1.0)  # noqa: S311 - it only spreads load
