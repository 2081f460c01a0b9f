"""Metrics as their readers see them: promtool, a real Prometheus, and the fixed names."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from support import (
    SETTLE_SECONDS,
    START_SECONDS,
    ServerProcess,
    address_of,
    eventually,
    free_tcp_port,
    requires,
    rtp_packet,
    server_environment,
    transfer,
    udp_socket,
)

import rtpfanout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.lent_servers

SSRC = 0x00C0FFEE
PACKETS = 200
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def fed() -> Iterator[ServerProcess]:
    """A server that has copied PACKETS to two subscribers, and dropped one; it is only read."""
    server = ServerProcess()
    try:
        with ExitStack() as stack:
            source, *subscribers = (stack.enter_context(udp_socket()) for _ in range(3))
            server.create(address_of(source), SSRC, *map(address_of, subscribers))
            some = [rtp_packet(SSRC, n, bytes(988)) for n in range(PACKETS)]
            assert transfer(source, server.ingest_target, some, subscribers) == [some, some]
            source.sendto(b"not RTP", server.ingest_target)
        server.settled(received=PACKETS + 1)
        server.check_identities()
        yield server
        server.check_identities()
    finally:
        server.stop()


def test_the_fixed_names_keep_their_meaning(fed: ServerProcess) -> None:
    metrics = fed.metrics()
    expected = {
        "rtp_packets_received_total": PACKETS + 1,
        "rtp_packets_sent_total": 2 * PACKETS,
        "rtp_bytes_received_total": 1000 * PACKETS + 7,
        "fanout_latency_ms_count": PACKETS,
        "active_sessions": 1,
        "total_subscribers": 2,
    }
    assert {name: metrics[name] for name in expected} == expected
    comments = [line.split() for line in fed.http("/metrics").text.splitlines()]
    types = {words[2]: words[3] for words in comments if words[:2] == ["#", "TYPE"]}
    assert types["fanout_latency_ms"] == "histogram"
    assert types["rtp_packets_received_total"] == "counter"
    assert types["active_sessions"] == types["total_subscribers"] == "gauge"


def test_latency_is_one_distribution_in_two_units(fed: ServerProcess) -> None:
    metrics = fed.metrics()
    for name, unit in (("fanout_latency_ms", 1e3), ("rtpfanout_fanout_latency_seconds", 1.0)):
        prefix = f'{name}_bucket{{le="'
        bounds = {k[len(prefix) : -2]: v for k, v in metrics.items() if k.startswith(prefix)}
        assert list(bounds.values()) == sorted(bounds.values())  # cumulative
        assert bounds["+Inf"] == metrics[f"{name}_count"] == PACKETS
        finite = [float(bound) / unit for bound in bounds if bound != "+Inf"]
        assert finite == sorted(finite)
        assert finite[0] <= 1e-6
        assert finite[-1] >= 10
        assert 0 < metrics[f"{name}_sum"] / unit < 60 * PACKETS
    assert metrics["fanout_latency_ms_sum"] == pytest.approx(
        1000 * metrics["rtpfanout_fanout_latency_seconds_sum"]
    )


def test_all_reasons_are_there_from_the_start(server: ServerProcess) -> None:
    metrics = server.metrics()
    for name, reasons in (
        ("rtpfanout_packets_dropped_total", {"malformed", "not_rtp", "rtcp", "unknown_ssrc"}),
        ("rtpfanout_packets_dropped_total", {"wrong_source", "truncated"}),
        ("rtpfanout_send_failures_total", {"would_block", "no_buffer", "unreachable", "denied"}),
        ("rtpfanout_send_failures_total", {"too_big", "invalid", "other"}),
    ):
        for reason in reasons:
            assert metrics[f'{name}{{reason="{reason}"}}'] == 0
    version = f'version="{rtpfanout.__version__}"'
    (build,) = [key for key in metrics if key.startswith("rtpfanout_build_info{")]
    assert version in build
    assert metrics["rtpfanout_receive_buffer_bytes"] > 0
    assert metrics["rtpfanout_send_buffer_bytes"] > 0
    assert metrics["process_resident_memory_bytes"] > 0


def test_sessions_have_a_page_of_their_own(fed: ServerProcess) -> None:
    assert "session_id" not in fed.http("/metrics").text
    each = fed.metrics("/metrics/sessions")
    expected = {
        "packets_received_total": PACKETS,
        "packets_sent_total": 2 * PACKETS,
        "bytes_received_total": 1000 * PACKETS,
        "bytes_sent_total": 2000 * PACKETS,
        "send_failures_total": 0,
        "copies_withheld_total": 0,
        "subscribers": 2,
        "packets_expected_total": PACKETS,
        "packets_lost": 0,
        "packets_duplicated_total": 0,
        "packets_reordered_total": 0,
        "packets_late_total": 0,
        "restarts_total": 0,
        "condition": 1,
    }
    for name, value in expected.items():
        (key,) = [k for k in each if k.startswith(f"rtpfanout_session_{name}{{")]
        assert each[key] == value
        assert 'ssrc="0x00c0ffee"' in key
        assert 'media_type="video"' in key
        assert 'source="127.0.0.1:' in key
    drops = {k: v for k, v in each.items() if k.startswith("rtpfanout_session_packets_dropped")}
    reasons = [key.split('reason="')[1].split('"')[0] for key in drops]
    assert sorted(reasons) == ["overload", "paused", "rate_limit"]
    assert set(drops.values()) == {0}
    changing = ("_seconds", "_bps", "frames_total", "_per_second")
    others = {k for k in each if k.partition("{")[0].endswith(changing)}
    assert len(each) == len(expected) + len(drops) + len(others)


def test_the_reader_chooses_the_format(fed: ServerProcess) -> None:
    plain = fed.http("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    modern = fed.http("/metrics", accept=OPENMETRICS)
    assert modern.headers["content-type"].startswith("application/openmetrics-text")
    assert modern.text.endswith("# EOF\n")
    assert f"rtp_packets_sent_total {2 * PACKETS}.0\n" in modern.text


@pytest.mark.parametrize("page", ["/metrics", "/metrics/sessions"])
def test_promtool_finds_nothing_but_the_fixed_name(fed: ServerProcess, page: str) -> None:
    requires("promtool")
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=fed.http(page).text,
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = (checked.stdout + checked.stderr).splitlines()
    assert [line for line in complaints if not line.startswith("fanout_latency_ms ")] == []


def test_other_paths_and_methods(server: ServerProcess) -> None:
    assert "/metrics/sessions" in server.http("/").text
    assert server.http("/nothing").status_code == 404
    url = f"http://{server.metrics_address}/metrics"
    assert httpx.post(url, trust_env=False).status_code == 405


@pytest.fixture
def prometheus(fed: ServerProcess, tmp_path: Path) -> Iterator[str]:
    """A Prometheus that scrapes both pages every second; its address."""
    requires("prometheus")
    config = tmp_path / "prometheus.yml"
    config.write_text(f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: rtpfanout
    static_configs: [{{targets: ["{fed.metrics_address}"]}}]
  - job_name: sessions
    metrics_path: /metrics/sessions
    static_configs: [{{targets: ["{fed.metrics_address}"]}}]
""")
    address = f"127.0.0.1:{free_tcp_port()}"
    process = subprocess.Popen(
        [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield address
    finally:
        process.terminate()
        process.wait(SETTLE_SECONDS)


def test_a_real_prometheus_scrapes_it(prometheus: str, fed: ServerProcess) -> None:
    def query(expression: str) -> list[Any]:
        try:
            answer = httpx.get(
                f"http://{prometheus}/api/v1/query", params={"query": expression}, trust_env=False
            )
        except httpx.TransportError:  # it is still starting
            return []
        return list(answer.json()["data"]["result"]) if answer.status_code == 200 else []

    def value(expression: str) -> float:
        (result,) = eventually(lambda: query(expression), bool, expression)
        return float(result["value"][1])

    assert value('up{job="rtpfanout"} == 1') == 1
    assert value('up{job="sessions"} == 1') == 1
    metrics = fed.metrics()
    for name in (
        "rtp_packets_received_total",
        "rtp_packets_sent_total",
        "rtp_bytes_received_total",
        "active_sessions",
        "total_subscribers",
        "fanout_latency_ms_count",
    ):
        assert value(name) == metrics[name]
    assert value("sum(rtpfanout_packets_dropped_total)") == 1
    assert value('rtpfanout_session_packets_sent_total{ssrc="0x00c0ffee"}') == 2 * PACKETS
    quantile = value("histogram_quantile(0.99, rtpfanout_fanout_latency_seconds_bucket)")
    assert 0 < quantile < 20


BROKEN = """
from rtpfanout import _fastpath, assembly, supervisor
from rtpfanout.config import load_settings

class Broken(_fastpath.Engine):
    def run(self, worker):
        raise RuntimeError("a fault in the packet loop")

assembly.Engine = Broken
raise SystemExit(supervisor.run(load_settings().settings, load_settings))
"""


def test_a_failed_packet_loop_ends_the_server() -> None:
    addresses = ("bind_address", "grpc_bind_address", "metrics_bind_address")
    settings: dict[str, object] = dict.fromkeys(addresses, "127.0.0.1:0")
    settings["enable_supervisor"] = False
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN],
        env=server_environment(settings),
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert ended.returncode == 1
    assert '"critical"' in ended.stderr
    assert "a fault in the packet loop" in ended.stderr


def test_a_page_of_many_sessions(server: ServerProcess) -> None:
    for n in range(200):
        server.create(f"[2001:db8::{n + 1:x}]:5000", n)
    page = server.metrics("/metrics/sessions")
    assert sum(key.startswith("rtpfanout_session_subscribers{") for key in page) == 200
