"""Series and pages, without a server around them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
from prometheus_client import CollectorRegistry

from rtpfanout import http, metrics
from rtpfanout._fastpath import DROP_REASONS, LATENCY_BOUNDS_NS, SEND_FAILURES, Engine, Sockets
from rtpfanout.model import Address
from rtpfanout.policy import AddressPolicy
from rtpfanout.sessions import Limits, SessionManager
from rtpfanout.store import MEMORY, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    Latency = tuple[list[int], int]

GSO_FALLBACKS = ("invalid", "too_big", "io")


class EngineWithNumbers(Engine):
    """An engine whose every counter is different, so that no two can be mixed up."""

    def stats(self) -> dict[str, int]:
        return {name: 1000 + i for i, name in enumerate(super().stats())}

    def latency(self) -> tuple[Latency, Latency]:
        counts = [1] * (len(LATENCY_BOUNDS_NS) + 1)
        return ([2 * count for count in counts], 1_000_000), (counts, 5_000_000)


def manager_of(engine: Engine) -> SessionManager:
    policy = AddressPolicy(engine.bound, True, False, (), (), True, lambda _ip: False)
    return SessionManager(engine, policy, Store(MEMORY), limits=Limits(1, 1))


@pytest.fixture
def registry() -> CollectorRegistry:
    engine = EngineWithNumbers(
        Address.parse("127.0.0.1:0"), max_sessions=1, max_subscribers=1, receive_queue_packets=64
    )
    requests = Counter({("GetSession", "NOT_FOUND"): 3})
    return metrics.server_registry(engine, manager_of(engine), requests)


def test_each_series_shows_its_own_counter(registry: CollectorRegistry) -> None:
    engine = EngineWithNumbers(
        Address.parse("127.0.0.1:0"), max_sessions=1, max_subscribers=1, receive_queue_packets=64
    )
    stats = engine.stats()
    plain = {
        "rtp_packets_received_total": "packets_received",
        "rtp_packets_sent_total": "packets_sent",
        "rtp_bytes_received_total": "bytes_received",
        "rtp_bytes_sent_total": "bytes_sent",
        "rtpfanout_packets_forwarded_total": "packets_forwarded",
        "rtpfanout_copies_attempted_total": "copies_attempted",
        "rtpfanout_kernel_receive_drops_total": "kernel_drops",
        "rtpfanout_kernel_receive_errors_total": "kernel_errors",
        "rtpfanout_control_sent_total": "control_sent",
        "rtpfanout_control_send_failures_total": "control_send_failures",
        "rtpfanout_packets_recovered_total": "packets_recovered",
        "rtpfanout_receive_errors_total": "receive_errors",
        "rtpfanout_receives_total": "receives",
        "rtpfanout_sends_total": "sends",
        "rtpfanout_egress_address_missing_total": "egress_address_missing",
        "rtpfanout_tasks_shared_total": "tasks_shared",
        "rtpfanout_packets_handed_over_total": "handed_over",
    }
    for name, field in plain.items():
        assert registry.get_sample_value(name) == stats[field], name
    for name, prefix, reasons in (
        ("rtpfanout_packets_dropped_total", "dropped_", DROP_REASONS),
        ("rtpfanout_send_failures_total", "failed_", SEND_FAILURES),
        ("rtpfanout_gso_fallbacks_total", "gso_fallback_", GSO_FALLBACKS),
    ):
        for reason in reasons:
            value = registry.get_sample_value(name, {"reason": reason})
            assert value == stats[prefix + reason]
    labels = {"method": "GetSession", "code": "NOT_FOUND"}
    assert registry.get_sample_value("rtpfanout_control_requests_total", labels) == 3


def test_every_counter_of_the_engine_has_a_series(registry: CollectorRegistry) -> None:
    """Each by its own value, so one that is in no family and has no help fails here."""
    stats = EngineWithNumbers(
        Address.parse("127.0.0.1:0"), max_sessions=1, max_subscribers=1, receive_queue_packets=64
    ).stats()
    counters = (metric for metric in registry.collect() if metric.type == "counter")
    shown = {sample.value for metric in counters for sample in metric.samples}
    assert not {name for name, value in stats.items() if value not in shown}
    assert set(metrics._NAMES) < set(stats)


def test_buckets_are_octaves_with_nothing_lost(registry: CollectorRegistry) -> None:
    def bucket(le: str) -> float | None:
        return registry.get_sample_value("fanout_latency_ms_bucket", {"le": le})

    assert bucket("0.001") == 1  # the first of the engine's buckets
    assert bucket("0.002") == 9  # and eight for each octave
    assert bucket("0.004") == 17
    assert bucket("16777.216") == len(LATENCY_BOUNDS_NS)
    assert bucket("+Inf") == len(LATENCY_BOUNDS_NS) + 1
    assert registry.get_sample_value("fanout_latency_ms_sum") == 5
    assert registry.get_sample_value("rtpfanout_fanout_latency_seconds_sum") == 0.005
    assert registry.get_sample_value("rtpfanout_first_copy_latency_seconds_sum") == 0.001
    count = registry.get_sample_value("rtpfanout_first_copy_latency_seconds_count")
    assert count == 2 * (len(LATENCY_BOUNDS_NS) + 1)


@pytest.mark.parametrize(("value", "told"), [(True, "yes"), (False, "no")])
def test_workers_and_what_the_kernel_has(value: bool, told: str) -> None:
    class EngineOfThree(EngineWithNumbers):
        @property
        def sockets(self) -> Sockets:
            return super().sockets._replace(gso=value, gro=value)

    engine = EngineOfThree(
        Address.parse("127.0.0.1:0"),
        max_sessions=1,
        max_subscribers=1,
        receive_queue_packets=64,
        workers=3,
    )
    collector = metrics.ServerCollector(engine, manager_of(engine), {})
    found = {sample.name: sample for metric in collector.collect() for sample in metric.samples}
    assert found["rtpfanout_workers"].value == 3
    assert found["rtpfanout_receiving_workers"].value == engine.sockets.receiving_workers
    assert found["rtpfanout_egress_lanes"].value == engine.sockets.egress_lanes
    build = found["rtpfanout_build_info"].labels
    assert (build["gso"], build["gro"]) == (told, told)


@pytest.mark.parametrize(("page", "what"), [("/healthz", "is_alive"), ("/readyz", "is_ready")])
def test_a_failing_check_answers_503(page: str, what: str) -> None:
    state = {"is_alive": True, "is_ready": True}

    def check(name: str) -> Callable[[], bool]:
        return lambda: state[name]

    empty = CollectorRegistry()
    app = http.create_app(
        server_metrics=empty,
        session_series=lambda _is_openmetrics: iter(()),
        is_alive=check("is_alive"),
        is_ready=check("is_ready"),
    )

    async def get(path: str) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return (await client.get(path)).status_code

    assert asyncio.run(get(page)) == 200
    state[what] = False
    assert asyncio.run(get(page)) == 503
    other = "/readyz" if page == "/healthz" else "/healthz"
    assert asyncio.run(get(other)) == 200
