"""Which groups are joined, for Prometheus; imported only where that is loaded anyway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from rtpfanout.groups.memberships import Memberships


class GroupsCollector(Collector):
    """One series for each entry of ingest_groups, as it is written there."""

    def __init__(self, memberships: Memberships) -> None:
        self._memberships = memberships

    def collect(self) -> Iterator[Metric]:
        """As the last look found."""
        gauge = GaugeMetricFamily(
            "rtpfanout_ingest_group_joined",
            "1 while the multicast group is joined; by entry of ingest_groups.",
            labels=("group",),
        )
        for group, is_joined in self._memberships.joined.items():
            gauge.add_metric((group,), is_joined)
        yield gauge
