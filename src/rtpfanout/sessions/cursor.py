"""Cursors of pages: opaque to callers, a kind and a 64-bit number inside."""

from __future__ import annotations

import base64
import enum

from rtpfanout.errors import InvalidArgumentError

_BYTES = 9  # kind and number: 12 characters without padding


class CursorKind(enum.Enum):
    """The call that made a cursor, and takes it."""

    SESSIONS = (1, "ListSessions")
    SUBSCRIBERS = (2, "ListSubscribers")

    def write(self, number: int) -> str:
        """A cursor that stands for `number`, 0 to 2**64 - 1."""
        raw = self.value[0].to_bytes(1, "big") + number.to_bytes(_BYTES - 1, "big")
        return base64.urlsafe_b64encode(raw).decode()

    def read(self, text: str) -> int:
        """The number behind a cursor; 0 for none. Raises InvalidArgumentError."""
        if not text:
            return 0
        try:
            raw = base64.urlsafe_b64decode(text.encode("ascii"))
        except ValueError:  # UnicodeEncodeError and binascii.Error are kinds of it
            raw = b""
        number = int.from_bytes(raw[1:_BYTES], "big")
        if text != self.write(number):  # the decoder overlooks much, the encoder nothing
            raise InvalidArgumentError(
                f"not a next_cursor of {self.value[1]}: leave it empty for the first page",
                field="cursor",
            )
        return number
