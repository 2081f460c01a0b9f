"""Tells when addresses or interfaces of this host come and go (rtnetlink(7))."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

# linux/rtnetlink.h: RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_GROUPS = 0x1 | 0x10 | 0x100
_MOST_AT_ONCE = 1000
_log = structlog.stdlib.get_logger(__name__)


async def call_on_changes(call: Callable[[], object], every_secs: float) -> None:
    """`call` in a thread after each change, and at least every so many seconds; never returns.

    Where the kernel does not tell of changes it is the seconds alone.
    """
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    with contextlib.ExitStack() as stack:
        try:
            netlink = stack.enter_context(_open())
        except OSError as error:
            _log.warning("changes of this host's addresses are looked for", reason=str(error))
        else:
            loop.add_reader(netlink, lambda: _take(netlink, changed))
            stack.callback(loop.remove_reader, netlink)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), every_secs)
            changed.clear()
            try:
                await asyncio.to_thread(call)
            except Exception:
                _log.exception("housekeeping failed")


def _open() -> socket.socket:
    netlink = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    try:
        netlink.bind((0, _GROUPS))
    except OSError:
        netlink.close()
        raise
    return netlink


def _take(netlink: socket.socket, changed: asyncio.Event) -> None:
    """What they say is read anew; ENOBUFS, that some were lost, is a change too."""
    changed.set()
    with contextlib.suppress(OSError):
        for _ in range(_MOST_AT_ONCE):
            netlink.recv(65536)
