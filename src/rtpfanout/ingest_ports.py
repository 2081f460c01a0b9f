"""Ports of sessions' own: who has which, and their sockets."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from rtpfanout import _fastpath
from rtpfanout.descriptors import left
from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    RtpFanoutError,
    UnavailableError,
)
from rtpfanout.kept import RTCP, KeptSockets
from rtpfanout.listening import bind_fault
from rtpfanout.model import Address
from rtpfanout.portrange import AUTO, PortRange

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine

FIELD = "ingest_port"
QUEUE_PACKETS = 4096
"""That wait at a session's port: a second of a camera with 40 Mbit/s."""
RTCP_QUEUE_PACKETS = 256
_DESCRIPTORS = 4  # of a port: two sockets, ours and the engine's


class _InUseError(UnavailableError):
    """Some other program has the port."""


class IngestPorts:
    """Of one engine. A number is claimed for a session before it is opened, and as long as the
    session is there, also while it is refused. Thread-safe."""

    def __init__(
        self, engine: Engine, kept: KeptSockets, ports: PortRange, buffer_size: int
    ) -> None:
        self.range = ports
        self._engine = engine
        self._kept = kept
        self._buffer_size = buffer_size
        self._claimed: set[int] = set()
        self._last = 0
        self._lock = threading.Lock()

    @classmethod
    def none(cls, engine: Engine) -> Self:
        """No session can have one."""
        return cls(engine, KeptSockets(), PortRange(), 1)

    @property
    def used(self) -> int:
        """How many of the range sessions have."""
        with self._lock:
            return sum(self.range.holds(number) for number in self._claimed)

    def claim(self, number: int) -> None:
        """For a session that has it already, whatever the range is. Raises AlreadyExistsError."""
        with self._lock:
            if number in self._claimed:
                raise port_taken(number)
            self._claimed.add(number)

    def claim_new(self, wanted: int) -> int:
        """For a session to be; `wanted` may be AUTO. Returns the number, which is open.

        Raises InvalidArgumentError, AlreadyExistsError, LimitError, UnavailableError.
        """
        if wanted != AUTO:
            self._check(wanted)
            self.claim(wanted)
            self._open_claimed(wanted)
            return wanted
        if not self.range:
            raise _not_configured()
        for number in self._next():
            with self._lock:
                if number in self._claimed:
                    continue
                self._claimed.add(number)
            try:
                self._open_claimed(number)
            except _InUseError:
                continue
            self._last = number
            return number
        count = len(self.range)
        raise LimitError(
            f"all {count} ports of ingest_ports = {self.range} are taken; delete a session that has"
            " one, or make the range larger",
            field="ingest_ports",
            limit=count,
        )

    def _next(self) -> Iterable[int]:
        """Behind the last that was given: who still sends to a port that was freed is nobody's."""
        numbers = self.range.numbers()
        begin = numbers.index(self._last) + 1 if self._last in numbers else 0
        return [*numbers[begin:], *numbers[:begin]]

    def _check(self, number: int) -> None:
        if not self.range:
            raise _not_configured()
        if not self.range.holds(number):
            raise InvalidArgumentError(
                f"{number} is outside ingest_ports = {self.range}", field=FIELD
            )
        if number not in self.range.numbers():
            raise InvalidArgumentError(
                f"{number} is for the RTCP of {number - 1}; give {number - 1} or {number + 1}",
                field=FIELD,
            )

    def _open_claimed(self, number: int) -> None:
        try:
            self.open(number)
        except BaseException:
            with self._lock:
                self._claimed.discard(number)
            raise

    def open(self, number: int) -> None:
        """Its sockets, if they are not there: kept from here on. It is claimed.

        Raises InvalidArgumentError (it is outside of the range), LimitError, UnavailableError.
        """
        self._check(number)
        if self._kept.find(str(number)):
            return
        sockets: list[int] = []
        try:
            if left() < _DESCRIPTORS:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            for port, packets in ((number, QUEUE_PACKETS), (number + 1, RTCP_QUEUE_PACKETS)):
                at = Address(self._engine.bound.ip, port)
                room = min(packets, self._buffer_size)
                sockets.append(_fastpath.open_socket(at, room))
            self._kept.add(str(number), sockets)
        except OSError as error:
            for descriptor in sockets:
                os.close(descriptor)
            raise _unopened(number + min(len(sockets), 1), error) from None

    def give(self, handle: int, number: int) -> None:
        """The session of the engine, which is `at_own_port`, gets what comes there."""
        sockets = self._kept.find(str(number))
        assert sockets
        self._engine.give_ports(handle, *sockets)

    def free(self, number: int) -> None:
        """The session has gone, or has another: it is closed, and somebody else's to have; 0 is
        none."""
        self._kept.give_up([str(number)])
        with self._lock:
            self._claimed.discard(number)

    def close_unclaimed(self) -> None:
        """Those that were kept of sessions that are not there: the process before this one died
        before it had written of them, or after it had written that they are gone."""
        with self._lock:
            claimed = set(map(str, self._claimed))
        self._kept.give_up(self._kept.names() - claimed - {RTCP})


def _not_configured() -> InvalidArgumentError:
    return InvalidArgumentError(
        "ingest_ports is not configured; set it to a range such as 6000-7999", field=FIELD
    )


def port_taken(number: int) -> AlreadyExistsError:
    """To be raised."""
    return AlreadyExistsError(f"another session has port {number}", field=FIELD)


def _unopened(port: int, error: OSError) -> RtpFanoutError:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return LimitError(
            "no file descriptors are left for one more port; raise their limit (LimitNOFILE)",
            field=FIELD,
        )
    kind = _InUseError if error.errno == errno.EADDRINUSE else UnavailableError
    return kind(f"port {port} can't be opened: {bind_fault(error)}", field=FIELD)
