"""The UDP ports that sessions may have as their own: pairs, RTP and behind it RTCP."""

from __future__ import annotations

import re
from dataclasses import dataclass

AUTO = -1
"""As the number that is asked for: the next free one."""
_TEXT = re.compile(r"([0-9]{1,5})-([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class PortRange:
    """`first` to `last`, both included: RTP on every second one; false if there is none."""

    first: int = 0
    last: int = 0

    @classmethod
    def parse(cls, text: str) -> PortRange:
        """Read ``6000-7999``, or nothing. Raises ValueError that says what is wrong."""
        if not text:
            return cls()
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a range")
        first, last = int(match[1]), int(match[2])
        if not 0 < first < last <= 65535:
            raise ValueError(f"{text!r} is not from a port to a higher one, of 1 to 65535")
        return cls(first, last)

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self else ""

    def __bool__(self) -> bool:
        return self.last > 0

    def __len__(self) -> int:
        return (self.last - self.first + 1) // 2

    def numbers(self) -> range:
        """Those for RTP."""
        return range(self.first, self.first + 2 * len(self), 2)

    def holds(self, port: int) -> bool:
        """Whether it is one of them, for RTP or RTCP."""
        return self.first <= port < self.first + 2 * len(self)
