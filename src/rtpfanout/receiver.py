"""Receiving from a server: by a join token, also behind NAT, or as a subscriber who consents.

`Membership` is the protocol without any input or output: it is told the time and what
arrived, and says what to send and when. `Receiver` puts a UDP socket to it, and
`AsyncReceiver` one of an asyncio loop. docs/api.md has the protocol.
"""

from __future__ import annotations

import asyncio
import enum
import math
import os
import random
import select
import socket
import time
from typing import TYPE_CHECKING, Self, cast

from rtpfanout import signed
from rtpfanout.errors import (
    AddressDeniedError,
    LimitError,
    NotFoundError,
    RtpFanoutError,
    UnauthenticatedError,
    UnavailableError,
    UnreachableError,
)
from rtpfanout.signed import Answer, Kind, Reason

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rtpfanout.model import Address

FIRST_RETRY_SECS = 0.25
LONGEST_RETRY_SECS = 5.0
MEMBER_RETRY_SECS = 0.5
"""The longest while what was granted lasts: 40 tries before a lease of 30 s ends, so that one
of them gets through to a server that is flooded, too."""
REFRESH_SECS = 10.0
"""At the latest; sooner when what was granted lasts less than three times as long."""
SILENCE_SECS = 1.0
"""When media that came stays away for so long, the server is asked whether it still knows us."""
_CHALLENGES_IN_A_ROW = 2  # answered at once; a server that asks on and on is not
_JITTER = 0.1
_LONGEST_WAIT_SECS = 60.0
_BIGGEST_DATAGRAM = 65_535
_RECEIVE_BUFFER = 4 << 20

_FINAL = {Reason.EXPIRED, Reason.NO_SESSION, Reason.ADDRESS}


class State(enum.Enum):
    """Of a Membership."""

    ASKING = "asking"
    MEMBER = "member"
    DENIED = "denied"
    LEAVING = "leaving"
    LEFT = "left"


class Membership:
    """One receiver's standing with one server. Times are `time.monotonic()` seconds.

    Send what `poll` returns, call it again at `next_poll` at the latest, and hand every
    datagram from the server to `receive`. With `token` None it consents to what the API
    has added its address to.
    """

    def __init__(
        self,
        token: signed.Token | None,
        now: float,
        *,
        uniform: Callable[[float, float], float] = random.uniform,
        new_nonce: Callable[[], bytes] = lambda: os.urandom(signed.NONCE_BYTES),
    ) -> None:
        self.state = State.ASKING
        self.reason: Reason | None = None
        self._next = now
        self._token = token
        self._uniform = uniform
        self._new_nonce = new_nonce
        self._cookie = signed.NO_COOKIE
        self._nonce = b""
        self._sent_cookie = signed.NO_COOKIE
        self._challenges = 0
        self._retry_secs = FIRST_RETRY_SECS
        self._ends_at = now
        self._media_at: float | None = None

    @property
    def next_poll(self) -> float:
        """When `poll` has something to do at the latest."""
        return min(self._next, self._silent_at)

    @property
    def _silent_at(self) -> float:
        return math.inf if self._media_at is None else self._media_at + SILENCE_SECS

    def poll(self, now: float) -> bytes | None:
        """What is to be sent to the server at `now`, if anything."""
        if self.state in (State.DENIED, State.LEFT):
            return None
        if self.state is State.MEMBER and now >= self._ends_at:
            self.state = State.ASKING
        if now >= self._silent_at:
            self._media_at = None  # asked once for each silence
            self._next = now
        if now < self._next:
            return None
        self._next = now + self._spread(self._retry_secs)
        longest = MEMBER_RETRY_SECS if self.state is State.MEMBER else LONGEST_RETRY_SECS
        self._retry_secs = min(2 * self._retry_secs, longest)
        self._nonce = self._new_nonce()
        self._sent_cookie = self._cookie
        if self._token is not None:
            leave = self.state is State.LEAVING
            return signed.build_join(
                self._token, nonce=self._nonce, cookie=self._cookie, leave=leave
            )
        if self._cookie == signed.NO_COOKIE:
            return signed.build_hello(self._nonce)
        return signed.build_echo(self._nonce, self._cookie)

    def receive(self, data: bytes, now: float) -> bool:
        """True if `data`, from the server's address, is of this protocol; else it is media."""
        if data[:4] != signed.MAGIC:
            self._media_at = now
            return False
        try:
            kind = signed.kind_of(data)
            if kind is Kind.CHALLENGE:
                self._on_challenge(*signed.parse_challenge(data), now)
            elif kind in (Kind.ACK, Kind.DENY):
                self._on_answer(Answer.parse(data), now)
        except ValueError:
            pass
        return True

    def leave(self, now: float) -> None:
        """Say goodbye with the next `poll`. One who only consents just falls silent."""
        if self.state in (State.ASKING, State.MEMBER):
            self.state = State.LEFT if self._token is None else State.LEAVING
            self._retry_secs = FIRST_RETRY_SECS
            self._next = now

    @property
    def error(self) -> RtpFanoutError | None:
        """Why it was denied, in words."""
        return None if self.reason is None else _error_of(self.reason)

    def _on_challenge(self, nonce: bytes, cookie: bytes, now: float) -> None:
        if nonce != self._nonce or self.state in (State.DENIED, State.LEFT):
            return
        self._nonce = b""
        self._cookie = cookie
        self._challenges += 1
        if self._challenges <= _CHALLENGES_IN_A_ROW:
            self._next = now

    def _on_answer(self, answer: Answer, now: float) -> None:
        key = self._token.key if self._token is not None else self._sent_cookie
        if answer.nonce != self._nonce or not answer.is_signed_with(key):
            return
        self._nonce = b""
        self._challenges = 0
        self._retry_secs = FIRST_RETRY_SECS
        if self.state is State.LEAVING:
            self.state = State.LEFT
        elif answer.reason is None:
            self.state = State.MEMBER
            self.reason = None
            self._cookie = answer.cookie
            lifetime = answer.lifetime_ms / 1000
            self._ends_at = now + lifetime
            self._next = now + self._spread(min(REFRESH_SECS, lifetime / 3))
        else:
            self.reason = answer.reason
            if answer.reason in _FINAL:
                self.state = State.DENIED
            else:  # it may be granted later
                self.state = State.ASKING
                self._retry_secs = LONGEST_RETRY_SECS
                self._next = now + self._spread(LONGEST_RETRY_SECS)

    def _spread(self, seconds: float) -> float:
        """Many receivers that began together do not go on together."""
        return seconds * self._uniform(1 - _JITTER, 1 + _JITTER)


class Receiver:
    """A UDP socket whose media `receive` returns, while it keeps the membership alive.

    Call `receive` at least once a second. It is no object for several threads.
    """

    def __init__(
        self, server: Address, token: str | None = None, *, bind: Address | None = None
    ) -> None:
        """Raises ValueError (the token), OSError (`bind`). Nothing is sent yet."""
        parsed = None if token is None else signed.Token.parse(token)
        self._socket = _open_socket(server, bind)
        self._server = server
        self.membership = Membership(parsed, time.monotonic())

    def fileno(self) -> int:
        """For select: readable when a datagram waits. `next_poll` of the membership counts too."""
        return self._socket.fileno()

    @property
    def local_port(self) -> int:
        """The port of this host's that media comes to."""
        return int(self._socket.getsockname()[1])

    def join(self, timeout: float = 5.0) -> None:
        """Returns as a member. Raises what the server said, or UnreachableError."""
        deadline = time.monotonic() + timeout
        while self.membership.state is State.ASKING:
            if time.monotonic() >= deadline:
                raise self.membership.error or _unreachable(self._server, timeout)
            self._step(min(deadline, self.membership.next_poll))
        if self.membership.state is State.DENIED:
            raise self.membership.error or AssertionError("denied for a reason")

    def receive(self, timeout: float) -> bytes | None:
        """The next datagram of media, or None after `timeout` seconds.

        Raises what the server said when it denies to go on.
        """
        deadline = time.monotonic() + timeout
        while True:
            data = self._step(min(deadline, self.membership.next_poll))
            if data is not None:
                return data
            if self.membership.state is State.DENIED:
                raise self.membership.error or AssertionError("denied for a reason")
            if time.monotonic() >= deadline:
                return None

    def leave(self, timeout: float = 1.0) -> bool:
        """No media comes afterwards. False if the server did not say so within `timeout`."""
        deadline = time.monotonic() + timeout
        self.membership.leave(time.monotonic())
        while self.membership.state is State.LEAVING and time.monotonic() < deadline:
            self._step(min(deadline, self.membership.next_poll))
        return self.membership.state is State.LEFT

    def close(self) -> None:
        """Without leaving, the server goes on sending until the lease ends."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.leave()
        self.close()

    def _step(self, until: float) -> bytes | None:
        """Send what is due; then one datagram of media, or None at `until` or before."""
        now = time.monotonic()
        if (request := self.membership.poll(now)) is not None:
            self._send(request)
        wait = max(0.0, min(until, self.membership.next_poll) - now)
        readable, _, _ = select.select([self._socket], [], [], min(wait, _LONGEST_WAIT_SECS))
        if not readable:
            return None
        try:
            data = self._socket.recv(_BIGGEST_DATAGRAM)
        except ConnectionError:  # nobody listens there, says ICMP: perhaps not yet
            return None
        return None if self.membership.receive(data, time.monotonic()) else data

    def _send(self, request: bytes) -> None:
        try:
            self._socket.send(request)
        except OSError:  # no route at the moment: as if it were lost on the way
            return


class AsyncReceiver(asyncio.DatagramProtocol):
    """The same in an asyncio loop: media goes to `on_media`, a denial to `denied`.

    `await AsyncReceiver.connect(...)`, then `await joined()`.
    """

    def __init__(
        self, server: Address, token: signed.Token | None, on_media: Callable[[bytes], None]
    ) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self.membership = Membership(token, time.monotonic())
        self.denied: asyncio.Future[RtpFanoutError] = self._loop.create_future()
        self._changed = asyncio.Event()
        self._on_media = on_media
        self._transport: asyncio.DatagramTransport | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def connect(
        cls, server: Address, token: str | None, on_media: Callable[[bytes], None]
    ) -> Self:
        """Raises ValueError (the token), OSError."""
        receiver = cls(server, None if token is None else signed.Token.parse(token), on_media)
        udp = _open_socket(server, None)
        udp.setblocking(False)
        await receiver._loop.create_datagram_endpoint(lambda: receiver, sock=udp)
        return receiver

    async def joined(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 (as Receiver.join)
        """Returns as a member. Raises what the server said, or UnreachableError."""
        try:
            await asyncio.wait_for(self._until(State.MEMBER, State.DENIED), timeout)
        except TimeoutError:
            raise self.membership.error or _unreachable(self._server, timeout) from None
        if self.membership.state is State.DENIED:
            raise self.membership.error or AssertionError("denied for a reason")

    async def leave(self, timeout: float = 1.0) -> bool:  # noqa: ASYNC109
        """No media comes afterwards. False if the server did not say so within `timeout`."""
        self.membership.leave(time.monotonic())
        self._turn()
        try:
            await asyncio.wait_for(self._until(State.LEFT), timeout)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Without leaving, the server goes on sending until the lease ends."""
        if self._timer is not None:
            self._timer.cancel()
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio.DatagramProtocol, as the next two."""
        self._transport = cast("asyncio.DatagramTransport", transport)
        self._turn()

    def datagram_received(self, data: bytes, _address: object) -> None:
        if self.membership.receive(data, time.monotonic()):
            self._turn()
        else:
            self._on_media(data)

    def error_received(self, _error: Exception) -> None:
        """ICMP says that nobody listens: perhaps not yet."""

    async def _until(self, *states: State) -> None:
        while self.membership.state not in states:
            self._changed.clear()
            await self._changed.wait()

    def _turn(self) -> None:
        if self._transport is None:
            return
        now = time.monotonic()
        if (request := self.membership.poll(now)) is not None:
            self._transport.sendto(request)
        if self._timer is not None:
            self._timer.cancel()
        if self.membership.state not in (State.DENIED, State.LEFT):
            wait = max(0.0, self.membership.next_poll - now)
            self._timer = self._loop.call_later(min(wait, SILENCE_SECS), self._turn)
        self._changed.set()
        if self.membership.state is State.DENIED and not self.denied.done():
            self.denied.set_result(self.membership.error or RtpFanoutError("denied"))


def _open_socket(server: Address, bind: Address | None) -> socket.socket:
    """Connected, so that the kernel keeps what others send away."""
    udp = socket.socket(server.family, socket.SOCK_DGRAM)
    try:
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if bind is not None:
            udp.bind(bind.sockaddr)
        udp.connect(server.sockaddr)
    except BaseException:
        udp.close()
        raise
    return udp


def _unreachable(server: Address, timeout: float) -> UnreachableError:
    return UnreachableError(
        f"{server} did not answer within {timeout:g} s; check the address, that the token is of"
        " this server, or without a token that this address is a subscriber with consent"
    )


def _error_of(reason: Reason) -> RtpFanoutError:
    if reason is Reason.EXPIRED:
        return UnauthenticatedError("the join token has expired; ask for a new one")
    if reason is Reason.NO_SESSION:
        return NotFoundError("the session is gone; ask for a token of another")
    if reason is Reason.LIMIT:
        return LimitError("the session has as many subscribers as it may have")
    if reason is Reason.UNAVAILABLE:
        return UnavailableError("the server takes no subscriber at the moment; try again")
    return AddressDeniedError("the server's address policy does not let media be sent here")
