"""The client whose calls block until they are answered."""

from __future__ import annotations

import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, Unpack, cast

import grpc

from rtpfanout.client import requests
from rtpfanout.client.base import BaseClient, BaseWatch, OfEvents, OfSessions
from rtpfanout.client.failures import of_stream, translated
from rtpfanout.client.paging import iter_items
from rtpfanout.client.requests import PAGE_SIZE, Call
from rtpfanout.client.watch import SILENCE_SECONDS
from rtpfanout.closing import Closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rtpfanout.api import session_pb2 as pb
    from rtpfanout.client.watch import StreamState

_T = TypeVar("_T")
_EventT = TypeVar("_EventT")


class SessionClient(BaseClient, Closing):
    """Calls one server. Safe to share between threads; close it, or use `with`.

    `target` is the server's gRPC address, "host:port" or "unix:/path"; `timeout` the
    seconds that one attempt may take, `overall_timeout` a call with all its retries
    (default: 20). `retries` says what of UNAVAILABLE is retried, NO_RETRIES nothing.
    `credentials`: TLS, a client certificate, a token; ConfigError if they cannot be read.
    Calls raise what they name, and UnreachableError, UnavailableError (nothing was
    changed; retries were in vain), UnauthenticatedError, PermissionDeniedError.
    """

    _grpc: ClassVar = grpc
    _event: ClassVar = threading.Event
    _closed: threading.Event

    def close(self) -> None:
        """End all calls and close the connection."""
        self._closed.set()
        self._channel.close()

    def create_session(
        self,
        source_address: str,
        ssrc: int,
        media_type: str,
        **options: Unpack[requests.CreateOptions],
    ) -> pb.SessionResponse:
        """Let `source_address` ("ip:port") feed SSRC `ssrc`, 0 to 2**32 - 1.

        Raises InvalidArgumentError, AlreadyExistsError, LimitError, UnimplementedError (a name of
        an older server's session).
        """
        call = requests.create_session(source_address, ssrc, media_type, options)
        return requests.named_as_asked(self._call(call), options)

    def ensure_session(
        self,
        source_address: str,
        ssrc: int,
        media_type: str,
        **options: Unpack[requests.TermOptions],
    ) -> pb.SessionResponse:
        """The session of this name, or of this source and SSRC; a new one where there is none.

        Raises AlreadyExistsError (with `session_id`: it is there with another `field`), and as
        create_session does.
        """
        return self.create_session(source_address, ssrc, media_type, if_exists="return", **options)

    def get_session(self, session_id: str) -> pb.SessionResponse:
        """Every `session_id` may be the session's name, too.

        Raises InvalidArgumentError (not a UUID, nor a name), NotFoundError, UnknownNameError.
        """
        return self._call(requests.get_session(session_id))

    def update_session(
        self, session_id: str, **changes: Unpack[requests.UpdateOptions]
    ) -> pb.SessionResponse:
        """Change what is given and nothing else, in one step; the session as it is then.

        Raises InvalidArgumentError, NotFoundError, AlreadyExistsError (the new source),
        AbortedError (`if_revision`), UnimplementedError (an older server).
        """
        return self._call(requests.update_session(session_id, changes))

    def delete_session(self, session_id: str, *, request_id: str | None = None) -> None:
        """Returns once no further packet of the session leaves. Raises NotFoundError."""
        self._call(requests.delete_session(session_id, request_id))

    def list_sessions(
        self, limit: int = 0, cursor: str = "", **options: Unpack[requests.ListOptions]
    ) -> pb.ListSessionsResponse:
        """One page, oldest first; limit 0 means the server's 100. Raises InvalidArgumentError."""
        return self._call(requests.list_sessions(limit, cursor, options))

    def iter_sessions(
        self, page_size: int = PAGE_SIZE, **options: Unpack[requests.ListOptions]
    ) -> Iterator[pb.SessionResponse]:
        """All sessions, oldest first, one request per page."""
        return iter_items(
            lambda cursor: self.list_sessions(page_size, cursor, **options),
            lambda page: page.sessions,
        )

    def top_sessions(
        self, limit: int = 0, **options: Unpack[requests.TopOptions]
    ) -> pb.TopSessionsResponse:
        """Sessions with figures of now, the first of an order: `order_by` "state", the worst first,
        "name", "bitrate", "loss", "jitter", "frame_rate" or "subscribers".

        Raises InvalidArgumentError, UnimplementedError (an older server).
        """
        return self._call(requests.top_sessions(limit, options))

    def watch_sessions(
        self, after_revision: int = 0, *, label_selector: str = "", heartbeats: bool = False
    ) -> SessionWatch:
        """A snapshot of the sessions, then every change; see SessionWatch.

        `after_revision`: only changes after that one, if the server still knows them.
        """
        state = self._watch_state(after_revision, label_selector, heartbeats)
        return SessionWatch(self._begin_watch, state, self.target, self._closed)

    def watch_events(
        self,
        after_sequence: int | None = None,
        *,
        heartbeats: bool = False,
        **options: Unpack[requests.EventOptions],
    ) -> EventWatch:
        """What happens from now on, an event each; see EventWatch.

        `after_sequence`: what happened after that one, too, as far as it is kept; 0: all that is.
        Of `heartbeats` the first comes when all of that has been told.
        """
        state = self._event_state(after_sequence, heartbeats, options)
        return EventWatch(self._begin_events, state, self.target, self._closed)

    def add_subscriber(
        self,
        session_id: str,
        subscriber_address: str,
        **options: Unpack[requests.SubscribeOptions],
    ) -> None:
        """Copy the session to "ip:port" too; again is no error, and sets its options anew.

        Raises InvalidArgumentError, NotFoundError, PermissionDeniedError, LimitError.
        """
        self._call(requests.add_subscriber(session_id, subscriber_address, options))

    def remove_subscriber(
        self, session_id: str, subscriber_address: str, *, request_id: str | None = None
    ) -> None:
        """Returns once no further packet leaves to "ip:port". Raises NotFoundError."""
        self._call(requests.remove_subscriber(session_id, subscriber_address, request_id))

    def add_subscribers(
        self,
        session_id: str,
        subscriber_addresses: Sequence[str],
        **options: Unpack[requests.SubscribeOptions],
    ) -> pb.BatchAddSubscribersResponse:
        """Copy the session to 1 to BATCH_SIZE addresses too: to all of them, or to none.

        The error's `violations` name each address at fault, as ``subscriber_addresses[17]``.
        Raises what add_subscriber does, and UnimplementedError (an older server).
        """
        return self._call(requests.add_subscribers(session_id, subscriber_addresses, options))

    def remove_subscribers(
        self, session_id: str, subscriber_addresses: Sequence[str], *, request_id: str | None = None
    ) -> pb.BatchRemoveSubscribersResponse:
        """Returns once no further packet leaves to any of 1 to BATCH_SIZE addresses.

        The response names those that were no subscribers. Raises InvalidArgumentError,
        NotFoundError (no such session), UnimplementedError (an older server).
        """
        return self._call(requests.remove_subscribers(session_id, subscriber_addresses, request_id))

    def get_subscriber_sdp(
        self,
        session_id: str,
        subscriber_address: str,
        *,
        wait_secs: float = 0.0,
        others: Sequence[tuple[str, str]] = (),
    ) -> pb.GetSubscriberSdpResponse:
        """What a player needs to open what "ip:port" is sent, as SDP, and what it lacks.

        `wait_secs`: for packets that tell what is missing, 60 at most. `others`: further
        sessions of the same description, each with its address. Raises InvalidArgumentError,
        NotFoundError, NotKnownError, UnimplementedError (an older server).
        """
        return self._patient(wait_secs)._call(
            requests.get_subscriber_sdp(session_id, subscriber_address, wait_secs, others)
        )

    def list_subscribers(
        self, session_id: str, limit: int = 0, cursor: str = ""
    ) -> pb.ListSubscribersResponse:
        """One page, oldest first; limit 0 means the server's 100.

        Raises InvalidArgumentError, NotFoundError, UnimplementedError (an older server).
        """
        return self._call(requests.list_subscribers(session_id, limit, cursor))

    def iter_subscribers(
        self, session_id: str, page_size: int = PAGE_SIZE
    ) -> Iterator[pb.SubscriberResponse]:
        """All subscribers of a session, oldest first, one request per page."""
        return iter_items(
            lambda cursor: self.list_subscribers(session_id, page_size, cursor),
            lambda page: page.subscribers,
        )

    def get_session_stats(self, session_id: str) -> pb.SessionStatsResponse:
        """The session's counters: `packets_received` are those that were admitted, ``dropped_*``
        what came and was not. Raises InvalidArgumentError, NotFoundError.
        """
        return self._call(requests.get_session_stats(session_id))

    def list_knocks(self, limit: int = 0) -> Sequence[pb.Knock]:
        """Who sends RTP that no session admits, the latest first; 0: all that are kept, 256.

        Raises InvalidArgumentError, PermissionDeniedError (an identity that is confined to
        labels), UnimplementedError (an older server).
        """
        return self._call(requests.list_knocks(limit)).knocks

    def issue_join_token(
        self,
        session_id: str,
        **options: Unpack[requests.TokenOptions],
    ) -> pb.JoinTokenResponse:
        """A token with which a receiver joins by datagram: a secret, good for a time.

        Raises InvalidArgumentError, NotFoundError, UnimplementedError (an older server).
        """
        return self._call(requests.issue_join_token(session_id, options))

    def request_keyframe(self, session_id: str) -> None:
        """Ask the session's source for a keyframe, with its next packet.

        Raises InvalidArgumentError, NotFoundError, PreconditionError (its packets may come from
        more than one address), UnimplementedError (an older server).
        """
        self._call(requests.request_keyframe(session_id))

    def _call(self, call: Call[_T]) -> _T:
        attempts = self._attempts(call)
        while True:
            try:
                return cast("_T", self._begin(call, attempts.timeout()))
            except grpc.RpcError as error:
                failure = translated(error, self.target)
            delay = attempts.delay_after(failure)
            if delay is None or self._closed.wait(delay):
                raise failure


class _Watch(BaseWatch, Closing, Generic[_EventT]):
    def __init__(
        self,
        method: Callable[..., Any],
        state: StreamState[_EventT],
        target: str,
        client_closed: Any,
    ) -> None:
        super().__init__(method, state, target, client_closed)
        self._waiting_since: float | None = None
        self._closed = threading.Event()
        self._guard: threading.Thread | None = None

    def close(self) -> None:
        """End the iteration, now."""
        self._closed.set()
        stream = self._stream
        if stream is not None:
            stream.cancel()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _EventT:
        while not (self._closed.is_set() or self._client_closed.is_set()):
            failure = None
            try:
                stream = self._connected()
                self._waiting_since = time.monotonic()
                event: _EventT = next(stream)
            except StopIteration:
                pass  # the server is about to go, or lets no connection grow old
            except grpc.RpcError as error:
                failure = of_stream(error, self._target)
            else:
                self._waiting_since = None
                if self._state.came(event):
                    return event
                continue
            self._stream = self._waiting_since = None
            if not (self._closed.is_set() or self._client_closed.is_set()):
                self._closed.wait(self._state.delay_after(failure, self._target))
        self._closed.set()
        raise StopIteration

    def _connected(self) -> Any:
        if self._stream is None:
            self._stream = self._method(self._state.request())
            if self._guard is None:
                arguments = (weakref.ref(self), self._closed)
                self._guard = threading.Thread(target=_guard, args=arguments, daemon=True)
                self._guard.start()
            if self._closed.is_set():
                self._stream.cancel()
        return self._stream


class SessionWatch(OfSessions, _Watch["pb.SessionEvent"]):
    """The events of WatchSessions, one after the other, over any number of connections.

    Iterating connects, and when the connection is lost connects again and goes on after
    the last event, for ever; a server that cannot be reached at first, or refuses, raises
    as any call does. RESET, SNAPSHOT and SYNCED come as session.proto says: SessionMirror
    deals with them. Iterate in one thread; `close` from any.
    """


class EventWatch(OfEvents, _Watch["pb.Event"]):
    """The events of WatchEvents in the same way. What was missed comes as an event of kind "gap":
    `count` of them, 0 where nobody can tell, as after a restart of the server.
    """


def _guard(watch: weakref.ref[_Watch[Any]], closed: threading.Event) -> None:
    """Give up a connection on which nothing comes for SILENCE_SECONDS while somebody waits."""
    while not closed.wait(SILENCE_SECONDS / 10):
        watched = watch()
        if watched is None:
            return
        stream, since = watched._stream, watched._waiting_since
        silent = since is not None and time.monotonic() - since > SILENCE_SECONDS
        if silent and stream is not None:
            stream.cancel()
        del watched, stream
