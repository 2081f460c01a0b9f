"""The server process: does as its supervisor tells it, and tells how far it is."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import structlog

from rtpfanout.assembly import Start, totals
from rtpfanout.config import Settings
from rtpfanout.errors import RtpFanoutError
from rtpfanout.server import Server
from rtpfanout.supervisor.keeping import taken, teller
from rtpfanout.supervisor.link import Link
from rtpfanout.supervisor.watching import watch_workers

if TYPE_CHECKING:
    from rtpfanout.kept import KeptSockets

EXIT_FAILED = 1
_PR_SET_PDEATHSIG = 1
_TRY_AGAIN_SECONDS = 1.0

_log = structlog.stdlib.get_logger(__name__)


def alone(settings: Settings) -> int:
    """Without a supervisor, until a signal. 0 after an orderly end, 1 if the packet loop failed.

    Raises StartError.
    """
    ends = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup(1) leaves it
        ends.append(signal.SIGHUP)
    start = Start(settings)
    return asyncio.run(_serve(Server(start), start, Link.to_nobody(), ends))


def main(start: Start, link: Link, supervisor: int, *, keeps: bool = True) -> NoReturn:
    """In the new process, a child of the process `supervisor`, which `keeps` sockets it is told of.

    If it waits, nothing is read or bound before the supervisor says so.
    """
    if keeps:
        start.kept.attach(teller(link), knows=True)
    code = EXIT_FAILED
    try:
        _die_with(supervisor)
        gc.disable()  # until packets flow: it would copy every page that the fork shares
        server = Server(start)
        watch_workers(server, link)
        code = asyncio.run(_serve(server, start, link, [signal.SIGTERM]))
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

    def __init__(self, link: Link, kept: KeptSockets) -> None:
        self._link = link
        self._kept = kept
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        if not link.closed:
            asyncio.get_running_loop().add_reader(link.sock, self._read)

    async def next(self) -> dict[str, Any]:
        """The next message; its word is "gone" when the supervisor is."""
        return await self._queue.get()

    async def wait_for(self, word: str) -> None:
        while (heard := await self.next())["word"] != word:
            if heard["word"] == "gone":
                os._exit(EXIT_FAILED)
            if heard["word"] == "take":
                self._kept.take(taken(heard))

    def _read(self) -> None:
        for message in self._link.heard():
            self._queue.put_nowait(message)
        if self._link.closed:
            asyncio.get_running_loop().remove_reader(self._link.sock)
            self._queue.put_nowait({"word": "gone"})


async def _serve(server: Server, start: Start, link: Link, ends: Sequence[signal.Signals]) -> int:
    """Until it is told to end, or by one of the signals `ends`; the exit code."""
    orders = _Orders(link, start.kept)

    def heed_signals() -> None:
        for number in ends:
            asyncio.get_running_loop().add_signal_handler(number, server.finished.set)

    def on_packets() -> None:
        gc.enable()
        link.tell("forwarding")

    async def our_turn() -> None:
        link.tell("prepared")
        await orders.wait_for("go")
        heed_signals()

    if start.waits:
        await orders.wait_for("prepare")
        await server.start(on_packets, our_turn)
    else:
        heed_signals()
        await server.start(on_packets)
    _tell_ready(server, link)
    if await _until_told(server, start, orders, link) == "hand over":
        await server.stop_packets(leaves_queue=True)
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
        bind_address=str(server.ingress_address),
        grpc_bind_address=str(server.grpc_address),
        metrics_bind_address=str(server.metrics_address) if server.metrics_address else "",
        rtsp_bind_address=str(server.rtsp_address) if server.rtsp_address else "",
    )


async def _until_told(server: Server, start: Start, orders: _Orders, link: Link) -> str:
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
            case {"word": "show"}:  # a supervisor of this version, in the place of one before
                await asyncio.to_thread(start.kept.attach, teller(link), knows=False)
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
