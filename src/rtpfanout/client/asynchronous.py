"""The same client for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Generic, Self, TypeVar, Unpack

import grpc
import grpc.aio

from rtpfanout.client import requests
from rtpfanout.client.base import BaseClient, BaseWatch, OfEvents, OfSessions
from rtpfanout.client.failures import of_stream, translated
from rtpfanout.client.paging import aiter_items
from rtpfanout.client.requests import PAGE_SIZE, Call
from rtpfanout.client.watch import SILENCE_SECONDS
from rtpfanout.closing import AsyncClosing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rtpfanout.api import session_pb2 as pb

_T = TypeVar("_T")
_EventT = TypeVar("_EventT")


class AsyncSessionClient(BaseClient, AsyncClosing):
    """SessionClient for asyncio: the same calls as coroutines, with the same meaning.

    Belongs to the event loop that it is made in; close it, or use `async with`.
    """

    _grpc: ClassVar = grpc.aio
    _event: ClassVar = asyncio.Event
    _closed: asyncio.Event

    async def close(self) -> None:
        """End all calls and close the connection."""
        self._closed.set()
        await self._channel.close()

    async def create_session(
        self,
        source_address: str,
        ssrc: int,
        media_type: str,
        **options: Unpack[requests.CreateOptions],
    ) -> pb.SessionResponse:
        """As SessionClient.create_session."""
        call = requests.create_session(source_address, ssrc, media_type, options)
        return requests.named_as_asked(await self._call(call), options)

    async def ensure_session(
        self,
        source_address: str,
        ssrc: int,
        media_type: str,
        **options: Unpack[requests.TermOptions],
    ) -> pb.SessionResponse:
        """As SessionClient.ensure_session."""
        return await self.create_session(
            source_address, ssrc, media_type, if_exists="return", **options
        )

    async def get_session(self, session_id: str) -> pb.SessionResponse:
        """As SessionClient.get_session."""
        return await self._call(requests.get_session(session_id))

    async def update_session(
        self, session_id: str, **changes: Unpack[requests.UpdateOptions]
    ) -> pb.SessionResponse:
        """As SessionClient.update_session."""
        return await self._call(requests.update_session(session_id, changes))

    async def delete_session(self, session_id: str, *, request_id: str | None = None) -> None:
        """As SessionClient.delete_session."""
        await self._call(requests.delete_session(session_id, request_id))

    async def list_sessions(
        self, limit: int = 0, cursor: str = "", **options: Unpack[requests.ListOptions]
    ) -> pb.ListSessionsResponse:
        """As SessionClient.list_sessions."""
        return await self._call(requests.list_sessions(limit, cursor, options))

    def iter_sessions(
        self, page_size: int = PAGE_SIZE, **options: Unpack[requests.ListOptions]
    ) -> AsyncIterator[pb.SessionResponse]:
        """As SessionClient.iter_sessions."""
        return aiter_items(
            lambda cursor: self.list_sessions(page_size, cursor, **options),
            lambda page: page.sessions,
        )

    async def top_sessions(
        self, limit: int = 0, **options: Unpack[requests.TopOptions]
    ) -> pb.TopSessionsResponse:
        """As SessionClient.top_sessions."""
        return await self._call(requests.top_sessions(limit, options))

    def watch_sessions(
        self, after_revision: int = 0, *, label_selector: str = "", heartbeats: bool = False
    ) -> AsyncSessionWatch:
        """As SessionClient.watch_sessions: ``async for event in client.watch_sessions()``."""
        state = self._watch_state(after_revision, label_selector, heartbeats)
        return AsyncSessionWatch(self._begin_watch, state, self.target, self._closed)

    def watch_events(
        self,
        after_sequence: int | None = None,
        *,
        heartbeats: bool = False,
        **options: Unpack[requests.EventOptions],
    ) -> AsyncEventWatch:
        """As SessionClient.watch_events."""
        state = self._event_state(after_sequence, heartbeats, options)
        return AsyncEventWatch(self._begin_events, state, self.target, self._closed)

    async def add_subscriber(
        self,
        session_id: str,
        subscriber_address: str,
        **options: Unpack[requests.SubscribeOptions],
    ) -> None:
        """As SessionClient.add_subscriber."""
        await self._call(requests.add_subscriber(session_id, subscriber_address, options))

    async def remove_subscriber(
        self, session_id: str, subscriber_address: str, *, request_id: str | None = None
    ) -> None:
        """As SessionClient.remove_subscriber."""
        await self._call(requests.remove_subscriber(session_id, subscriber_address, request_id))

    async def add_subscribers(
        self,
        session_id: str,
        subscriber_addresses: Sequence[str],
        **options: Unpack[requests.SubscribeOptions],
    ) -> pb.BatchAddSubscribersResponse:
        """As SessionClient.add_subscribers."""
        return await self._call(requests.add_subscribers(session_id, subscriber_addresses, options))

    async def remove_subscribers(
        self, session_id: str, subscriber_addresses: Sequence[str], *, request_id: str | None = None
    ) -> pb.BatchRemoveSubscribersResponse:
        """As SessionClient.remove_subscribers."""
        return await self._call(
            requests.remove_subscribers(session_id, subscriber_addresses, request_id)
        )

    async def get_subscriber_sdp(
        self,
        session_id: str,
        subscriber_address: str,
        *,
        wait_secs: float = 0.0,
        others: Sequence[tuple[str, str]] = (),
    ) -> pb.GetSubscriberSdpResponse:
        """As SessionClient.get_subscriber_sdp."""
        return await self._patient(wait_secs)._call(
            requests.get_subscriber_sdp(session_id, subscriber_address, wait_secs, others)
        )

    async def list_subscribers(
        self, session_id: str, limit: int = 0, cursor: str = ""
    ) -> pb.ListSubscribersResponse:
        """As SessionClient.list_subscribers."""
        return await self._call(requests.list_subscribers(session_id, limit, cursor))

    def iter_subscribers(
        self, session_id: str, page_size: int = PAGE_SIZE
    ) -> AsyncIterator[pb.SubscriberResponse]:
        """As SessionClient.iter_subscribers."""
        return aiter_items(
            lambda cursor: self.list_subscribers(session_id, page_size, cursor),
            lambda page: page.subscribers,
        )

    async def get_session_stats(self, session_id: str) -> pb.SessionStatsResponse:
        """As SessionClient.get_session_stats."""
        return await self._call(requests.get_session_stats(session_id))

    async def list_knocks(self, limit: int = 0) -> Sequence[pb.Knock]:
        """As SessionClient.list_knocks."""
        return (await self._call(requests.list_knocks(limit))).knocks

    async def issue_join_token(
        self,
        session_id: str,
        **options: Unpack[requests.TokenOptions],
    ) -> pb.JoinTokenResponse:
        """As SessionClient.issue_join_token."""
        return await self._call(requests.issue_join_token(session_id, options))

    async def request_keyframe(self, session_id: str) -> None:
        """As SessionClient.request_keyframe."""
        await self._call(requests.request_keyframe(session_id))

    async def _call(self, call: Call[_T]) -> _T:
        attempts = self._attempts(call)
        while True:
            try:
                response: _T = await self._begin(call, attempts.timeout())
            except grpc.RpcError as error:
                failure = translated(error, self.target)
            else:
                return response
            delay = attempts.delay_after(failure)
            if delay is None or self._closed.is_set():
                raise failure
            await asyncio.sleep(delay)


class _AsyncWatch(BaseWatch, AsyncClosing, Generic[_EventT]):
    _closed = False

    def close(self) -> None:
        """End the iteration, now."""
        self._closed = True
        if self._stream is not None:
            self._stream.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> _EventT:
        while not self._ended():
            failure = None
            try:
                event = await self._next_event()
            except TimeoutError:
                pass  # nothing heard for too long
            except asyncio.CancelledError:
                if not self._ended() or _being_cancelled():
                    raise
                break
            except grpc.RpcError as error:
                failure = of_stream(error, self._target)
            else:
                if event is not None:
                    if self._state.came(event):
                        return event
                    continue
            self._stream = None
            if not self._ended():
                await asyncio.sleep(self._state.delay_after(failure, self._target))
        self._closed = True
        raise StopAsyncIteration

    async def _next_event(self) -> _EventT | None:
        """Over a new connection if there is none; None where the server ended it."""
        if self._stream is None:
            self._stream = self._method(self._state.request())
        async with asyncio.timeout(SILENCE_SECONDS):
            event = await self._stream.read()
        return None if event is grpc.aio.EOF else event

    def _ended(self) -> bool:
        return self._closed or self._client_closed.is_set()


class AsyncSessionWatch(OfSessions, _AsyncWatch["pb.SessionEvent"]):
    """SessionWatch for asyncio. Iterate in one task; `close` from any."""


class AsyncEventWatch(OfEvents, _AsyncWatch["pb.Event"]):
    """EventWatch for asyncio. Iterate in one task; `close` from any."""


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
