"""The pages, and who may see them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from rtpfanout.http.pages import Kitchen, Made, Page, registry_page
from rtpfanout.http.turnstile import Turnstile

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

INDEX = """\
rtpfanout
/metrics            Prometheus metrics of the server
/metrics/sessions   series per session; many when there are many sessions
/healthz            200 while the packet loop runs
/readyz             200 while packets and calls are taken
"""


PAGE_LINE = "/                   in a browser: the sessions, as they are now\n"
"""Of INDEX, where there is a page."""


@dataclass(frozen=True, slots=True)
class Site:
    """A page for browsers: `index` answers /, `app` what is below `path`; `close` ends what is
    still being answered."""

    index: Callable[[Request], Awaitable[Response]]
    path: str
    app: ASGIApp
    close: Callable[[], None]


REUSE_SECONDS = 1.0
"""For which a page with series per session is good for others too."""
CHUNK_BYTES = 64 * 1024

_REFUSALS = {
    401: "a bearer token is needed; or serve metrics on a loopback address\n",
    403: "this token is confined to some of the sessions\n",
}


def create_app(
    *,
    server_metrics: CollectorRegistry,
    session_series: Callable[[bool], Iterator[bytes]],
    is_alive: Callable[[], bool],
    is_ready: Callable[[], bool],
    sessions_status: Callable[[str], int] | None = None,
    page: Site | None = None,
) -> ASGIApp:
    """The pages of INDEX. A failing check answers 503.

    `session_series` makes a page, with True in OpenMetrics. `sessions_status` judges the header
    Authorization of those who want it. `page` is for browsers.
    """
    turnstile = Turnstile()

    def pages(make: Callable[[bool], Iterator[bytes]], reuse: float) -> tuple[Page, Page]:
        kitchen = Kitchen()
        return Page(lambda: make(False), kitchen, reuse), Page(lambda: make(True), kitchen, reuse)

    of_server = pages(registry_page(server_metrics), 0)
    of_sessions = pages(session_series, REUSE_SECONDS)
    app = Starlette(
        routes=[
            Route("/", _for_browsers(page.index) if page else _index),
            Route("/metrics", _exposition(of_server, turnstile)),
            Route("/metrics/sessions", _exposition(of_sessions, turnstile, sessions_status)),
            Route("/healthz", _check(is_alive)),
            Route("/readyz", _check(is_ready)),
            *([Mount(page.path, page.app)] if page else []),
        ]
    )

    async def in_turn(scope: Scope, receive: Receive, send: Send) -> None:
        await turnstile.turn()
        await app(scope, receive, send)

    return in_turn


async def _index(_request: Request) -> Response:
    return PlainTextResponse(INDEX)


async def _index_beside_page(_request: Request) -> Response:
    return PlainTextResponse(INDEX + PAGE_LINE)


def _for_browsers(
    index: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Others are shown what there is."""

    async def either(request: Request) -> Response:
        wants_html = "text/html" in request.headers.get("accept", "")
        response = await (index if wants_html else _index_beside_page)(request)
        response.headers["Vary"] = "Accept"
        return response

    return either


# Coroutines all: Starlette would run others in threads, which fight with each other and with the
# control calls for the interpreter.
def _exposition(
    pages: tuple[Page, Page],
    turnstile: Turnstile,
    judge: Callable[[str], int] | None = None,
) -> Callable[[Request], Awaitable[Response]]:
    async def page(request: Request) -> Response:
        if judge and (status := judge(request.headers.get("authorization", ""))) != 200:
            return PlainTextResponse(_REFUSALS[status], status, {"WWW-Authenticate": "Bearer"})
        _, content_type = choose_encoder(request.headers.get("accept", ""))
        chosen = pages[content_type.startswith("application/openmetrics-text")]
        return _PageResponse(chosen, content_type, turnstile)

    return page


class _PageResponse(Response):
    """A page as soon as it is made, in chunks; nothing for who has gone."""

    def __init__(self, page: Page, content_type: str, turnstile: Turnstile) -> None:
        super().__init__(headers={"content-type": content_type})
        self._page = page
        self._content_type = content_type
        self._turnstile = turnstile

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        gone = asyncio.ensure_future(_gone(receive))
        getting = asyncio.ensure_future(self._page.get())
        try:
            await asyncio.wait((gone, getting), return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                await self._send(getting.result(), send, gone)
        finally:
            for task in (gone, getting):
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await getting

    async def _send(self, made: Made, send: Send, gone: asyncio.Future[None]) -> None:
        headers = [
            (b"content-type", self._content_type.encode()),
            (b"content-length", str(made.size).encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in _chunks(made.pieces):
            await self._turnstile.turn()
            if gone.done():
                return
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _chunks(pieces: list[bytes]) -> Iterator[bytes]:
    chunk = bytearray()
    for piece in pieces:
        chunk += piece
        if len(chunk) >= CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    if chunk:
        yield bytes(chunk)


def _check(is_fine: Callable[[], bool]) -> Callable[[Request], Awaitable[Response]]:
    async def check(_request: Request) -> Response:
        return PlainTextResponse("ok\n") if is_fine() else PlainTextResponse("no\n", 503)

    return check
