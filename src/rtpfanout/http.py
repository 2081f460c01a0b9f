"""The HTTP side: metrics for Prometheus, health for whoever keeps the process alive."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import uvicorn
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Iterator

    from prometheus_client import CollectorRegistry
    from starlette.requests import Request

INDEX = """\
rtpfanout
/metrics            Prometheus metrics of the server
/metrics/sessions   series per session; many when there are many sessions
/healthz            200 while the packet loop runs
/readyz             200 while packets and calls are taken
"""

_REFUSALS = {
    401: "a bearer token is needed; or serve metrics on a loopback address\n",
    403: "this token is confined to some of the sessions\n",
}


def create_app(
    *,
    server_metrics: CollectorRegistry,
    session_metrics: CollectorRegistry,
    is_alive: Callable[[], bool],
    is_ready: Callable[[], bool],
    sessions_status: Callable[[str], int] | None = None,
) -> Starlette:
    """The pages of INDEX. A failing check answers 503.

    `sessions_status` judges the header Authorization of those who want the series per session.
    """
    return Starlette(
        routes=[
            Route("/", lambda _request: PlainTextResponse(INDEX)),
            Route("/metrics", _exposition(server_metrics)),
            Route("/metrics/sessions", _exposition(session_metrics, sessions_status)),
            Route("/healthz", _check(is_alive)),
            Route("/readyz", _check(is_ready)),
        ]
    )


class HttpServer(uvicorn.Server):
    """uvicorn as a guest: signals and logging are the host's business."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    async def serve_on(self, listener: socket.socket) -> None:
        """Serves until `should_exit` is set, then closes `listener`."""
        await self.serve(sockets=[listener])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves SIGTERM and SIGINT alone."""
        yield


# Not coroutines: Starlette runs them in a thread, so a page of 10,000 sessions that takes
# a second to write holds up no control call.
def _exposition(
    registry: CollectorRegistry, judge: Callable[[str], int] | None = None
) -> Callable[[Request], Response]:
    def page(request: Request) -> Response:
        if judge and (status := judge(request.headers.get("authorization", ""))) != 200:
            return PlainTextResponse(_REFUSALS[status], status, {"WWW-Authenticate": "Bearer"})
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), media_type=None, headers={"content-type": content_type})

    return page


def _check(is_fine: Callable[[], bool]) -> Callable[[Request], Awaitable[Response]]:
    async def check(_request: Request) -> Response:
        return PlainTextResponse("ok\n") if is_fine() else PlainTextResponse("no\n", 503)

    return check
