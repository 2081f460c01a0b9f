"""The ingress sockets: opened, given by systemd, or inherited; the settings that fit them.

And the memory that they are read into.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import structlog

from rtpfanout import _fastpath
from rtpfanout.assembly import store_path
from rtpfanout.listening import bind_error
from rtpfanout.model import Address
from rtpfanout.store import MEMORY
from rtpfanout.supervisor.notify import given_sockets
from rtpfanout.workers import worker_count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rtpfanout.config import Settings
    from rtpfanout.supervisor.notify import Notifier

FREE_PORTS = ("grpc_bind_address", "metrics_bind_address")
"""Keys of addresses that the next server gets as this one found them."""

_log = structlog.stdlib.get_logger(__name__)


def open_or_adopt(settings: Settings, notifier: Notifier) -> list[int]:
    """systemd's, or else new ones that systemd is asked to keep. Raises StartError."""
    if given := given_sockets():
        return given
    try:
        sockets = _fastpath.open_sockets(
            settings.bind_address, worker_count(settings.workers), settings.buffer_size
        )
    except OSError as error:
        raise bind_error(error, settings.bind_address, "bind_address") from None
    notifier.keep(sockets)
    return list(sockets)


def open_in_hand(sockets: Sequence[int]) -> int | None:
    """Memory for what a server has received and not sent; None where there is none to be had."""
    try:
        return _fastpath.open_in_hand(len(sockets))
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
    if worker_count(settings.workers) < len(sockets):
        _log.warning("workers is less than the ingress sockets there are", sockets=len(sockets))
        updates["workers"] = len(sockets)
    bound = address_of(sockets[0])
    if settings.bind_address.port not in (0, bound.port):
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
        if found.get(key) and getattr(settings, key).port == 0
    }
    return settings.model_copy(update=updates)


def forgets(settings: Settings) -> bool:
    """Another process would know none of the sessions."""
    return store_path(settings) == MEMORY


def address_of(descriptor: int) -> Address:
    """What a socket is bound to."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        host, port = sock.getsockname()[:2]
    return Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
