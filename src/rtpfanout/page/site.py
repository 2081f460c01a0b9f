"""The paths of the page: its files, and what they ask for."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, Router

from rtpfanout.errors import (
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RtpFanoutError,
    UnauthenticatedError,
    UnknownNameError,
)
from rtpfanout.http import Kitchen, Site
from rtpfanout.page import about
from rtpfanout.page.board import Board, Query
from rtpfanout.page.stream import Streams, number_of
from rtpfanout.page.viewers import Viewers, may
from rtpfanout.sessions import SCOPE, Wanted

if TYPE_CHECKING:
    from starlette.requests import Request

    from rtpfanout.auth import Access, Identity
    from rtpfanout.model import Address
    from rtpfanout.sessions import SessionManager

    Answer = Callable[[Request, Identity], Awaitable[bytes | AsyncIterator[bytes]]]

PATH = "/page"
"""Below it everything is but the page itself."""
ASSETS = Path(__file__).parent / "assets"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {
    # Nothing but the files beside the page, whatever a name or a label holds.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_STATUS = {
    UnknownNameError: 404,
    InvalidArgumentError: 400,
    UnauthenticatedError: 401,
    PermissionDeniedError: 403,
    NotFoundError: 404,
}


class _File(NamedTuple):
    content: bytes
    headers: Mapping[str, str]


def _read(path: Path) -> _File:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    kept = {"Cache-Control": "no-cache", "ETag": tag, "Content-Type": _TYPES[path.suffix]}
    return _File(content, {**_HEADERS, **kept})


_FILES = {path.name: _read(path) for path in ASSETS.iterdir() if path.suffix in _TYPES}
"""Read with this module: they stay as they belong together whatever is installed meanwhile."""


def create_site(
    manager: SessionManager,
    access: Access,
    ingest: Address,
    rtsp: Mapping[str, Any] | None,
    *,
    is_local: bool,
    is_insecure: bool,
) -> Site:
    """`ingest` is where RTP comes in, `rtsp` where players find sessions: scheme, host ("": any of
    this host's) and port. `is_local`: HTTP is served on a loopback address; `is_insecure`: see the
    key insecure."""
    viewers = Viewers(access, is_local=is_local, is_insecure=is_insecure)
    answers = _Answers(manager, ingest, rtsp)
    asked: dict[str, tuple[str, Answer]] = {
        "sessions": ("ListSessions", answers.sessions),
        "session": ("GetSessionStats", answers.session),
        "subscribers": ("ListSubscribers", answers.subscribers),
        "knocks": ("ListKnocks", answers.knocks),
        "events": ("WatchEvents", answers.events),
    }
    routes = [
        Route(f"/api/{name}", _asked(viewers, method, answer))
        for name, (method, answer) in asked.items()
    ]
    return Site(_index, PATH, Router([*routes, Route("/{name}", _file)]), answers.streams.close)


class _Answers:
    """What the page asks; each may raise what its call of the API does."""

    def __init__(
        self, manager: SessionManager, ingest: Address, rtsp: Mapping[str, Any] | None
    ) -> None:
        self._manager = manager
        self._ingest = ingest
        self._rtsp = rtsp
        self._board = Board(manager.overview, Kitchen())
        self.streams = Streams(manager.events)

    async def sessions(self, request: Request, identity: Identity) -> bytes:
        query = Query.read(request.query_params)
        return await self._board.answer(query, identity.scope, self._facts(identity))

    async def session(self, request: Request, identity: Identity) -> bytes:
        parameters = request.query_params
        found = about.session(
            self._manager, parameters.get("id", ""), has_history=parameters.get("history") == "1"
        )
        viewer = request.client.host if request.client else ""
        return _json({**self._facts(identity), "viewer": viewer, "rtsp": self._rtsp, **found})

    async def subscribers(self, request: Request, _identity: Identity) -> bytes:
        parameters = request.query_params
        session_id, cursor = parameters.get("id", ""), parameters.get("cursor", "")
        return _json(await about.subscribers(self._manager, session_id, cursor))

    async def knocks(self, _request: Request, _identity: Identity) -> bytes:
        return _json(about.knocks(self._manager))

    async def events(self, request: Request, identity: Identity) -> AsyncIterator[bytes]:
        scope = ",".join(f"{key}={value}" for key, value in identity.scope)
        wanted = Wanted.of(scope, request.query_params.get("session", ""), ())
        return self.streams.open(wanted, number_of(request.query_params.get("after", "")))

    def _facts(self, identity: Identity) -> dict[str, Any]:
        """About the server."""
        found = {
            "at_ms": round(time.time() * 1000),
            "host": socket.gethostname(),
            "ingest": str(self._ingest),
        }
        if may(identity, "ListKnocks"):
            found["knocking"] = self._manager.overview.knocking
        return found


def _asked(
    viewers: Viewers, method: str, answer: Answer
) -> Callable[[Request], Awaitable[Response]]:
    """What `answer` says to who may make this call of the API, as JSON or as a stream of events;
    else why not."""

    async def answered(request: Request) -> Response:
        status = 200
        try:
            identity = viewers.admit(request, method)
            SCOPE.set(identity.scope)  # of this request alone: each has a task of its own
            content: bytes | AsyncIterator[bytes] = await answer(request, identity)
        except RtpFanoutError as error:
            status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
            content = _json({"error": error.message, "field": error.field or ""})
        headers = {**_HEADERS, "Cache-Control": "no-store"}
        if not isinstance(content, bytes):
            return StreamingResponse(content, status, headers, "text/event-stream")
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return Response(content, status, headers, "application/json")

    return answered


async def _index(request: Request) -> Response:
    return _answer_file(request, "index.html")


async def _file(request: Request) -> Response:
    return _answer_file(request, request.path_params["name"])


def _answer_file(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        return Response("no such file\n", 404, _HEADERS, "text/plain")
    if request.headers.get("if-none-match") == file.headers["ETag"]:
        return Response(None, 304, file.headers)
    return Response(file.content, 200, file.headers)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
