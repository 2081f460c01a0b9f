"""What both clients are made of: the channel to one server, and how calls go over it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from rtpfanout.api import session_pb2_grpc
from rtpfanout.client.credentials import Bearer
from rtpfanout.client.requests import watch_events
from rtpfanout.client.retry import Attempts, RetryPolicy
from rtpfanout.client.watch import EventState, StreamState, WatchState

if TYPE_CHECKING:
    from rtpfanout.api import session_pb2
    from rtpfanout.client.credentials import Credentials
    from rtpfanout.client.requests import Call


OPTIONS: tuple[tuple[str, int], ...] = (
    # The control API is reached directly: a proxy from the environment would be asked
    # for 127.0.0.1 too.
    ("grpc.enable_http_proxy", 0),
    # A server that restarts is found again as soon as it is there, not a second or,
    # after some tries, two minutes later (gRPC's defaults).
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A page of 1000 sessions with all their labels.
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Manner:
    """How calls are made: seconds for an attempt, for a call with its retries; and those."""

    timeout: float
    overall_timeout: float
    retries: RetryPolicy

    def within(self, seconds: float) -> Manner:
        """The same, but a call ends in `seconds`, retries and all."""
        timeout = min(self.timeout, seconds)
        return dataclasses.replace(self, timeout=timeout, overall_timeout=seconds)

    def longer(self, seconds: float) -> Manner:
        """The same for a call that the server may take so much longer to answer."""
        return dataclasses.replace(
            self, timeout=self.timeout + seconds, overall_timeout=self.overall_timeout + seconds
        )


class BaseClient:
    """Opens a channel of its kind; waiting for answers is up to the kind."""

    _grpc: ClassVar[Any]
    """The module that opens channels: grpc, or grpc.aio."""
    _event: ClassVar[type[Any]]
    """What makes an event that tells of the end."""
    _closed: Any

    def __init__(
        self,
        target: str,
        *,
        timeout: float = 5.0,
        overall_timeout: float | None = None,
        retries: RetryPolicy | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.target = target
        overall = overall_timeout or max(20.0, timeout)
        self._manner = Manner(timeout, overall, retries or RetryPolicy())
        self._closed = self._event()
        self._bearer = Bearer(credentials)
        tls = credentials.for_channel() if credentials else None
        self._channel: Any = (
            self._grpc.insecure_channel(target, options=OPTIONS)
            if tls is None
            else self._grpc.secure_channel(target, tls, options=OPTIONS)
        )
        self._stub: Any = session_pb2_grpc.SessionServiceStub(self._channel)  # type: ignore[no-untyped-call]

    @property
    def timeout(self) -> float:
        """Seconds that one attempt may take."""
        return self._manner.timeout

    def within(self, seconds: float) -> Self:
        """This client over the same connection, with calls that end in `seconds`, retries
        and all: ``client.within(0.5).get_session(id_)``."""
        other = copy.copy(self)
        other._manner = self._manner.within(seconds)
        return other

    def _patient(self, seconds: float) -> Self:
        """For a call that the server may take so much longer to answer."""
        other = copy.copy(self)
        other._manner = self._manner.longer(seconds)
        return other

    def _attempts(self, call: Call[Any]) -> Attempts:
        how = self._manner
        return Attempts(how.retries, call.repeatable, how.timeout, how.overall_timeout)

    def _begin(self, call: Call[Any], timeout: float) -> Any:
        """One attempt of at most `timeout` seconds: the answer, or what is awaited for it."""
        method = getattr(self._stub, call.method)
        return method(call.request, timeout=timeout, metadata=self._bearer.metadata())

    def _begin_watch(self, request: session_pb2.WatchSessionsRequest) -> Any:
        return self._stub.WatchSessions(request, metadata=self._bearer.metadata())

    def _watch_state(
        self, after_revision: int, label_selector: str, heartbeats: bool
    ) -> WatchState:
        return WatchState(after_revision, label_selector, heartbeats, self._manner.retries)

    def _begin_events(self, request: session_pb2.WatchEventsRequest) -> Any:
        return self._stub.WatchEvents(request, metadata=self._bearer.metadata())

    def _event_state(
        self, after_sequence: int | None, heartbeats: bool, options: Mapping[str, Any]
    ) -> EventState:
        given = {} if after_sequence is None else {"after_sequence": after_sequence}
        request = watch_events({**given, **options})
        return EventState(request, heartbeats, self._manner.retries)


class BaseWatch:
    """One watch over any number of connections; its kind waits for the events."""

    def __init__(
        self, method: Callable[..., Any], state: StreamState[Any], target: str, client_closed: Any
    ) -> None:
        """`method` begins a stream; `client_closed` is the client's event of its end."""
        self._method = method
        self._state: Any = state
        self._target = target
        self._client_closed = client_closed
        self._stream: Any = None


class OfSessions:
    """A watch of what WatchSessions tells."""

    _state: Any

    @property
    def revision(self) -> int:
        """What a later `watch_sessions(after_revision)` goes on from."""
        return int(self._state.revision)


class OfEvents:
    """A watch of what WatchEvents tells."""

    _state: Any

    @property
    def sequence(self) -> int | None:
        """What a later `watch_events(after_sequence)` goes on from; None: nothing came yet."""
        sequence: int | None = self._state.sequence
        return sequence
