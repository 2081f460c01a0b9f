"""Everything a server imports, imported before it is forked.

What was started must be able to be started again, whatever is installed meanwhile. So a supervisor
imports what its servers need, in small pieces while it has nothing else to do, and they find it in
memory: 26 MiB and 0.2 s, once. None of it starts a thread or gRPC. What is missing here is found by
tests/system/test_replaced_files.py.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = (
    "rtpfanout.service",
    "rtpfanout.http",
    "rtpfanout.metrics",
    "rtpfanout.doorman.metrics",
)


def pieces() -> Iterator[None]:
    """Each step imports some more."""
    for name in MODULES:
        importlib.import_module(name)
        yield
    import anyio
    import uvicorn

    # What these choose among and import when they are first used.
    uvicorn.Config(_nothing, log_config=None, lifespan="off").load()
    yield
    anyio.run(_nothing)


async def _nothing(*_asgi: object) -> None:
    """An application, and a task."""


def all_at_once() -> None:
    """For who forks nobody."""
    for _ in pieces():
        pass
