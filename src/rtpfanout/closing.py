"""What ends with its `with` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Self


class Closing(ABC):
    """`with` closes it."""

    @abstractmethod
    def close(self) -> None:
        """End it; twice does no harm."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class AsyncClosing(ABC):
    """`async with` closes it."""

    @abstractmethod
    def close(self) -> Awaitable[None] | None:
        """End it; twice does no harm."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        ended = self.close()
        if ended is not None:
            await ended
