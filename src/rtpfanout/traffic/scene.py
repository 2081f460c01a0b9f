"""Who takes part in `rtpfanout demo`: a camera, and subscribers that check every byte."""

import threading
import time
from typing import Any

from rtpfanout.closing import Closing
from rtpfanout.listening import bound_address
from rtpfanout.model import Address
from rtpfanout.traffic import rtp
from rtpfanout.traffic.reception import Latencies, SequenceTracker
from rtpfanout.traffic.source import TestSource
from rtpfanout.traffic.udp import ReceiveSocket, open_socket

_LOOPBACK = Address.parse("127.0.0.1:0")
_REMEMBERED = 1 << 13


class Camera(Closing):
    """A synthetic camera: bursts of packets, every one remembered for a while."""

    def __init__(self, source: TestSource) -> None:
        self.source = source
        self.packets = 0
        self.bytes = 0
        self._socket = open_socket(_LOOPBACK)
        self.address = bound_address(self._socket)
        self._remembered: list[tuple[int, bytes]] = [(-1, b"")] * _REMEMBERED
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, target: Address) -> None:
        """Film until `stop`."""
        self._thread = threading.Thread(target=self._film, args=(target,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Returns after the last packet is sent."""
        self._stop.set()
        if self._thread:
            self._thread.join()

    def sent(self, index: int) -> bytes | None:
        """The bytes of packet `index` as sent, or None: never sent, or long ago."""
        remembered, data = self._remembered[index % _REMEMBERED]
        return data if remembered == index else None

    def _film(self, target: Address) -> None:
        begin = time.monotonic()
        to = target.sockaddr
        frame = 0
        while not self._stop.wait(begin + frame / self.source.frame_rate - time.monotonic()):
            for index in range(frame * self.source.burst, (frame + 1) * self.source.burst):
                data = self.source.packet(index, time.time_ns())
                self._remembered[index % _REMEMBERED] = (index, data)
                self.packets += 1  # before a viewer can count it
                self.bytes += len(data)
                self._socket.sendto(data, to)
            frame += 1

    def close(self) -> None:
        """After the last packet."""
        self.stop()
        self._socket.close()


class Viewer(Closing):
    """A subscriber that compares each packet with what the camera sent."""

    def __init__(self, name: str, camera: Camera) -> None:
        self.name = name
        self.packets = 0
        self.altered = 0
        self.sequence = SequenceTracker()
        self.latency = Latencies()
        self._camera = camera
        self._socket = ReceiveSocket(_LOOPBACK)
        self.address = self._socket.address
        self._stopped = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def intact(self) -> int:
        """Different packets that came with every byte as sent."""
        return self.packets - self.altered - self.sequence.duplicates

    @property
    def kernel_drops(self) -> int:
        """Packets that reached this subscriber and that it was too slow to take."""
        return self._socket.kernel_drops

    def report(self) -> dict[str, Any]:
        """All that is known once the camera has stopped and all is quiet."""
        return {
            "name": self.name,
            "address": str(self.address),
            "packets": self.packets,
            "lost": self._camera.packets - self.intact,
            "altered": self.altered,
            "duplicates": self.sequence.duplicates,
            "reordered": self.sequence.reordered,
            "kernel_drops": self.kernel_drops,
            "added_latency_ms": self.latency.summary_ms(),
        }

    def _watch(self) -> None:
        while not self._stopped:
            datagram = self._socket.receive()
            if datagram is not None:
                self._check(datagram.data, datagram.arrival_ns)

    def _check(self, data: bytes, arrival_ns: int) -> None:
        self.packets += 1
        try:
            packet = rtp.parse(data)
        except ValueError:
            self.altered += 1
            return
        stamp = rtp.read_stamp(packet.payload)
        if stamp is None or self._camera.sent(stamp.index) != data:
            self.altered += 1
            return
        self.sequence.add(packet.sequence)
        self.latency.add(arrival_ns - stamp.sent_ns)

    def close(self) -> None:
        """It looks no more."""
        self._stopped = True
        self._thread.join()
        self._socket.close()
