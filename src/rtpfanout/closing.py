"""What ends with its `with` block."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Self


class Closing:
    """`with` closes it."""

    def close(self) -> None:
        """End it; twice does no harm."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class AsyncClosing:
    """`async with` closes it."""

    def close(self) -> Awaitable[None] | None:
        """End it; twice does no harm."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        ended = self.close()
        if ended is not None:
            await ended
