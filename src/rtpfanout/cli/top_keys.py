"""What somebody looks at in `rtpfanout top`, and what his keys change of that."""

from dataclasses import dataclass, field

ORDERS = {
    "a": "state",
    "n": "name",
    "b": "bitrate",
    "l": "loss",
    "j": "jitter",
    "f": "frame_rate",
    "u": "subscribers",
}
"""By key."""
_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
}
_NAMES = {b"\r": "enter", b"\n": "enter", b"\x1b": "escape", b"\x7f": "rub", b"\x08": "rub"}
LONGEST_WORDS = 200


def keys_of(data: bytes) -> list[str]:
    """What a terminal sent: characters, or names such as "up". What has no meaning is left out."""
    keys = []
    while data:
        for sequence, name in _SEQUENCES.items():
            if data.startswith(sequence):
                keys.append(name)
                data = data[len(sequence) :]
                break
        else:
            one, rest = data[:1], data[1:]
            if one == b"\x1b" and rest[:1] in (b"[", b"O"):  # of a key that we have no use for
                end = next((i for i, c in enumerate(rest[1:], 1) if 0x40 <= c <= 0x7E), len(rest))
                data = rest[end + 1 :]
                continue
            if named := _NAMES.get(one):
                keys.append(named)
            elif one.isascii() and one.decode().isprintable():
                keys.append(one.decode())
            data = rest
    return keys


@dataclass
class Looking:
    """One who looks. `words` are what he filters by, `typed` what he is about to, if he is."""

    order_by: str
    is_reverse: bool
    words: str
    typed: str | None = None
    session: str = ""
    """Whose subscribers he sees; empty: he sees all sessions."""
    first: int = 0
    """Sessions above the screen."""
    chosen: int = 0
    """Of those that there are."""
    is_over: bool = False
    _ids: list[str] = field(default_factory=list)
    _rows: int = 1

    def came(self, ids: list[str], rows: int) -> None:
        """These are there, from the first on; so many fit on the screen."""
        self._ids, self._rows = ids, rows
        self._move(0)

    def press(self, key: str) -> bool:
        """Whether something else is to be asked of the server."""
        if self.typed is not None:
            return self._type(key)
        if key == "q":
            if self.session:
                self.session = ""
            else:
                self.is_over = True
            return True
        if self.session:
            if key in ("escape", "enter"):
                self.session = ""
            return False
        return self._press_in_list(key)

    def _press_in_list(self, key: str) -> bool:
        if key == "/":
            self.typed = self.words
        elif key == "escape":
            self.words = ""
            return True
        elif key in ORDERS:
            self.is_reverse = ORDERS[key] == self.order_by and not self.is_reverse
            self.order_by, self.first, self.chosen = ORDERS[key], 0, 0
            return True
        elif key == "r":
            self.is_reverse = not self.is_reverse
            return True
        elif key == "enter" and self._ids:
            self.session = self._ids[self.chosen]
            return True
        else:
            steps = {"up": -1, "down": 1, "page up": -self._rows, "page down": self._rows}
            return self._move(steps.get(key, 0))
        return False

    def _type(self, key: str) -> bool:
        assert self.typed is not None
        if key == "escape":
            self.typed = None
        elif key == "enter":
            self.words, self.typed = self.typed, None
            self.first = self.chosen = 0
            return True
        elif key == "rub":
            self.typed = self.typed[:-1]
        elif len(key) == 1 and len(self.typed) < LONGEST_WORDS:
            self.typed += key
        return False

    def _move(self, steps: int) -> bool:
        """Whether the screen shows others than before."""
        self.chosen = max(0, min(self.chosen + steps, len(self._ids) - 1))
        before = self.first
        self.first = max(min(self.first, self.chosen), self.chosen - self._rows + 1)
        return self.first != before
