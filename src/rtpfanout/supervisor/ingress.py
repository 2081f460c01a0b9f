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
    from collections.abc import Sequence

    from rtpfanout.config import Settings
    from rtpfanout.supervisor.notify import Notifier

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
        return _fastpath.open_in_hand(_fastpath.receiving(sockets))
    except OSError as error:
        _log.warning("what a server has in hand will die with it", reason=error.strerror)
        return None


def fitting(settings: Settings, sockets: Sequence[int]) -> Settings:
    """`settings` for a server that adopts `sockets`: none of them may be without a worker."""
    updates: dict[str, Any] = {}
    receiving = _fastpath.receiving(sockets)
    if worker_count(settings.workers) < receiving:
        _log.warning("workers is less than the ingress sockets there are", sockets=receiving)
        updates["workers"] = receiving
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
    found = {
        key: address
        for key in ("grpc_bind_address", "metrics_bind_address")
        if (address := Address.parse(before[key])) and getattr(wanted, key).port == 0
    }
    return fitting(wanted.model_copy(update=found), sockets)


def forgets(settings: Settings) -> bool:
    """Another process would know none of the sessions."""
    return store_path(settings) == MEMORY


def address_of(descriptor: int) -> Address:
    """What a socket is bound to."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        host, port = sock.getsockname()[:2]
    return Address.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
