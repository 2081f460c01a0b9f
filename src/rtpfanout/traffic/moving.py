"""A test source that changes its port and signs that it did."""

import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Self

from rtpfanout.listening import bound_address
from rtpfanout.model import Address
from rtpfanout.mover import Mover
from rtpfanout.traffic.udp import open_socket, source_for

_FIRST_ANSWER_SECS = 2.0


class MovingSocket:
    """What `send` needs of a socket; SIGUSR1 makes it take another port and say so."""

    def __init__(
        self, target: Address, bind: Address | None, mover: Mover, tell: Callable[[str], object]
    ) -> None:
        """`tell` is given a line of what became of each move."""
        self._tell = tell
        self._target = target.sockaddr
        self._bind = bind or source_for(target)
        self._mover = mover
        self._socket = open_socket(self._bind)
        self._asked = False
        self._told = True
        self._handler: Any = None

    def __enter__(self) -> Self:
        self._handler = signal.signal(signal.SIGUSR1, self._on_signal)
        return self

    def __exit__(self, *_error: object) -> None:
        signal.signal(signal.SIGUSR1, self._handler)
        self._socket.close()

    @property
    def address(self) -> Address:
        """Where it sends from now."""
        return bound_address(self._socket)

    def announce(self) -> None:
        """Sign where we are; returns when the server has confirmed it, or soon."""
        self._move()
        end = time.monotonic() + _FIRST_ANSWER_SECS
        while not self._mover.is_done and time.monotonic() < end:
            self._turn()
            time.sleep(0.005)
        if not self._mover.is_done:
            self._tell(
                "the server has not confirmed the signed move: check the key, the SSRC and that "
                "the clocks differ by less than 30 s; still trying"
            )

    def sendto(self, packet: bytes, to: Any) -> int:
        """As a socket."""
        if self._asked:
            self._asked = False
            self._change_port()
        self._turn()
        return self._socket.sendto(packet, to)

    def _change_port(self) -> None:
        before = self._socket
        # Of a port that was asked for, the next free one is as good: the signature counts.
        self._socket = open_socket(Address(self._bind.ip, 0))
        before.close()
        self._move()

    def _move(self) -> None:
        self._told = False
        self._mover.move(time.monotonic())

    def _turn(self) -> None:
        if self._told:
            return
        with suppress(OSError):  # as if it were lost on the way
            if (request := self._mover.poll(time.monotonic())) is not None:
                self._socket.sendto(request, self._target)
        with suppress(OSError):  # BlockingIOError: nothing there
            while not self._mover.is_done:
                self._mover.receive(self._socket.recv(2048, socket.MSG_DONTWAIT))
        if self._mover.is_done:
            self._told = True
            self._tell(
                str(self._mover.error)
                if self._mover.error
                else f"the server takes packets from {self.address} now"
            )

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
