"""A table that redraws itself in place on a terminal, and is silent elsewhere."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.console import RenderableType


class LiveView:
    """Use with `with`; draws only when `enabled`. The caller's thread does the drawing."""

    def __init__(self, enabled: bool, *, stderr: bool = True, transient: bool = True) -> None:
        self._live = None
        self._next_draw = 0.0
        if enabled:
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=stderr)
            self._live = Live(console=console, auto_refresh=False, transient=transient)

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, content: "RenderableType") -> None:
        """Draw now."""
        if self._live:
            self._live.update(content, refresh=True)

    def update_every(self, seconds: float, render: "Callable[[], RenderableType]") -> None:
        """Draw when the last drawing is that long ago."""
        if self._live and time.monotonic() >= self._next_draw:
            self._next_draw = time.monotonic() + seconds
            self._live.update(render(), refresh=True)
