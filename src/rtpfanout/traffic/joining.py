"""Receiving as a member: the socket of `recv` keeps its place at a server meanwhile."""

import time
from collections.abc import Callable
from contextlib import suppress

from rtpfanout import receiver, signed
from rtpfanout.closing import Closing
from rtpfanout.errors import UnreachableError
from rtpfanout.model import Address
from rtpfanout.traffic.udp import Datagram, ReceiveSocket

_LEAVE_SECS = 1.0


class MemberSocket(Closing):
    """A ReceiveSocket that joins, or consents without a token, and leaves at the end."""

    def __init__(
        self,
        udp: ReceiveSocket,
        server: Address,
        token: signed.Token | None,
        tell: Callable[[str], object],
    ) -> None:
        """`tell` is given a line of how it stands with the server."""
        self._tell = tell
        self._udp = udp
        self._server = server
        self._member = receiver.Membership(token, time.monotonic())
        self._is_member = False
        self._was_member = False
        self._told: str | None = None

    @property
    def address(self) -> Address:
        """Where it is bound."""
        return self._udp.address

    @property
    def kernel_drops(self) -> int:
        """See ReceiveSocket."""
        return self._udp.kernel_drops

    def check(self) -> None:
        """Raises why nothing could come: UnreachableError if the server has never let us in."""
        if self._was_member:
            return
        why = self._member.error
        raise UnreachableError(
            f"never joined at {self._server}: "
            + (why.message if why else "it did not answer; check the address and the way there")
        )

    def receive(self, *, wait: bool = True) -> Datagram | None:
        """As ReceiveSocket, media only. Raises what the server says when it denies for good."""
        self._turn()
        while (datagram := self._udp.receive(wait=wait)) is not None:
            if not self._member.receive(datagram.data, time.monotonic()):
                return datagram
            self._turn()
        return None

    def close(self) -> None:
        """Leave: whoever only consents falls silent."""
        end = time.monotonic() + _LEAVE_SECS
        self._member.leave(time.monotonic())
        while self._member.state is receiver.MemberState.LEAVING and time.monotonic() < end:
            self._send()
            if (datagram := self._udp.receive()) is not None:
                self._member.receive(datagram.data, time.monotonic())

    def _turn(self) -> None:
        self._send()
        member = self._member
        if member.state is receiver.MemberState.DENIED and member.error is not None:
            raise member.error
        text = member.error.message if member.error else None
        if text is not None and text != self._told:
            self._tell(f"not yet: {text}")
        self._told = text
        if (member.state is receiver.MemberState.MEMBER) != self._is_member:
            self._is_member = not self._is_member
            self._was_member = True
            self._tell(
                f"the server {self._server} sends here"
                if self._is_member
                else f"the server {self._server} does not answer any more; still asking"
            )

    def _send(self) -> None:
        if (request := self._member.poll(time.monotonic())) is not None:
            with suppress(OSError):  # no route at the moment: as if it were lost
                self._udp.send(request, self._server)
