"""What the store did, and what is kept of it without being served."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.sessions.manager import SessionManager

# (name without _total, field of StoreCounts, help)
_STORE_COUNTERS = (
    ("rtpfanout_store_commits", "committed", "Changes that became durable."),
    (
        "rtpfanout_store_failures",
        "failed",
        "Changes that were refused because they could not be written.",
    ),
    (
        "rtpfanout_store_transactions",
        "transactions",
        "Transactions, each with one sync for all changes in it.",
    ),
    (
        "rtpfanout_store_lost",
        "lost",
        "How often the store's file was removed, replaced or moved away while it was open.",
    ),
    ("rtpfanout_store_healed", "healed", "How often the store was written anew after that."),
)


class KeptCollector(Collector):
    """The store and the refused; a few numbers, whatever there is of them."""

    def __init__(self, manager: SessionManager) -> None:
        self._manager = manager

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        sessions, subscribers = self._manager.refused
        yield GaugeMetricFamily(
            "rtpfanout_refused_sessions",
            "Sessions that are kept and take no packet: the configuration refuses them.",
            value=sessions,
        )
        yield GaugeMetricFamily(
            "rtpfanout_refused_subscribers",
            "Subscribers that are kept and get no packet: the configuration refuses them.",
            value=subscribers,
        )
        counts = self._manager.store.counts()
        for name, field, text in _STORE_COUNTERS:
            yield CounterMetricFamily(name, text, value=getattr(counts, field))
        yield GaugeMetricFamily(
            "rtpfanout_store_failing",
            "1 while the last change could not be written.",
            value=bool(self._manager.store.failing),
        )
