"""gRPC's own services, health and reflection, with a bound on their streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from rtpfanout.errors import LimitError

if TYPE_CHECKING:
    from rtpfanout.service.turns import Streams


class HealthServicer(health.aio.HealthServicer):
    """As the library's; a watch has no end."""

    def __init__(self, streams: Streams) -> None:
        super().__init__()
        self._streams = streams

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """See health.proto."""
        try:
            with self._streams.one_more(context.peer()):
                await super().Watch(request, context)
        except LimitError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, error.message)


class ReflectionServicer(reflection.aio.ReflectionServicer):
    """As the library's; it answers for as long as it is asked."""

    def __init__(self, names: tuple[str, ...], streams: Streams) -> None:
        super().__init__(names)
        self._streams = streams

    # The library's types take this for a coroutine.
    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[Any]:
        """See reflection.proto."""
        try:
            with self._streams.one_more(context.peer()):
                responses: Any = super().ServerReflectionInfo(request_iterator, context)
                async for response in responses:
                    yield response
        except LimitError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, error.message)
