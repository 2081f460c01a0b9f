"""The requests of one connection, answered one after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import structlog

from rtpfanout import sdp
from rtpfanout.errors import (
    AddressDeniedError,
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
    NotKnownError,
    PermissionDeniedError,
    RtpFanoutError,
    UnauthenticatedError,
)
from rtpfanout.model import IPV4_PREFIX, Address, Rtcp
from rtpfanout.rtsp import times
from rtpfanout.rtsp.credentials import CHALLENGE, is_join_token, token_of
from rtpfanout.rtsp.outlet import Outlet
from rtpfanout.rtsp.playback import Playback, Track
from rtpfanout.rtsp.transport import Transport, answer, choose
from rtpfanout.rtsp.urls import Target, control_of
from rtpfanout.rtsp.wire import RefusedRequest, Request, response
from rtpfanout.sessions import SCOPE, Place, title_of

if TYPE_CHECKING:
    from rtpfanout.rtsp.credentials import Grant, Names
    from rtpfanout.rtsp.stage import Stage

LOOK_SECONDS = 0.1
PUBLIC = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, GET_PARAMETER, TEARDOWN"
_PUBLISHING = frozenset(("ANNOUNCE", "RECORD"))
_MOST_TRACKS = 32

_log = structlog.stdlib.get_logger(__name__)


class Answer(NamedTuple):
    """Of a request that is done."""

    headers: Mapping[str, str]
    body: bytes = b""


class Client(NamedTuple):
    """Who is at the other end: `peer` and which of our addresses it speaks to, as connected.

    `names` are of a certificate. `take` gets packets of a track to write.
    """

    peer: Address
    local: Address
    names: Names
    take: Callable[[Track, list[bytes]], None]


class Conversation:
    """Of one client. `playback` is what it has set up, if it has."""

    def __init__(self, stage: Stage, client: Client) -> None:
        self.playback: Playback | None = None
        self._stage = stage
        self._client = client
        self._grant: Grant | None = None
        self._is_over = False
        self._lock = asyncio.Lock()
        self._handlers: dict[str, Callable[[Request], Awaitable[Answer]]] = {
            "OPTIONS": self._options,
            "DESCRIBE": self._describe,
            "SETUP": self._setup,
            "PLAY": self._play,
            "PAUSE": self._pause,
            "GET_PARAMETER": self._get_parameter,
            "SET_PARAMETER": self._get_parameter,
            "TEARDOWN": self._teardown,
        }

    async def answer(self, request: Request) -> bytes:
        """The response. Never raises."""
        async with self._lock:
            try:
                headers, body = await self._handle(request)
                status, reason = 200, ""
            except Exception as error:
                refusal = _refusal(error)
                if refusal.status == 500:
                    _log.error("request failed", method=request.method, exc_info=error)
                status, reason = refusal.status, refusal.sentence
                headers, body = refusal.headers, b""
        known = request.method if request.method in self._handlers else "other"
        self._stage.requests[known, str(status)] += 1
        return response(status, request.cseq, headers, body, reason)

    async def end(self, reason: str) -> None:
        """No packet goes to it any more when that returns."""
        self._is_over = True
        async with self._lock:
            await self._stop(reason)

    async def _handle(self, request: Request) -> Answer:
        if self._is_over:
            raise RefusedRequest(503)
        if request.version != (1, 0):
            raise RefusedRequest(505, "expected RTSP/1.0")
        if not request.cseq.isdecimal():
            raise RefusedRequest(400, "expected a header CSeq with a number")
        if request.method in _PUBLISHING:
            raise RefusedRequest(
                501,
                "this server only plays by RTSP; a camera sends its RTP to"
                f" {self._stage.main} by UDP, where a session admits it",
                Public=PUBLIC,
            )
        handler = self._handlers.get(request.method)
        if handler is None:
            raise RefusedRequest(501, f"there is no {request.method}", Public=PUBLIC)
        if unsupported := request.headers.get("require"):
            raise RefusedRequest(551, "nothing that is required is known", Unsupported=unsupported)
        if self.playback:
            self.playback.alive_at = time.monotonic()
        return await handler(request)

    async def _options(self, _request: Request) -> Answer:
        return Answer({"Public": PUBLIC})

    async def _describe(self, request: Request) -> Answer:
        target = Target.of(request.url)
        grant = await self._identify(request, target, "GetSubscriberSdp")
        accepted = request.headers.get("accept", "*/*").lower()
        if not any(kind in accepted for kind in ("application/sdp", "application/*", "*/*")):
            raise RefusedRequest(406, "expected Accept: application/sdp")
        titles, streams = await self._streams(self._sessions(target, grant))
        local = self._client.local.ip
        text = sdp.write(title_of(titles), local, int(time.time()), streams)
        headers = {
            "Content-Base": target.base,
            "Content-Type": "application/sdp",
            "Cache-Control": "no-cache",
        }
        return Answer(headers, text.encode("ascii", "replace"))

    async def _streams(self, session_ids: list[str]) -> tuple[list[str], list[sdp.Stream]]:
        """Titles and streams of those that are known, as soon as all are, or after a while.

        Raises NotKnownError: none is.
        """
        nowhere = Address.unpack(IPV4_PREFIX + bytes(4), 0)
        if self._client.local.ip.version == 6:
            nowhere = Address.unpack(bytes(16), 0)
        until = time.monotonic() + times.DESCRIBE_SECONDS
        while True:
            titles, streams, is_whole = [], [], True
            unknown: NotKnownError | None = None
            for session_id in session_ids:
                try:
                    title, stream, missing = self._stage.describing.stream(session_id, nowhere)
                except NotKnownError as error:
                    unknown = unknown or error
                else:
                    titles.append(title)
                    streams.append(replace(stream, control=control_of(session_id)))
                    is_whole = is_whole and not missing
            if (is_whole and unknown is None) or time.monotonic() >= until:
                if unknown and not streams:
                    raise unknown
                return titles, streams
            await asyncio.sleep(LOOK_SECONDS)

    async def _setup(self, request: Request) -> Answer:
        target = Target.of(request.url)
        grant = await self._identify(request, target, "AddSubscriber")
        playback = self.playback
        if "session" in request.headers:
            playback = self._found(request)
        elif playback:
            raise RefusedRequest(455, "this connection has a session; name it, or end it first")
        session_id = self._one_session(target, grant)
        if playback and (session_id in playback.tracks or playback.is_playing):
            raise RefusedRequest(455, "it is set up already; PAUSE or TEARDOWN first")
        if playback and len(playback.tracks) >= _MOST_TRACKS:
            raise RefusedRequest(453, f"a session has {_MOST_TRACKS} tracks at the most")
        chosen = choose(request.headers.get("transport", ""), self._client.peer.ip)
        playback = playback or Playback(grant, time.monotonic())
        if chosen.is_interleaved:
            chosen = replace(chosen, channels=_channels(chosen, playback))
        playback.tracks[session_id] = self._track(session_id, chosen, playback, grant)
        self.playback = playback
        source = self._stage.source_beside(self._client.local.ip)
        return Answer(
            {
                "Transport": answer(chosen, self._stage.server_ports, source),
                "Session": f"{playback.id};timeout={times.TIMEOUT_SECONDS}",
            }
        )

    def _track(self, session_id: str, chosen: Transport, playback: Playback, grant: Grant) -> Track:
        """Raises RefusedRequest: no socket is to be had."""
        kind, client = grant.subscriber_class, self._client
        if not chosen.is_interleaved:
            to = Address(client.peer.ip, chosen.ports[0])
            local = self._stage.leaves_from(client.local)
            return Track(session_id, grant, chosen, Place(to, kind, chosen.rtcp, local))
        assert chosen.channels
        track = Track(session_id, grant, chosen, Place(client.peer))
        track.outlet = Outlet(chosen.channels, playback.dropped)
        try:
            track.relay = self._stage.relay(lambda packets: client.take(track, packets))
        except OSError as error:
            raise RefusedRequest(503, f"no socket is to be had: {error.strerror}") from None
        to, local = track.relay.address, self._stage.relay_leaves_from
        track.place = Place(to, kind, Rtcp.MUX, local, relayed_to=client.peer.ip)
        return track

    async def _play(self, request: Request) -> Answer:
        playback = self._found(request)
        stage, now = self._stage, time.monotonic()
        for track in playback.tracks.values():
            stage.credentials.recheck(track.grant)  # it may be long ago that it was shown
        try:
            for track in playback.tracks.values():
                if track.guest is None:
                    SCOPE.set(track.grant.identity.scope)
                    track.guest = await stage.work(
                        stage.guests.add, track.session_id, track.place, times.TIMEOUT_SECONDS
                    )
        except BaseException:
            await self._silence(playback)
            raise
        if self._is_over:
            raise RefusedRequest(503)
        if not playback.is_playing:
            playback.is_playing = True
            playback.began_at = playback.renewed_at = playback.looked_at = now
            stage.began(playback, self._client.peer, request.headers.get("user-agent", ""))
        return Answer({"Session": playback.id, "Range": "npt=now-"})

    async def _pause(self, request: Request) -> Answer:
        playback = self._found(request)
        await self._silence(playback)
        self._stage.ended(playback, self._client.peer, "pause")
        return Answer({"Session": playback.id})

    async def _get_parameter(self, request: Request) -> Answer:
        if request.body.strip():
            raise RefusedRequest(451, "there are no parameters")
        if "session" not in request.headers:
            return Answer({})
        return Answer({"Session": self._found(request).id})

    async def _teardown(self, request: Request) -> Answer:
        playback = self._found(request)
        track = playback.tracks.get(Target.of(request.url).track)
        if track and len(playback.tracks) > 1:
            del playback.tracks[track.session_id]
            await self._remove([track])
        else:
            await self._stop("teardown")
        return Answer({"Session": playback.id})

    async def _stop(self, reason: str) -> None:
        playback, self.playback = self.playback, None
        if playback:
            await self._silence(playback)
            self._stage.ended(playback, self._client.peer, reason)
            for track in playback.tracks.values():
                track.close()

    async def _silence(self, playback: Playback) -> None:
        """No copies are made for it; its tracks stay."""
        guests = playback.guests
        for track in playback.tracks.values():
            track.guest = None
        if guests:
            await self._stage.work(self._stage.guests.remove, guests)

    async def _remove(self, tracks: list[Track]) -> None:
        guests = [track.guest for track in tracks if track.guest]
        await self._stage.work(self._stage.guests.remove, guests)
        for track in tracks:
            track.close()

    async def _identify(self, request: Request, target: Target, method: str) -> Grant:
        """Who has shown something on this connection need not again, as its URLs do not."""
        stage, client = self._stage, self._client
        shows = target.token or "authorization" in request.headers
        grant = None if shows else self._grant
        if grant:
            stage.credentials.recheck(grant)
        else:
            shown = target.token or token_of(request)
            secret = await stage.join_secret() if is_join_token(shown) else b""
            peer = _peer_name(client.peer)
            grant = stage.credentials.identify(shown, peer, client.names, secret)
        self._grant = grant
        grant.check(method)
        SCOPE.set(grant.identity.scope)  # of this request alone: each has a task of its own
        return grant

    def _sessions(self, target: Target, grant: Grant) -> list[str]:
        found: list[str] = []
        try:
            found = self._stage.guests.sessions_at(target.path)
        except RtpFanoutError:
            if grant.covers(target.path.lower()):
                raise
        covered = [session_id for session_id in found if grant.covers(session_id)]
        if not covered:  # whether there is another one is not told
            raise NotFoundError("the join token is for no session of that name")
        return covered

    def _one_session(self, target: Target, grant: Grant) -> str:
        if target.track:
            return self._sessions(replace(target, path=target.track), grant)[0]
        found = self._sessions(target, grant)
        if len(found) > 1:
            raise RefusedRequest(455, "several sessions are below that; SETUP each by its control")
        return found[0]

    def _found(self, request: Request) -> Playback:
        said = request.headers.get("session", "").partition(";")[0].strip()
        if self.playback is None or said != self.playback.id:
            raise RefusedRequest(454, "this connection has no such session; SETUP makes one")
        return self.playback


def _channels(chosen: Transport, playback: Playback) -> tuple[int, int]:
    """As asked for, or the next ones. Raises RefusedRequest."""
    if chosen.channels is None:
        return playback.free_channels()
    taken = {c for track in playback.tracks.values() for c in track.transport.channels or ()}
    if taken & set(chosen.channels) or chosen.channels[0] == chosen.channels[1]:
        raise RefusedRequest(461, "these channels are another track's; give others")
    return chosen.channels


def _peer_name(peer: Address) -> str:
    """As gRPC names it."""
    return f"ipv{peer.ip.version}:{peer}"


_STATUSES: tuple[tuple[type[RtpFanoutError], int], ...] = (
    (UnauthenticatedError, 401),
    (PermissionDeniedError, 403),
    (AddressDeniedError, 403),
    (AlreadyExistsError, 461),
    (NotFoundError, 404),
    (InvalidArgumentError, 400),
    (LimitError, 453),
    (RtpFanoutError, 503),
)


def _refusal(error: Exception) -> RefusedRequest:
    if isinstance(error, RefusedRequest):
        return error
    if not isinstance(error, RtpFanoutError):
        return RefusedRequest(500, "internal error; the server's log has more")
    status = next(status for kind, status in _STATUSES if isinstance(error, kind))
    if status == 401:
        return RefusedRequest(401, error.message, WWW_Authenticate=CHALLENGE)
    return RefusedRequest(status, error.message)
