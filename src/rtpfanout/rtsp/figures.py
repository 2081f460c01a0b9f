"""The door's metrics; see `metrics`. Only where there is a door."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client import Metric

    from rtpfanout.rtsp.door import Door


class DoorCollector(Collector):
    """Of the door that there is when it is asked."""

    def __init__(self, door: Callable[[], Door | None]) -> None:
        self._door = door

    def collect(self) -> Iterator[Metric]:
        """As counted up to now; no label has values that could grow in number."""
        door = self._door()
        if door is None:
            return
        stage = door.stage
        yield GaugeMetricFamily(
            "rtpfanout_rtsp_connections", "RTSP connections that are open.", value=door.connections
        )
        playing = GaugeMetricFamily(
            "rtpfanout_rtsp_playing",
            "RTSP clients that play, by how packets go to them.",
            labels=("over",),
        )
        for over, number in stage.playing.items():
            playing.add_metric((over,), number)
        yield playing
        requests = CounterMetricFamily(
            "rtpfanout_rtsp_requests",
            "RTSP requests, by method and status of the response.",
            labels=("method", "status"),
        )
        for (method, status), number in stage.requests.items():
            requests.add_metric((method, status), number)
        yield requests
        ends = CounterMetricFamily(
            "rtpfanout_rtsp_ended", "Ends of playing by RTSP, by reason.", labels=("reason",)
        )
        for reason, number in stage.ends.items():
            ends.add_metric((reason,), number)
        yield ends
        frames, packets = door.dropped
        yield CounterMetricFamily(
            "rtpfanout_rtsp_frames_dropped",
            "Frames that clients of interleaved RTSP were not sent, as they did not read.",
            value=frames,
        )
        yield CounterMetricFamily(
            "rtpfanout_rtsp_packets_dropped",
            "Packets of these frames, and reports.",
            value=packets,
        )
