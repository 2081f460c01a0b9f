"""The server process under a supervisor: does as it is told, and tells how far it is."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from rtpfanout.assembly import totals
from rtpfanout.config import Settings
from rtpfanout.errors import RtpFanoutError
from rtpfanout.server import Server
from rtpfanout.supervisor.watching import watch_workers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.supervisor.link import Link

EXIT_FAILED = 1
_PR_SET_PDEATHSIG = 1
_TRY_AGAIN_SECONDS = 1.0

_log = structlog.stdlib.get_logger(__name__)


def main(
    settings: Settings,
    sockets: Sequence[int],
    in_hand: int | None,
    link: Link,
    supervisor: int,
    *,
    waits: bool,
    trusts_store: bool,
) -> NoReturn:
    """In the new process, a child of the process `supervisor`.

    With `waits` a server is still running whose place this one takes: nothing is read or bound
    before the supervisor says so. `trusts_store`: the one before read it without a fault.
    """
    code = EXIT_FAILED
    try:
        _die_with(supervisor)
        gc.disable()  # until packets flow: it would copy every page that the fork shares
        server = Server(settings, sockets, in_hand, trusts_store=trusts_store)
        watch_workers(server, link)
        code = asyncio.run(_serve(server, link, waits=waits))
    except RtpFanoutError as error:
        link.tell("failed", message=error.message, field=error.field)
    except BaseException:
        _log.critical("server process failed", exc_info=True)
    finally:
        os._exit(code)


def _die_with(supervisor: int) -> None:
    """SIGKILL when the supervisor is gone: nobody would hold the sockets or start another."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it ended before
        os._exit(EXIT_FAILED)


class _Orders:
    """What the supervisor says, one message at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(link.sock, self._read)

    async def next(self) -> dict[str, Any]:
        """The next message; its word is "gone" when the supervisor is."""
        return await self._queue.get()

    async def wait_for(self, word: str) -> None:
        while (heard := await self.next())["word"] != word:
            if heard["word"] == "gone":
                os._exit(EXIT_FAILED)

    def _read(self) -> None:
        for message in self._link.heard():
            self._queue.put_nowait(message)
        if self._link.closed:
            asyncio.get_running_loop().remove_reader(self._link.sock)
            self._queue.put_nowait({"word": "gone"})


async def _serve(server: Server, link: Link, *, waits: bool) -> int:
    orders = _Orders(link)
    if waits:
        await orders.wait_for("prepare")
        server.prepare()
        server.catch_up()
        server.bind_serving()
        link.tell("prepared")
        await orders.wait_for("go")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.finished.set)
    if not waits:
        server.prepare()
    server.start_packets()
    gc.enable()
    link.tell("forwarding")
    try:
        if not waits:
            server.catch_up()
            server.bind_serving()
        await server.start_serving()
    except BaseException:
        await server.stop()
        raise
    _tell_ready(server, link)
    if await _until_told(server, orders, link) == "hand over":
        await server.stop_packets(drain=False)
        _log.info("handed over", **totals(server.engine))
        link.tell("handed over")
        return 0
    _log.info("stopping")
    await server.drain()
    await server.stop()
    _log.info("stopped", **totals(server.engine))
    return EXIT_FAILED if server.failed else 0


def _tell_ready(server: Server, link: Link) -> None:
    link.tell(
        "ready",
        bind_address=str(server.ingest_address),
        grpc_bind_address=str(server.grpc_address),
        metrics_bind_address=str(server.metrics_address) if server.metrics_address else "",
    )


async def _until_told(server: Server, orders: _Orders, link: Link) -> str:
    """ "hand over" by the supervisor, or "finish" for whatever reason."""
    finished = asyncio.ensure_future(server.finished.wait())
    while True:
        order = asyncio.ensure_future(orders.next())
        await asyncio.wait({order, finished}, return_when=asyncio.FIRST_COMPLETED)
        if not order.done():
            order.cancel()
            return "finish"
        match order.result():
            case {"word": "suspend"}:
                await server.stop_serving()
                link.tell("suspended")
            case {"word": "resume"}:
                await _resume(server)
                _tell_ready(server, link)
            case {"word": "reload"}:
                link.tell("reloaded", **await _reload(server, order.result()))
            case {"word": "hand over"}:
                finished.cancel()
                return "hand over"
            case {"word": "gone"}:
                return "finish"


async def _reload(server: Server, told: dict[str, Any]) -> dict[str, Any]:
    """Applies the settings that were told; why not, if that fails."""
    before = server.settings
    try:
        settings = await asyncio.to_thread(Settings.model_validate, told["settings"])
        needs_restart = await server.reconfigure(settings, told.get("needs_restart"))
    except Exception as error:
        server.settings = before
        _log.exception("configuration not reloaded")
        return {"error": f"the server can't apply it: {error}", "needs_restart": []}
    return {"error": "", "needs_restart": list(needs_restart)}


async def _resume(server: Server) -> None:
    """Packets were never stopped; calls are taken again as soon as that is possible."""
    while not server.finished.is_set():
        try:
            await server.resume_serving()
        except RtpFanoutError as error:
            _log.error("calls can't be taken again yet", key=error.field, reason=error.message)
            await server.stop_serving()
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
        else:
            return
