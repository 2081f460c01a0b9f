"""What arrives at one socket, counted by SSRC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rtpfanout.traffic import rtp
from rtpfanout.traffic.reception import Reception

if TYPE_CHECKING:
    from rtpfanout.traffic.joining import MemberSocket
    from rtpfanout.traffic.stopping import StopFlag
    from rtpfanout.traffic.udp import Datagram, ReceiveSocket

MAX_SSRCS = 10_000


class Receptions:
    """Counts the datagrams of one socket by SSRC."""

    def __init__(self, udp: ReceiveSocket | MemberSocket, clock_rate: int) -> None:
        self.packets = 0
        self.not_rtp = 0
        self.reports = 0  # of these, RTCP
        self.uncounted = 0  # packets of SSRCs beyond MAX_SSRCS
        self.by_ssrc: dict[int, Reception] = {}
        self._udp = udp
        self._clock_rate = clock_rate
        self._begin = time.monotonic()
        self._seconds = 0.0
        self._latest: tuple[int, Reception] | None = None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begin

    @property
    def lost(self) -> int:
        """Sequence numbers missing, over all SSRCs."""
        return sum(reception.sequence.lost for reception in self.by_ssrc.values())

    @property
    def latest(self) -> tuple[int, Reception] | None:
        """The SSRC whose packet came last."""
        return self._latest

    @property
    def distinct(self) -> int:
        """Packets without their duplicates, over all SSRCs."""
        return self.packets - sum(r.sequence.duplicates for r in self.by_ssrc.values())

    def run(
        self,
        stop: StopFlag,
        limit: int | None,
        duration: float | None,
        look: Callable[[], object],
    ) -> None:
        """Receive until stopped, `limit` packets in all, or for `duration` seconds.

        `look` is called after each of them, and ten times a second at least.
        """
        end = None if duration is None else time.monotonic() + duration
        while not stop and (limit is None or self.packets < limit):
            if end is not None and time.monotonic() >= end:
                break
            datagram = self._udp.receive()
            if datagram is not None:
                self._count(datagram)
            look()
        if stop:
            self._drain()
        self._seconds = self.seconds

    def summary(self) -> dict[str, Any]:
        """All counts, ready for JSON."""
        return {
            "address": str(self._udp.address),
            "seconds": round(self._seconds, 3),
            "packets": self.packets,
            "lost": self.lost,
            "not_rtp": self.not_rtp,
            "reports": self.reports,
            "kernel_drops": self._udp.kernel_drops,
            "sources": [
                {
                    "ssrc": ssrc,
                    "from": reception.sender,
                    "senders": len(reception.senders),
                    "payload_types": list(reception.payload_types),
                    "packets": reception.packets,
                    "bytes": reception.bytes,
                    "lost": reception.sequence.lost,
                    "reordered": reception.sequence.reordered,
                    "duplicates": reception.sequence.duplicates,
                    "restarts": reception.sequence.restarts,
                    "jitter_ms": round(reception.jitter.milliseconds, 4),
                    "latency_ms": {
                        "count": reception.latency.count,
                        **reception.latency.summary_ms(),
                    },
                }
                for ssrc, reception in self.by_ssrc.items()
            ],
        }

    def _drain(self) -> None:
        """Count what had arrived when the end came; it still waits in the kernel."""
        end_ns = time.time_ns()
        while datagram := self._udp.receive(wait=False):
            if datagram.arrival_ns > end_ns:
                break
            self._count(datagram)

    def _count(self, datagram: Datagram) -> None:
        try:
            packet = rtp.parse(datagram.data, strict=False)
        except ValueError:
            self.not_rtp += 1
            self.reports += rtp.is_report(datagram.data)
            return
        reception = self.by_ssrc.get(packet.ssrc)
        if reception is None:
            if len(self.by_ssrc) >= MAX_SSRCS:
                self.uncounted += 1
                return
            reception = self.by_ssrc[packet.ssrc] = Reception(self._clock_rate)
        reception.add(packet, len(datagram.data), datagram.arrival_ns, datagram.source)
        self.packets += 1
        self._latest = packet.ssrc, reception
