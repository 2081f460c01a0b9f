"""What a watch knows between two connections: where to go on, and when to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from rtpfanout.api import session_pb2
from rtpfanout.client.retry import RetryPolicy, asked_delay, is_passing
from rtpfanout.errors import RtpFanoutError, UnauthenticatedError, UnreachableError

if TYPE_CHECKING:
    from google.protobuf.message import Message

SILENCE_SECONDS = 30.0
"""A server says something every 10 s; one that doesn't for so long is given up."""

_Event = session_pb2.SessionEvent
_EventT = TypeVar("_EventT")


class StreamState(ABC, Generic[_EventT]):
    """The state of one watch over all its connections. Has no clock, no socket."""

    def __init__(self, heartbeats: bool, retries: RetryPolicy) -> None:
        self._heartbeats = heartbeats
        self._retries = retries
        self._met = False
        self._met_now = False  # on the connection that there is
        self._failures = 0

    def request(self) -> Message:
        """For the next connection."""
        self._met_now = False
        return self._request()

    @abstractmethod
    def _request(self) -> Message: ...

    def came(self, event: _EventT) -> bool:
        """Note an event; whether the caller is to see it."""
        self._met = self._met_now = True
        self._failures = 0
        return self._note(event) or self._heartbeats

    @abstractmethod
    def _note(self, event: _EventT) -> bool:
        """Whether it is more than a heartbeat."""

    def delay_after(self, error: RtpFanoutError | None, target: str) -> float:
        """Seconds until the next connection; `error` None: the last one just ended.

        Raises what no other connection would mend, and, before the first event, what
        the retry policy has no more attempts for.
        """
        # Who was let in and is put out has a token that is over: perhaps there is a new one.
        renewable = isinstance(error, UnauthenticatedError) and self._met_now
        if error is not None and not (is_passing(error) or renewable):
            raise error
        self._failures += 1
        if not self._met and self._failures >= self._retries.attempts:
            raise error or UnreachableError(f"the server at {target} ends each watch at once")
        return self._retries.delay(self._failures, asked_delay(error) if error else 0.0)


class WatchState(StreamState[_Event]):
    """Of WatchSessions. `revision` is of the last event after which the caller's view is whole.

    A snapshot that breaks off is begun anew.
    """

    def __init__(
        self, after_revision: int, label_selector: str, heartbeats: bool, retries: RetryPolicy
    ) -> None:
        super().__init__(heartbeats, retries)
        self.revision = after_revision
        self._label_selector = label_selector
        self._in_snapshot = False

    def _request(self) -> session_pb2.WatchSessionsRequest:
        after_revision = 0 if self._in_snapshot else self.revision
        self._in_snapshot = False
        return session_pb2.WatchSessionsRequest(
            after_revision=after_revision, label_selector=self._label_selector
        )

    def _note(self, event: _Event) -> bool:
        if event.type in (_Event.RESET, _Event.SNAPSHOT):
            self._in_snapshot = True
        elif event.type == _Event.SYNCED:
            self._in_snapshot = False
            self.revision = event.revision  # also 0: of a server that has forgotten all
        elif not self._in_snapshot and event.revision:
            self.revision = event.revision
        return event.type != _Event.HEARTBEAT


class EventState(StreamState[session_pb2.Event]):
    """Of WatchEvents. `sequence` is of the last event; None: nothing has been told yet."""

    def __init__(
        self, asked: session_pb2.WatchEventsRequest, heartbeats: bool, retries: RetryPolicy
    ) -> None:
        super().__init__(heartbeats, retries)
        self._asked = asked
        self.sequence: int | None = None

    def _request(self) -> session_pb2.WatchEventsRequest:
        request = session_pb2.WatchEventsRequest()
        request.CopyFrom(self._asked)
        if self.sequence is not None:
            request.after_sequence = self.sequence
            request.since = ""
        return request

    def _note(self, event: session_pb2.Event) -> bool:
        self.sequence = event.sequence
        return event.kind != "heartbeat"
