"""What /metrics shows of a hook."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from rtpfanout.hooks.hook import Hook


class HookCollector(Collector):
    """Of one hook."""

    def __init__(self, hook: Hook) -> None:
        self._hook = hook

    def collect(self) -> Iterator[Metric]:
        """As counted up to now."""
        counts = self._hook.counts
        for name, text, outcomes in (
            (
                "rtpfanout_hook_deliveries",
                "Deliveries of events to events.webhook, by outcome; failed: tried again.",
                ("delivered", "failed", "refused"),
            ),
            (
                "rtpfanout_hook_events",
                "Events that were sent to events.webhook, or dropped.",
                ("sent", "dropped"),
            ),
        ):
            family = CounterMetricFamily(name, text, labels=("outcome",))
            for outcome in outcomes:
                family.add_metric((outcome,), counts[outcome])
            yield family
        yield GaugeMetricFamily(
            "rtpfanout_hook_waiting_events",
            "Events of any kind that events.webhook was not told of yet.",
            value=self._hook.waiting,
        )
