"""The reception of the core by itself, in virtual time: packets in, figures out."""

from __future__ import annotations

import struct
import subprocess
from typing import TYPE_CHECKING

from core import build

if TYPE_CHECKING:
    from pathlib import Path

PARTS = ("base/payload", "base/payload_fit", "table/reception", "table/reception_media")
PARTS += ("table/reception_view", "table/sniff", "table/watch", "table/parameters")


def rtp(
    sequence: int, timestamp: int, ssrc: int = 1, kind: int = 96, payload: bytes = b""
) -> bytes:
    """A packet without marker."""
    return (
        struct.pack("!BBHII", 0x80, kind, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc) + payload
    )


class Replay:
    """A record at a time; `new` begins the next."""

    def __init__(self, directory: Path) -> None:
        """Compiles it there."""
        sources = [build.CORE / f"{part}.c" for part in PARTS]
        source = build.HERE / "replay_reception.c"
        program = build.link_program(source, sources, directory, "plain")
        self._process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1 << 16,
        )

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")

    def new(self) -> None:
        self._say("new")

    def media(self, encoding: int = 0, clock: int = 0) -> None:
        """By the number of the encoding."""
        self._say(f"media {encoding} {clock}")

    def take(self, at_ns: int, packet: bytes) -> None:
        self._say(f"packet {at_ns} {packet.hex()}")

    def figures(self) -> dict[str, int]:
        """Those that there are, by name."""
        assert self._process.stdin
        assert self._process.stdout
        self._say("figures")
        self._process.stdin.flush()
        words = self._process.stdout.readline().split()
        return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    def close(self) -> None:
        self._process.communicate()
