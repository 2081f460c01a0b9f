"""Deadlines by the second: what has to be looked at when, for a million keys and more."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound="Hashable")


class Deadlines(Generic[_Key]):
    """Keys by the second of time.monotonic() at which they are due.

    A key may be due at several seconds and one that was put off stays where it was: whoever
    takes it looks whether it is really due. Not thread-safe.
    """

    def __init__(self) -> None:
        self._due: dict[int, set[_Key]] = {}
        self._looked: int | None = None

    def add(self, second: int, key: _Key) -> None:
        """`key` is due from `second` on."""
        if self._looked is not None and second <= self._looked:
            second = self._looked + 1
        self._due.setdefault(second, set()).add(key)

    def take(self, now: int) -> set[_Key]:
        """Those that are due, and were not taken before."""
        start = self._looked
        self._looked = now
        if start is not None and now - start <= len(self._due):
            seconds = [s for s in range(start + 1, now + 1) if s in self._due]
        else:
            seconds = [s for s in self._due if s <= now]
        taken: set[_Key] = set()
        for second in seconds:
            taken |= self._due.pop(second)
        return taken

    def __len__(self) -> int:
        return sum(map(len, self._due.values()))
