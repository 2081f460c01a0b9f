"""The server process under a supervisor: does as it is told, and tells how far it is."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, NoReturn

import structlog

from rtpfanout.errors import RtpFanoutError
from rtpfanout.server import Server, totals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rtpfanout.config import Settings
    from rtpfanout.supervisor.link import Link

STUCK_SECONDS = 2.0
WATCH_SECONDS = 0.5
EXIT_FAILED, EXIT_STUCK = 1, 70
_PR_SET_PDEATHSIG = 1

_log = structlog.stdlib.get_logger(__name__)


def main(
    settings: Settings,
    sockets: Sequence[int],
    link: Link,
    reload: Callable[[], Settings],
    *,
    waits: bool,
) -> NoReturn:
    """In the new process, right after the fork. With `waits` a server is still running whose place
    this one takes: nothing is read or bound before the supervisor says so."""
    code = EXIT_FAILED
    try:
        _die_with(os.getppid())
        for number in (signal.SIGINT, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)  # the supervisor's
        code = asyncio.run(_serve(settings, sockets, link, reload, waits=waits))
    except RtpFanoutError as error:
        link.tell("failed", message=error.message, field=error.field)
    except BaseException:
        _log.critical("server process failed", exc_info=True)
    finally:
        os._exit(code)


def _die_with(parent: int) -> None:
    """SIGKILL when the supervisor is gone: nobody would hold the sockets or start another."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(EXIT_FAILED)


class _Orders:
    """What the supervisor says, one word at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(link.sock, self._read)

    async def next(self) -> str:
        """The next word; "gone" when the supervisor is."""
        return await self._queue.get()

    async def wait_for(self, word: str) -> None:
        while (heard := await self.next()) != word:
            if heard == "gone":
                os._exit(EXIT_FAILED)

    def answer(self, word: str) -> None:
        """To the supervisor."""
        self._link.tell(word)

    def _read(self) -> None:
        for message in self._link.heard():
            self._queue.put_nowait(message["word"])
        if self._link.closed:
            asyncio.get_running_loop().remove_reader(self._link.sock)
            self._queue.put_nowait("gone")


async def _serve(
    settings: Settings,
    sockets: Sequence[int],
    link: Link,
    reload: Callable[[], Settings],
    *,
    waits: bool,
) -> int:
    server = Server(settings, sockets)
    orders = _Orders(link)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, server.finished.set)
    loop.add_signal_handler(signal.SIGHUP, lambda: _reload(server, reload, link))
    if waits:
        link.tell("waiting")
        await orders.wait_for("prepare")
    server.prepare()
    if waits:
        link.tell("prepared")
        await orders.wait_for("go")
    server.start_packets()
    link.tell("forwarding")
    watch_workers(server)
    try:
        await server.start_serving()
    except BaseException:
        await server.stop()
        raise
    link.tell(
        "ready",
        bind_address=str(server.ingest_address),
        grpc_bind_address=str(server.grpc_address),
    )
    if await _until_told(server, orders) == "hand over":
        await server.stop_packets(drain=False)
        _log.info("handed over", **totals(server.engine))
        link.tell("handed over")
        return 0
    _log.info("stopping")
    await server.drain()
    await server.stop()
    _log.info("stopped", **totals(server.engine))
    return EXIT_FAILED if server.failed else 0


async def _until_told(server: Server, orders: _Orders) -> str:
    """ "hand over" by the supervisor, or "finish" for whatever reason."""
    finished = asyncio.ensure_future(server.finished.wait())
    while True:
        order = asyncio.ensure_future(orders.next())
        await asyncio.wait({order, finished}, return_when=asyncio.FIRST_COMPLETED)
        if not order.done():
            order.cancel()
            return "finish"
        if order.result() == "suspend":
            await server.stop_serving()
            orders.answer("suspended")
        elif order.result() == "hand over":
            finished.cancel()
            return "hand over"
        elif order.result() == "gone":
            return "finish"


def _reload(server: Server, reload: Callable[[], Settings], link: Link) -> None:
    try:
        settings = reload()
    except RtpFanoutError as error:
        _log.error("configuration not reloaded", reason=error.message, key=error.field)
        link.tell("reloaded", error=error.message)
        return
    needs_restart = server.reconfigure(settings)
    link.tell("reloaded", error="", needs_restart=needs_restart)


def watch_workers(server: Server) -> threading.Thread:
    """Ends this process when a packet loop shows no sign of life for STUCK_SECONDS.

    A thread that hangs in the kernel can't be ended by itself; another process takes over.
    """
    thread = threading.Thread(target=_watch, args=(server,), name="rtpfanout-watch", daemon=True)
    thread.start()
    return thread


def _watch(server: Server) -> None:
    while True:
        time.sleep(WATCH_SECONDS)
        if not server.is_alive:  # ended, by itself or because it was told to
            return
        now = time.monotonic_ns()
        for index, (last_sign, _busy) in enumerate(server.engine.worker_health()):
            if last_sign and now - last_sign > STUCK_SECONDS * 1e9 and server.is_alive:
                with contextlib.suppress(Exception):
                    _log.critical(
                        "packet loop is stuck, this process ends",
                        worker=index,
                        seconds=(now - last_sign) / 1e9,
                    )
                os._exit(EXIT_STUCK)
