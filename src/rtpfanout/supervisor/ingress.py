"""The ingress sockets: opened, given by systemd, or inherited; the settings that fit them.

And the memory that they are read into.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout import _fastpath
from rtpfanout.kept import RTCP, open_rtcp, opened_with_rtcp
from rtpfanout.listening import bind_error, bound_address, set_receive_buffer
from rtpfanout.model import Address
from rtpfanout.supervisor.link import close_all
from rtpfanout.supervisor.notify import given_sockets
from rtpfanout.workers import worker_count

if TYPE_CHECKING:
    from rtpfanout.config import Settings
    from rtpfanout.supervisor.keeping import Keeper
    from rtpfanout.supervisor.notify import Notifier

FREE_PORTS = ("grpc_bind_address", "metrics_bind_address", "rtsp_bind_address")
"""Keys of addresses that the next server gets as this one found them."""

GIVE_UP_SECONDS = 5.0

_log = structlog.stdlib.get_logger(__name__)


def open_or_adopt(settings: Settings, notifier: Notifier, keeper: Keeper) -> list[int]:
    """systemd's, or else new ones that systemd is asked to keep. Raises StartError.

    Those that it kept of an earlier run are given up where the settings want others now. The port
    for RTCP goes to `keeper`, and not to systemd.
    """
    given, patience = given_sockets(), 0.0
    if given.names and (reason := _misfit(settings, given.descriptors)):
        _log.warning("kept ingress sockets are given up, and what is in them", reason=reason)
        close_all(given.descriptors)
        notifier.give_up(given.names)
        patience = GIVE_UP_SECONDS  # until systemd has read that
    elif given.descriptors:
        _fit_buffers(settings, given.descriptors, may_shrink=bool(given.names))
        if settings.enable_rtcp_port:
            keeper.sockets[RTCP] = [open_rtcp(settings, address_of(given.descriptors[0]))]
        return given.descriptors
    deadline = time.monotonic() + patience
    sockets, rtcp = opened_with_rtcp(
        settings, lambda: _open(settings, deadline), lambda s: address_of(s[0]), close_all
    )
    if rtcp is not None:
        keeper.sockets[RTCP] = [rtcp]
    notifier.keep(sockets)
    return sockets


def _open(settings: Settings, deadline: float) -> list[int]:
    while True:
        try:
            return list(
                _fastpath.open_sockets(
                    settings.bind_address, worker_count(settings.workers), settings.buffer_size
                )
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise bind_error(error, settings.bind_address, "bind_address") from None
        time.sleep(0.01)


def _misfit(settings: Settings, kept: Sequence[int]) -> str:
    bound, count = address_of(kept[0]), worker_count(settings.workers)
    if not _is_at(settings, bound):
        return f"bind_address is {settings.bind_address} now, and they are at {bound}"
    receiving = _fastpath.receiving(kept)
    if count != receiving:
        return f"{count} workers are wanted now, and they are {receiving}"
    return ""


def _is_at(settings: Settings, bound: Address) -> bool:
    wanted = settings.bind_address
    return wanted.ip == bound.ip and wanted.port in (0, bound.port)


def _fit_buffers(settings: Settings, sockets: Sequence[int], *, may_shrink: bool) -> None:
    """As if they were opened now; those of a socket unit are only made larger."""
    try:
        nowhere = Address(settings.bind_address.ip, 0)
        (fresh,) = _fastpath.open_sockets(nowhere, 1, settings.buffer_size)
        wanted = _receive_buffer(fresh)
        os.close(fresh)
        for descriptor in sockets[: _fastpath.receiving(sockets)]:
            if _receive_buffer(descriptor) < wanted or may_shrink:
                _set_receive_buffer(descriptor, wanted)
    except OSError as error:
        _log.warning("buffer_size is not applied to the sockets given", reason=error.strerror)


def _receive_buffer(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def _set_receive_buffer(descriptor: int, size: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        set_receive_buffer(sock, size // 2)  # socket(7): the kernel doubles it


def open_in_hand(sockets: Sequence[int]) -> int | None:
    """Memory for what a server has received and not sent; None where there is none to be had."""
    try:
        return _fastpath.open_in_hand(_fastpath.receiving(sockets))
    except OSError as error:
        _log.warning("what a server has in hand will die with it", reason=error.strerror)
        return None


def fitting_memory(left: int | None, ours: int | None, sockets: Sequence[int]) -> int | None:
    """Of two memories the one that the next server takes, the other closed.

    `left` by a server of another version, which may lay it out otherwise; `ours` has nothing in it.
    """
    if left is None:
        return ours
    if ours is None:
        ours = open_in_hand(sockets)
    if ours is None or os.fstat(left).st_size != os.fstat(ours).st_size:
        os.close(left)
        return ours
    os.close(ours)
    return left


def fitting(settings: Settings, sockets: Sequence[int]) -> Settings:
    """`settings` for a server that adopts `sockets`: none of them may be without a worker."""
    updates: dict[str, Any] = {}
    receiving = _fastpath.receiving(sockets)
    if worker_count(settings.workers) < receiving:
        _log.warning("workers is less than the ingress sockets there are", sockets=receiving)
        updates["workers"] = receiving
    bound = address_of(sockets[0])
    if not _is_at(settings, bound):
        _log.warning(
            "bind_address is not where the ingress sockets are, which stay",
            bind_address=str(settings.bind_address),
            sockets=str(bound),
        )
        updates["bind_address"] = bound
    return settings.model_copy(update=updates)


def inherited(wanted: Settings, before: dict[str, Any], sockets: Sequence[int]) -> Settings:
    """`wanted` with the free ports that were found before, for `sockets`."""
    return fitting(with_found(wanted, before), sockets)


def with_found(settings: Settings, found: Mapping[str, Any]) -> Settings:
    """`settings` with the addresses `found` for those of FREE_PORTS that any free port is good."""
    updates = {
        key: Address.parse(found[key])
        for key in FREE_PORTS
        if found.get(key) and (wanted := getattr(settings, key)) and wanted.port == 0
    }
    return settings.model_copy(update=updates)


def address_of(descriptor: int) -> Address:
    """What a socket is bound to."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        return bound_address(sock)
