"""What a running server does again and again beside packets and calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from rtpfanout.pressure import Pressure
from rtpfanout.seldom import Seldom

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout._fastpath import Engine
    from rtpfanout.groups import Memberships
    from rtpfanout.sessions import SessionManager

HOUSEKEEPING_SECONDS = 1.0
GROUPS_SECONDS = 2.0
_log = structlog.stdlib.get_logger(__name__)


async def housekeep(
    engine: Engine,
    manager: SessionManager,
    memberships: Memberships,
    show_local_addresses: Callable[[], None],
    session_timeout_secs: Callable[[], float],
) -> None:
    """Until cancelled. Each apart, because ending sessions and keeping consents wait for a disk
    that may hang."""
    pressure = Pressure(engine)
    await asyncio.gather(
        _every(HOUSEKEEPING_SECONDS, lambda: manager.on_sample(pressure.sample())),
        # At once, for what was restored may have ended since it was read.
        _every(HOUSEKEEPING_SECONDS, manager.expire_subscribers, first=0.0),
        _every(HOUSEKEEPING_SECONDS, manager.keep_consents),
        _every(HOUSEKEEPING_SECONDS, manager.keep_clock),
        _every(HOUSEKEEPING_SECONDS, lambda: _expire_sessions(manager, session_timeout_secs())),
        _every(HOUSEKEEPING_SECONDS, manager.serve_again),
        _every(HOUSEKEEPING_SECONDS, show_local_addresses),
        _every(GROUPS_SECONDS, memberships.look),
        asyncio.to_thread(manager.follow_sources),
    )


def _expire_sessions(manager: SessionManager, timeout_secs: float) -> None:
    for view in manager.expire_idle():
        _log.info(
            "session expired",
            session_id=view.session_id,
            source=view.source_address,
            ssrc=f"{view.ssrc:#010x}",
            subscribers=view.subscriber_count,
            session_timeout_secs=timeout_secs,
        )


async def _every(seconds: float, call: Callable[[], object], *, first: float | None = None) -> None:
    """`call` over and over, in a thread, as it waits for the packet loop or for the store."""
    pause = seconds if first is None else first
    faults = Seldom(3)
    while True:
        await asyncio.sleep(pause)
        pause = seconds
        try:
            await asyncio.to_thread(call)
        except Exception:
            faults.write(_log.exception, "housekeeping failed")
