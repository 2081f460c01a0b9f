"""gRPC's own services, health and reflection, with a bound on their streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from rtpfanout.errors import LimitError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rtpfanout.service.turns import Streams


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
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


class ReflectionServicer(reflection.aio.ReflectionServicer):  # type: ignore[misc]
    """As the library's; it answers for as long as it is asked."""

    def __init__(self, names: tuple[str, ...], streams: Streams) -> None:
        super().__init__(names)
        self._streams = streams

    async def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: Any, context: Any
    ) -> AsyncIterator[Any]:
        """See reflection.proto."""
        try:
            with self._streams.one_more(context.peer()):
                async for response in super().ServerReflectionInfo(request_iterator, context):
                    yield response
        except LimitError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, error.message)
