"""What became of control datagrams, for Prometheus; imported only where that is loaded anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from rtpfanout.doorman.desk import Doorman


class DoormanCollector(Collector):
    """Every combination of labels from the start, so that a first failure shows as a rise."""

    def __init__(self, doorman: Doorman) -> None:
        self._doorman = doorman

    def collect(self) -> Iterator[Metric]:
        """Labels are of fixed lists."""
        taken = CounterMetricFamily(
            "rtpfanout_control_datagrams",
            "Control datagrams and notices of the packet path, by kind and outcome.",
            labels=("kind", "outcome"),
        )
        for labels, count in self._doorman.counts.items():
            taken.add_metric(labels, count)
        yield taken
        answered = CounterMetricFamily(
            "rtpfanout_control_answers",
            "Answers to control datagrams, by kind; not_sent: the kernel refused one.",
            labels=("kind",),
        )
        for kind, count in self._doorman.answers.items():
            answered.add_metric((kind,), count)
        yield answered
