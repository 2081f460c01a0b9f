"""Cameras in small: what comes of each is told by its figures alone."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from support import address_of, rtp_packet, udp_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

JPEG = 26
PCMU = 0


@dataclass
class Camera:
    """Frames of `packets` packets, `rate` a second, from a port of its own."""

    ssrc: int
    rate: float = 30
    packets: int = 4
    size: int = 1100
    payload_type: int = JPEG
    clock: int = 90_000
    loses: int = 0
    """Each so manieth packet; 0: none."""
    swing: float = 0.0
    """By which share of them its packets become more and less, as what it looks at changes."""
    frozen: bool = False
    silent: bool = False

    def __post_init__(self) -> None:
        self.socket: socket.socket = udp_socket(receive_buffer=4096)
        self.address = address_of(self.socket)
        self.sequence = 0
        self.timestamp = 0
        self.due = 0.0
        self.level = 0.0
        self.random = random.Random(self.ssrc)

    def _packets(self) -> int:
        """Of a frame: as many, or a few more or less, as a picture that changes has."""
        if not self.swing:
            return self.packets
        self.level = 0.998 * self.level + self.random.gauss(0, 0.06)
        share = self.level + self.random.gauss(0, 0.2)
        return max(1, round(self.packets * (1 + self.swing * share)))

    def send(self, to: tuple[str, int]) -> None:
        """The next frame."""
        if self.silent:
            return
        if not self.frozen:
            self.timestamp += round(self.clock / self.rate)
        packets = self._packets()
        for number in range(packets):
            self.sequence += 1
            if self.loses and self.sequence % self.loses == 0:
                continue
            packet = rtp_packet(
                self.ssrc,
                self.sequence,
                bytes(self.size),
                timestamp=self.timestamp,
                payload_type=self.payload_type,
                marker=number == packets - 1,
            )
            self.socket.sendto(packet, to)


class Cameras:
    """Send from `start` until the end of the `with` block, each at its rate."""

    def __init__(self, cameras: Sequence[Camera]) -> None:
        self.all = list(cameras)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopping.set()
        if self._thread:
            self._thread.join()
        for camera in self.all:
            camera.socket.close()

    def start(self, to: tuple[str, int]) -> None:
        """To a server."""
        self._thread = threading.Thread(target=self._run, args=(to,), daemon=True)
        self._thread.start()

    def _run(self, to: tuple[str, int]) -> None:
        while not self._stopping.is_set():
            now = time.monotonic()
            for camera in self.all:
                if camera.due <= now:
                    camera.due = max(camera.due, now - 0.1) + 1 / camera.rate
                    camera.send(to)
            self._stopping.wait(max(0.001, min(c.due for c in self.all) - time.monotonic()))
