"""What all conversations share: the sessions, the sockets copies leave from, threads, counters."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import structlog

from rtpfanout.errors import RtpFanoutError
from rtpfanout.model import Address
from rtpfanout.rtsp import times
from rtpfanout.rtsp.credentials import Credentials
from rtpfanout.rtsp.relay import DATAGRAM_BYTES, Relay, relay_ip
from rtpfanout.rtsp.wire import REASONS
from rtpfanout.seldom import Seldom
from rtpfanout.sessions import JOIN_SECRET, SCOPE

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.auth import Access
    from rtpfanout.model import IPAddress
    from rtpfanout.rtsp.credentials import Grant
    from rtpfanout.rtsp.playback import Playback
    from rtpfanout.sessions import SessionManager

THREADS = 4
"""Calls of the door that wait for others, or for a grace period."""
METHODS = (
    "OPTIONS", "DESCRIBE", "SETUP", "PLAY", "PAUSE", "GET_PARAMETER", "SET_PARAMETER", "TEARDOWN",
    "other",
)  # fmt: skip
ENDS = ("teardown", "pause", "connection", "timeout", "removed", "refused", "stopping")
"""Why playbacks end. removed: a track is no subscriber any more; refused: its credentials or its
address are not good any more."""
OVER_UDP, OVER_TCP = "udp", "tcp"
_MOST_LINES = 60
_LONGEST_SHOWN = 80

_log = structlog.stdlib.get_logger("rtpfanout.rtsp")
_Result = TypeVar("_Result")


class Stage:
    """For one event loop. `requests` counts by (method, status), `ends` playbacks by why, `playing`
    those that play by how packets go to them; `dropped_frames` are of those that ended."""

    def __init__(
        self,
        engine: Engine,
        manager: SessionManager,
        access: Access,
        *,
        has_rtcp_port: bool,
        most_relays: int,
    ) -> None:
        """`has_rtcp_port`: RTCP is taken on the port behind the main one, too. `most_relays`: each
        takes a descriptor."""
        self._relays_left = most_relays
        self.guests, self.describing = manager.guests, manager.describing
        self.credentials = Credentials(access)
        self._store = manager.store
        self.main = engine.bound
        port = self.main.port
        self.server_ports = (port, port + 1) if has_rtcp_port else (port, port)
        self._rtcp_port = port + 1 if has_rtcp_port else 0
        self._relay_main = Address(relay_ip(self.main, sends_ipv4=engine.sockets.sends_ipv4), port)
        self._buffer = memoryview(bytearray(DATAGRAM_BYTES))
        self._threads = ThreadPoolExecutor(THREADS, "rtsp")
        self._lines = Seldom(_MOST_LINES)
        self.requests: Counter[tuple[str, str]] = Counter(
            {(method, str(status)): 0 for method in METHODS for status in REASONS}
        )
        self.ends = Counter(dict.fromkeys(ENDS, 0))
        self.playing = Counter({OVER_UDP: 0, OVER_TCP: 0})
        self.ended_dropped_frames = 0
        self.ended_dropped_packets = 0

    async def work(self, call: Callable[..., _Result], *args: object) -> _Result:
        """In a thread, for this request's caller."""
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        return await loop.run_in_executor(self._threads, lambda: context.run(call, *args))

    async def join_secret(self) -> bytes:
        """What join tokens are known by. Raises UnavailableError: the store can't keep it."""
        return await self.work(self._store.secret, JOIN_SECRET)

    def close(self) -> None:
        """Its threads end when they have done what they are at."""
        self._threads.shutdown(wait=False)

    def leaves_from(self, local: Address) -> bytes:
        """Where copies leave from to a client that speaks to that address of ours; see Place."""
        return local.packed if self.main.ip.is_unspecified else b""

    @property
    def relay_leaves_from(self) -> bytes:
        """The same to a relay."""
        return self.leaves_from(self._relay_main)

    def source_beside(self, local: IPAddress) -> str:
        """Where copies leave from, if that is another address than `local`."""
        ip = self.main.ip
        return "" if ip.is_unspecified or ip == local else str(ip)

    def relay(self, take: Callable[[list[bytes]], None]) -> Relay:
        """Raises OSError."""
        if self._relays_left <= 0:
            raise OSError(errno.EMFILE, "others have all that may be open")
        relay = Relay(
            self._relay_main,
            self._rtcp_port,
            take,
            self._buffer,
            self._relay_closed,
            self.guests.has_source,
        )
        self._relays_left -= 1
        return relay

    def _relay_closed(self) -> None:
        self._relays_left += 1

    def began(self, playback: Playback, peer: Address, user_agent: str) -> None:
        """It plays from here on."""
        self.playing[_over(playback)] += 1
        self._lines.write(
            _log.info,
            "rtsp playing",
            peer=str(peer),
            sessions=list(playback.tracks),
            over=_over(playback),
            who=_shown(playback.grant.identity.name),
            subscribers=[str(track.place.address) for track in playback.tracks.values()],
            user_agent=_shown(user_agent),
        )

    def ended(self, playback: Playback, peer: Address, reason: str) -> None:
        """It does not play any more; nothing if it did not."""
        if not playback.is_playing:
            return
        playback.is_playing = False
        self.playing[_over(playback)] -= 1
        self.ends[reason] += 1
        dropped = playback.dropped
        self.ended_dropped_frames += dropped.frames
        self.ended_dropped_packets += dropped.packets
        self._lines.write(
            _log.info,
            "rtsp ended",
            peer=str(peer),
            sessions=list(playback.tracks),
            reason=reason,
            seconds=round(time.monotonic() - playback.began_at, 1),
            frames_dropped=dropped.frames,
        )
        dropped.frames = dropped.packets = 0

    def look(self, playbacks: Sequence[Playback]) -> list[tuple[Playback, str]]:
        """Prolongs the leases of those that gave a sign of life since; which have to end, and why.

        Waits, so it is for a thread.
        """
        found = ((playback, self._fate(playback)) for playback in playbacks)
        return [(playback, reason) for playback, reason in found if reason]

    def _fate(self, playback: Playback) -> str:
        now = time.monotonic()
        tracks = list(playback.tracks.values())  # at once: requests change them meanwhile
        try:
            for track in tracks:
                self.credentials.recheck(track.grant)
                self.guests.check(track.place)
        except RtpFanoutError:
            return "refused"
        guests = [(track.grant, track.guest) for track in tracks if track.guest]
        reported = (_as(grant, self.guests.reported_ns, guest) for grant, guest in guests)
        alive_at = max(playback.alive_at, max(reported, default=0) / 1e9)
        lasts = times.TIMEOUT_SECONDS + times.LATE_SECONDS
        if now - alive_at > lasts:
            return "timeout"
        left = alive_at + lasts - now
        if alive_at > playback.renewed_at:
            playback.renewed_at = alive_at
            if not all(_as(grant, self.guests.renew, guest, left) for grant, guest in guests):
                return "removed"
        return ""


def _as(grant: Grant, call: Callable[..., _Result], *args: object) -> _Result:
    """With the SCOPE of who was granted that."""
    token = SCOPE.set(grant.identity.scope)
    try:
        return call(*args)
    finally:
        SCOPE.reset(token)


def _over(playback: Playback) -> str:
    return OVER_TCP if playback.is_interleaved else OVER_UDP


def _shown(text: str) -> str:
    """Neither long nor with control characters, which a terminal would obey."""
    if not text.isprintable():
        text = text.encode("unicode_escape").decode()
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 3] + "..."
