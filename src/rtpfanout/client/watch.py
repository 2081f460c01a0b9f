"""What a watch knows between two connections: where to go on, and when to."""

from __future__ import annotations

from rtpfanout.api import session_pb2
from rtpfanout.client.retry import RetryPolicy, asked_delay, is_passing
from rtpfanout.errors import RtpFanoutError, UnreachableError

SILENCE_SECONDS = 30.0
"""A server says something every 10 s; one that doesn't for so long is given up."""

_Event = session_pb2.SessionEvent


class WatchState:
    """The state of one WatchSessions over all its connections. Has no clock, no socket.

    `revision` is of the last event after which the caller's view is whole. A snapshot
    that breaks off is begun anew.
    """

    def __init__(
        self, after_revision: int, label_selector: str, heartbeats: bool, retries: RetryPolicy
    ) -> None:
        self.revision = after_revision
        self._label_selector = label_selector
        self._heartbeats = heartbeats
        self._retries = retries
        self._in_snapshot = False
        self._met = False
        self._failures = 0

    def request(self) -> session_pb2.WatchSessionsRequest:
        """For the next connection."""
        after_revision = 0 if self._in_snapshot else self.revision
        self._in_snapshot = False
        return session_pb2.WatchSessionsRequest(
            after_revision=after_revision, label_selector=self._label_selector
        )

    def came(self, event: session_pb2.SessionEvent) -> bool:
        """Note an event; whether the caller is to see it."""
        self._met = True
        self._failures = 0
        if event.type in (_Event.RESET, _Event.SNAPSHOT):
            self._in_snapshot = True
        elif event.type == _Event.SYNCED:
            self._in_snapshot = False
            self.revision = event.revision  # also 0: of a server that has forgotten all
        elif not self._in_snapshot and event.revision:
            self.revision = event.revision
        return self._heartbeats or event.type != _Event.HEARTBEAT

    def delay_after(self, error: RtpFanoutError | None, target: str) -> float:
        """Seconds until the next connection; `error` None: the last one just ended.

        Raises what no other connection would mend, and, before the first event, what
        the retry policy has no more attempts for.
        """
        if error is not None and not is_passing(error):
            raise error
        self._failures += 1
        if not self._met and self._failures >= self._retries.attempts:
            raise error or UnreachableError(f"the server at {target} ends each watch at once")
        return self._retries.delay(self._failures, asked_delay(error) if error else 0.0)
