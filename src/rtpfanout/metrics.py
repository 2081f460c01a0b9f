"""Prometheus metrics: read from the engine and the SessionManager when scraped, kept nowhere."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector

import rtpfanout
from rtpfanout import log
from rtpfanout._fastpath import (
    DROP_REASONS,
    LATENCY_BOUNDS_NS,
    RECEPTION_FIELDS,
    RTCP_DROPS,
    RTCP_KINDS,
    SEND_FAILURES,
    STATS_FIELDS,
)
from rtpfanout.store import STORE_COUNTERS

if TYPE_CHECKING:
    from prometheus_client import Metric

    from rtpfanout._fastpath import Engine
    from rtpfanout.groups import Memberships
    from rtpfanout.sessions import SessionManager

STEPS_PER_OCTAVE = 8
"""The engine's buckets are finer than a time series should be; one bound per octave is shown."""

GSO_FALLBACK = "gso_fallback_"

# Fields of Engine.stats whose metric is not called rtpfanout_<field>.
_NAMES = {
    "packets_received": "rtp_packets_received",
    "packets_sent": "rtp_packets_sent",
    "bytes_received": "rtp_bytes_received",
    "bytes_sent": "rtp_bytes_sent",
    "kernel_drops": "rtpfanout_kernel_receive_drops",
    "kernel_errors": "rtpfanout_kernel_receive_errors",
    "handed_over": "rtpfanout_packets_handed_over",
}

# (name without _total, name in SessionManager.counts, help)
_CONTROL_COUNTERS = (
    ("rtpfanout_sessions_created", "created", "Sessions created."),
    ("rtpfanout_sessions_deleted", "deleted", "Sessions deleted."),
    ("rtpfanout_sessions_expired", "expired", "Sessions expired."),
    ("rtpfanout_leases_expired", "leases_expired", "Subscribers whose lease was over."),
    ("rtpfanout_sources_pinned", "pinned", "Sources pinned by the first packet of a latch."),
    ("rtpfanout_latches_over", "latch_over", "Latches that no source met in time."),
    ("rtpfanout_pins_refused", "pin_refused", "Sources that a latch would not be pinned to."),
    ("rtpfanout_sources_moved", "moved", "Signed moves of sources carried out."),
    ("rtpfanout_consents_lapsed", "consents_lapsed", "Subscribers whose consent was over."),
    (
        "rtpfanout_restore_refused",
        "restore_refused",
        "Stored sessions and subscribers that policy or limits refused at the start.",
    ),
    (
        "rtpfanout_loops_withheld",
        "loops_withheld",
        "Subscribers refused because their address became our own ingest.",
    ),
    (
        "rtpfanout_policy_withheld",
        "policy_withheld",
        "Subscribers refused because of a reloaded address policy.",
    ),
    (
        "rtpfanout_readmitted",
        "readmitted",
        "Refused sessions and subscribers that are served again.",
    ),
    ("rtpfanout_subscribers_shed", "shed", "Subscribers that overload took the copies from."),
    ("rtpfanout_subscribers_unshed", "unshed", "Shed subscribers that get copies again."),
)

# Of RECEPTION_FIELDS; sums over all sessions.
_RECEIVED = (
    "received", "expected", "duplicates", "reordered", "late", "restarts", "timestamp_jumps",
    "out_of_sequence", "frames", "keyframes",
)  # fmt: skip
# (name, attribute of the engine, help)
_GAUGES = (
    (
        "rtpfanout_receive_buffer_bytes",
        "sockets.receive_buffer_bytes",
        "Effective SO_RCVBUF of the ingest socket, the kernel's overhead included.",
    ),
    (
        "rtpfanout_send_buffer_bytes",
        "sockets.send_buffer_bytes",
        "Effective SO_SNDBUF of an egress socket, the kernel's overhead included.",
    ),
    (
        "rtpfanout_egress_lanes",
        "sockets.egress_lanes",
        "Sockets that subscribers are spread over; more than 1 where send buffers are cut.",
    ),
    ("rtpfanout_workers", "workers", "Threads of the packet path."),
    (
        "rtpfanout_receiving_workers",
        "sockets.receiving_workers",
        "Those with a socket of their own; fewer than all where the kernel does not steer.",
    ),
)


class ServerCollector(Collector):
    """The whole server, without any label whose values could grow in number.

    `requests` counts control calls by (method, status code).
    """

    def __init__(
        self, engine: Engine, manager: SessionManager, requests: Mapping[tuple[str, str], int]
    ) -> None:
        self._engine = engine
        self._manager = manager
        self._requests = requests

    def collect(self) -> Iterator[Metric]:
        """One pass over the engine's counters per scrape."""
        stats = self._engine.stats()
        for field, text in STATS_FIELDS.items():
            if text:  # else it is one of the families below
                name = _NAMES.get(field, f"rtpfanout_{field}")
                yield CounterMetricFamily(name, text, value=stats[field])
        yield _by_reason(
            "rtpfanout_packets_dropped",
            "Datagrams received and not forwarded, by reason.",
            {reason: stats[f"dropped_{reason}"] for reason in DROP_REASONS},
        )
        yield _by_reason(
            "rtpfanout_send_failures",
            "Copies the kernel refused, by reason.",
            {reason: stats[f"failed_{reason}"] for reason in SEND_FAILURES},
        )
        yield _labelled(
            CounterMetricFamily,
            "rtpfanout_rtcp_taken",
            "RTCP datagrams of sources, and of subscribers with RTCP, by what they were.",
            ("kind",),
            {kind: stats[f"rtcp_taken_{kind}"] for kind in RTCP_KINDS},
        )
        yield _by_reason(
            "rtpfanout_rtcp_dropped",
            "RTCP datagrams that were not taken, by reason; with those taken they are all that"
            ' rtpfanout_packets_dropped_total{reason="rtcp"} counts.',
            {reason: stats[f"rtcp_dropped_{reason}"] for reason in RTCP_DROPS},
        )
        yield _by_reason(
            "rtpfanout_gso_fallbacks",
            "Sends of several copies that had to be repeated copy by copy, by reason.",
            {
                field.removeprefix(GSO_FALLBACK): stats[field]
                for field in STATS_FIELDS
                if field.startswith(GSO_FALLBACK)
            },
        )
        yield from self._latency()
        yield from self._control()
        for name, attribute, text in _GAUGES:
            yield GaugeMetricFamily(name, text, value=attrgetter(attribute)(self._engine))
        yield InfoMetricFamily(
            "rtpfanout_build", "What is running here.", value=_build_info(self._engine)
        )
        yield CounterMetricFamily(
            "rtpfanout_log_lines_lost",
            "Lines of the log that found no room: whoever reads standard error does not keep up.",
            value=log.lost_lines(),
        )

    def _latency(self) -> Iterator[Metric]:
        text = "From the kernel's receive time stamp to return of the send of the {} copy, in {}."
        first, last = self._engine.latency()
        for name, copy, latency, unit, unit_ns in (
            ("fanout_latency_ms", "last", last, "milliseconds", 1e6),
            ("rtpfanout_fanout_latency_seconds", "last", last, "seconds", 1e9),
            ("rtpfanout_first_copy_latency_seconds", "first", first, "seconds", 1e9),
        ):
            yield _histogram(name, text.format(copy, unit), *latency, unit_ns)

    def _control(self) -> Iterator[Metric]:
        manager, store = self._manager, self._manager.store
        refused_sessions, refused_subscribers = manager.refused
        for name, text, value in (
            (
                "active_sessions",
                "Sessions that exist, whether packets arrive or not.",
                manager.active_sessions,
            ),
            ("total_subscribers", "Subscribers of all sessions.", manager.total_subscribers),
            (
                "rtpfanout_ingest_ports",
                "Ports that sessions can have for themselves: ingest_ports.",
                len(manager.ports.range),
            ),
            ("rtpfanout_ingest_ports_used", "Those that sessions have.", manager.ports.used),
            (
                "rtpfanout_refused_sessions",
                "Sessions that are kept and take no packet: the configuration refuses them.",
                refused_sessions,
            ),
            (
                "rtpfanout_refused_subscribers",
                "Subscribers that are kept and get no packet: the configuration refuses them.",
                refused_subscribers,
            ),
            (
                "rtpfanout_store_failing",
                "1 while the last change could not be written.",
                bool(store.failing),
            ),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, field, text in _CONTROL_COUNTERS:
            yield CounterMetricFamily(name, text, value=manager.counts.get(field, 0))
        stored = store.counts()
        for name, text in STORE_COUNTERS.items():
            yield CounterMetricFamily(f"rtpfanout_store_{name}", text, value=stored[name])
        yield CounterMetricFamily(
            "rtpfanout_overload_refused",
            "Sessions and subscribers refused because a high-water mark was passed.",
            value=manager.housekeeping.overload_refused_total,
        )
        yield _labelled(
            GaugeMetricFamily,
            "rtpfanout_overload_mark_passed",
            "1 while nobody new is taken.",
            ("mark",),
            manager.housekeeping.overload_marks,
        )
        yield from self._sources()
        yield _labelled(
            CounterMetricFamily,
            "rtpfanout_control_requests",
            "Calls of the SessionService, by method and gRPC status code.",
            ("method", "code"),
            dict(sorted(dict(self._requests).items())),
        )

    def _sources(self) -> Iterator[Metric]:
        """How they fare, of all sessions together."""
        manager = self._manager
        conditions, statuses = manager.conditions.standings()
        yield _labelled(
            GaugeMetricFamily,
            "rtpfanout_sessions",
            "Sessions by how their source fares; those that are paused or refused aside.",
            ("condition",),
            conditions,
        )
        yield _labelled(
            GaugeMetricFamily,
            "rtpfanout_session_statuses",
            "Sessions by their status.",
            ("status",),
            statuses,
        )
        for what, names in (("condition", conditions), ("status", statuses)):
            yield _labelled(
                CounterMetricFamily,
                f"rtpfanout_{what}_changes",
                f"Times that a session came to have this {what}.",
                (what,),
                {name: manager.counts.get(f"{what}_{name}", 0) for name in names},
            )
        sums = manager.conditions.receptions()
        for field in _RECEIVED:
            name = f"rtpfanout_reception_{field}"
            yield CounterMetricFamily(name, RECEPTION_FIELDS[field], value=sums[field])
        yield GaugeMetricFamily(
            "rtpfanout_reception_lost", RECEPTION_FIELDS["lost"], value=sums["lost"]
        )


class ControlCollector(Collector):
    """Who spoke to the server beside packets, and what became of it.

    Every reason, and every combination of labels, is there from the start: a first one is a rise.
    """

    def __init__(
        self,
        memberships: Memberships,
        failures: Mapping[str, int],
        ended: Mapping[str, int],
        datagrams: Mapping[tuple[str, str], int],
        answers: Mapping[str, int],
    ) -> None:
        """`failures` of authentication and connections that were `ended`, by reason; control
        datagrams and answers to them, as Doorman has them."""
        self._memberships = memberships
        self._failures = failures
        self._ended = ended
        self._datagrams = datagrams
        self._answers = answers

    def collect(self) -> Iterator[Metric]:
        """As counted up to now; groups as the last look found."""
        yield _by_reason(
            "rtpfanout_authentication_failures",
            "Calls without an identity, by reason; refused TLS handshakes are not among them.",
            self._failures,
        )
        yield _by_reason(
            "rtpfanout_connections_ended",
            "Connections that were ended: crowded, for newer ones, as there were too many; "
            "late, as they neither asked nor took their answer.",
            self._ended,
        )
        yield _labelled(
            GaugeMetricFamily,
            "rtpfanout_ingest_group_joined",
            "1 while the multicast group is joined; by entry of ingest_groups.",
            ("group",),
            self._memberships.joined,
        )
        yield _labelled(
            CounterMetricFamily,
            "rtpfanout_control_datagrams",
            "Control datagrams and notices of the packet path, by kind and outcome.",
            ("kind", "outcome"),
            self._datagrams,
        )
        yield _labelled(
            CounterMetricFamily,
            "rtpfanout_control_answers",
            "Answers to control datagrams, by kind; not_sent: the kernel refused one.",
            ("kind",),
            self._answers,
        )


def server_registry(
    engine: Engine, manager: SessionManager, requests: Mapping[tuple[str, str], int]
) -> CollectorRegistry:
    """What /metrics shows: the server, its process and its Python."""
    registry = CollectorRegistry()
    registry.register(ServerCollector(engine, manager, requests))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


def _build_info(engine: Engine) -> dict[str, str]:
    return {
        "version": rtpfanout.__version__,
        "python": platform.python_version(),
        "gso": "yes" if engine.sockets.gso else "no",
        "gro": "yes" if engine.sockets.gro else "no",
    }


def _by_reason(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    return _labelled(CounterMetricFamily, name, text, ("reason",), counts)


def _labelled(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    labels: Sequence[str],
    values: Mapping[Any, float],
) -> Metric:
    """A sample for each of `values`, by what the label is, or by a tuple of what they are."""
    family = kind(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family


def _histogram(name: str, text: str, counts: Sequence[int], sum_ns: int, unit_ns: float) -> Metric:
    """`counts` has one entry per LATENCY_BOUNDS_NS and one for all above; see the seam."""
    buckets = [
        (str(LATENCY_BOUNDS_NS[i] / unit_ns), below)
        for i, below in enumerate(itertools.accumulate(counts[:-1]))
        if i % STEPS_PER_OCTAVE == 0
    ]
    buckets.append(("+Inf", sum(counts)))
    return HistogramMetricFamily(name, text, buckets=buckets, sum_value=sum_ns / unit_ns)
