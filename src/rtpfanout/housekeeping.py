"""What a running server does again and again beside packets and calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from rtpfanout.pressure import Pressure
from rtpfanout.seldom import Seldom
from rtpfanout.sessions import which

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.groups import Memberships
    from rtpfanout.sessions import Housekeeping

HOUSEKEEPING_SECONDS = 1.0
GROUPS_SECONDS = 2.0
LISTEN_SECONDS = 0.5
"""For what routers and receivers say of copies; each time only so much is taken."""
CONDITIONS_SECONDS = 0.5
"""A change is told within a second."""
_log = structlog.stdlib.get_logger(__name__)


async def housekeep(
    engine: Engine,
    sessions: Housekeeping,
    memberships: Memberships,
    look_at_cpus: Callable[[], None],
    listen: Callable[[], None],
    show_local_addresses: Callable[[], None],
    session_timeout_secs: Callable[[], float],
    further: Sequence[tuple[Callable[[], object], float]] = (),
) -> None:
    """Until cancelled, and then until nothing of it runs any more: what it uses can be closed.

    `further` are calls and how many seconds they are apart.

    Each apart, because ending sessions and keeping consents wait for a disk that may hang.
    """
    pressure = Pressure(engine)
    calls: list[tuple[Callable[[], object], float]] = [
        (lambda: sessions.on_sample(pressure.sample()), HOUSEKEEPING_SECONDS),
        (sessions.keep_consents, HOUSEKEEPING_SECONDS),
        (sessions.keep_clock, HOUSEKEEPING_SECONDS),
        (lambda: _expire_sessions(sessions, session_timeout_secs()), HOUSEKEEPING_SECONDS),
        (sessions.serve_again, HOUSEKEEPING_SECONDS),
        (sessions.tell_conditions, CONDITIONS_SECONDS),
        (sessions.tell_latches, HOUSEKEEPING_SECONDS),
        (show_local_addresses, HOUSEKEEPING_SECONDS),
        (look_at_cpus, HOUSEKEEPING_SECONDS),
        (listen, LISTEN_SECONDS),
        (memberships.look, GROUPS_SECONDS),
        *further,
    ]
    async with asyncio.TaskGroup() as tasks:
        # At once, for what was restored may have ended since it was read.
        tasks.create_task(_every(HOUSEKEEPING_SECONDS, sessions.expire_subscribers, first=0.0))
        for call, seconds in calls:
            tasks.create_task(_every(seconds, call))
        tasks.create_task(_once(sessions.follow_sources, Seldom(3)))


def _expire_sessions(sessions: Housekeeping, timeout_secs: float) -> None:
    for view in sessions.expire_idle():
        own = view.terms.idle_timeout_secs
        _log.info(
            "session expired",
            **which(view),
            source=view.source_address,
            ssrc=view.ssrc_text,
            subscribers=view.subscriber_count,
            **{"session_timeout_secs": timeout_secs} if own is None else {"idle_timeout_secs": own},
        )


async def _every(seconds: float, call: Callable[[], object], *, first: float | None = None) -> None:
    """`call` over and over, in a thread, as it waits for the packet loop or for the store."""
    pause = seconds if first is None else first
    faults = Seldom(3)
    while True:
        await asyncio.sleep(pause)
        pause = seconds
        await _once(call, faults)


async def _once(call: Callable[[], object], faults: Seldom) -> None:
    """Whoever cancels this waits for `call`, for no thread can be cancelled."""
    running = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait([running])
        raise
    except Exception:
        faults.write(_log.exception, "housekeeping failed")
