"""A Membership over a UDP socket: in the caller's thread, or in an asyncio loop."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self, cast

from rtpfanout import signed
from rtpfanout.closing import Closing
from rtpfanout.errors import RtpFanoutError, UnreachableError
from rtpfanout.receiver.membership import SILENCE_SECS, Membership, MemberState

if TYPE_CHECKING:
    from rtpfanout.model import Address

_LONGEST_WAIT_SECS = 60.0
_BIGGEST_DATAGRAM = 65_535
_RECEIVE_BUFFER = 4 << 20


class Receiver(Closing):
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
        while self.membership.state is MemberState.ASKING:
            if time.monotonic() >= deadline:
                raise self.membership.error or _unreachable(self._server, timeout)
            self._step(min(deadline, self.membership.next_poll))
        if self.membership.state is MemberState.DENIED:
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
            if self.membership.state is MemberState.DENIED:
                raise self.membership.error or AssertionError("denied for a reason")
            if time.monotonic() >= deadline:
                return None

    def leave(self, timeout: float = 1.0) -> bool:
        """No media comes afterwards. False if the server did not say so within `timeout`."""
        deadline = time.monotonic() + timeout
        self.membership.leave(time.monotonic())
        while self.membership.state is MemberState.LEAVING and time.monotonic() < deadline:
            self._step(min(deadline, self.membership.next_poll))
        return self.membership.state is MemberState.LEFT

    def close(self) -> None:
        """Without leaving, the server goes on sending until the lease ends."""
        self._socket.close()

    def __exit__(self, *_error: object) -> None:
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
            await asyncio.wait_for(self._until(MemberState.MEMBER, MemberState.DENIED), timeout)
        except TimeoutError:
            raise self.membership.error or _unreachable(self._server, timeout) from None
        if self.membership.state is MemberState.DENIED:
            raise self.membership.error or AssertionError("denied for a reason")

    async def leave(self, timeout: float = 1.0) -> bool:  # noqa: ASYNC109
        """No media comes afterwards. False if the server did not say so within `timeout`."""
        self.membership.leave(time.monotonic())
        self._turn()
        try:
            await asyncio.wait_for(self._until(MemberState.LEFT), timeout)
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

    async def _until(self, *states: MemberState) -> None:
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
        if self.membership.state not in (MemberState.DENIED, MemberState.LEFT):
            wait = max(0.0, self.membership.next_poll - now)
            self._timer = self._loop.call_later(min(wait, SILENCE_SECS), self._turn)
        self._changed.set()
        if self.membership.state is MemberState.DENIED and not self.denied.done():
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
