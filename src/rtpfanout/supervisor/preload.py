"""Everything a server imports, imported before it is forked.

What was started must be able to be started again, whatever is installed meanwhile. So a supervisor
imports what its servers need, in small pieces while it has nothing else to do, and they find it in
memory: 26 MiB and 0.2 s, once. None of it starts a thread or gRPC. What is missing here is found by
tests/system/test_replaced_files.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator

import structlog

MODULES = (
    "rtpfanout.service",
    "rtpfanout.http",
    "rtpfanout.metrics",
    "rtpfanout.page",
    "rtpfanout.session_series",
)

_log = structlog.stdlib.get_logger(__name__)


class Preload:
    """Piece by piece, and from the front again where that fails: a supervisor lives without."""

    def __init__(self) -> None:
        self._pieces: Iterator[None] | None = None
        self._is_done = False
        self._has_failed = False

    @property
    def is_due(self) -> bool:
        """`step` has something to do."""
        return self._pieces is not None

    def begin(self) -> None:
        """Unless that has been."""
        if not self._is_done and self._pieces is None:
            self._pieces = _pieces()

    def step(self) -> None:
        """One piece."""
        if self._pieces is None:
            return
        try:
            self._is_done = next(self._pieces, self) is self
        except Exception:
            if not self._has_failed:
                _log.exception("what a server needs can't be imported beforehand")
            self._has_failed = True
            self._pieces = None
        if self._is_done:
            self._pieces = None
            _log.debug("a server can be started whatever is installed now")

    def finish(self) -> None:
        """All that is left; for who forks nobody soon. Raises what an import does."""
        for _ in _pieces():
            pass
        self._is_done = True


def _pieces() -> Iterator[None]:
    for name in MODULES:
        importlib.import_module(name)
        yield
    import anyio
    import uvicorn

    # What these choose among and import when they are first used.
    uvicorn.Config(_no_application, log_config=None, lifespan="off").load()
    yield
    anyio.run(_no_task)


async def _no_application(_scope: object, _receive: object, _send: object) -> None:
    """For ASGI."""


async def _no_task() -> None:
    """For anyio."""
