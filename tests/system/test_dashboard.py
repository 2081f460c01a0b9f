"""The dashboard, the alerts and the scrape configuration, against a real Prometheus.

A real server forwards RTP while a real Prometheus scrapes it with the committed
configuration; then every query of the dashboard and of every alert is asked.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support import requires

from rtpfanout.client import SessionClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DOCKER = Path(__file__).resolve().parents[2] / "docker"
RULES = DOCKER / "prometheus/rtpfanout.rules.yml"
DASHBOARD = json.loads((DOCKER / "grafana/dashboards/rtpfanout.json").read_text())
ALERTS = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]

PACKETS = 500
STRANGE = 7
SUBSCRIBERS = 2
SSRC = 0x5EED

# What Grafana puts in.
VARIABLES = {
    "$job": "rtpfanout",
    "$instance": ".+",
    "$__rate_interval": "30s",
    "$__range": "1m",
}
METRIC = re.compile(r"\b(?:rtp|rtpfanout|process)_\w+|\b(?:active_sessions|total_subscribers|up)\b")


def panel_queries() -> list[Any]:
    return [
        pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    ]


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def fetch(url: str) -> Any:
    """The body, as JSON where it is; an HTTP error becomes its body too."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310
            body = response.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass  # not listening yet
        time.sleep(0.1)
    pytest.fail(f"no {what} within {seconds:g} s")


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs until the block ends; its output is shown when the block fails."""
    with log.open("wb") as out:
        child = subprocess.Popen(
            command,
            cwd=log.parent,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield child
    except BaseException:
        sys.stderr.write(f"{command[0]}:\n{log.read_text()}")
        raise
    finally:
        child.terminate()
        try:
            child.wait(timeout=15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; fails on anything but success."""
        answer = fetch(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert answer["status"] == "success", f"{expression}\n{answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def value(self, expression: str) -> float:
        (sample,) = self.query(expression)
        return float(sample["value"][1])

    def label_values(self, label: str, selector: str) -> list[str]:
        query = urllib.parse.urlencode({"match[]": selector})
        values: list[str] = fetch(f"{self.url}/api/v1/label/{label}/values?{query}")["data"]
        return values


def start_server(stack: ExitStack, place: Path) -> tuple[int, int, int]:
    """Ports of RTP, gRPC and metrics."""
    rtp, grpc, metrics = free_port(socket.SOCK_DGRAM), free_port(), free_port()
    server = stack.enter_context(
        process(
            [sys.executable, "-m", "rtpfanout", "serve"],
            place / "server.log",
            RTP_FANOUT__BIND_ADDRESS=f"127.0.0.1:{rtp}",
            RTP_FANOUT__GRPC_BIND_ADDRESS=f"127.0.0.1:{grpc}",
            RTP_FANOUT__METRICS_BIND_ADDRESS=f"127.0.0.1:{metrics}",
        )
    )

    def ready() -> bool:
        if server.poll() is not None:
            pytest.fail(f"the server ended with {server.returncode}")
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)

    wait_until(ready, "ready server")
    return rtp, grpc, metrics


def start_prometheus(stack: ExitStack, place: Path, target: str) -> Prometheus:
    """With the committed configuration, only faster and with another target."""
    config = yaml.safe_load((DOCKER / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (place / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(RULES, place)
    port = free_port()
    stack.enter_context(
        process(
            [
                "prometheus",
                f"--config.file={place / 'prometheus.yml'}",
                f"--storage.tsdb.path={place / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            place / "prometheus.log",
        )
    )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    wait_until(lambda: bool(prometheus.query("up == 1")), "scrape of the server")
    return prometheus


def bound_socket(stack: ExitStack) -> socket.socket:
    result = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    result.bind(("127.0.0.1", 0))
    return result


def address(of: socket.socket) -> str:
    return "{}:{}".format(*of.getsockname())


def move_packets(stack: ExitStack, rtp: int, grpc: int) -> None:
    """PACKETS packets to each subscriber, and STRANGE ones that are not RTP, paced."""
    source = bound_socket(stack)
    subscribers = [bound_socket(stack) for _ in range(SUBSCRIBERS)]
    with SessionClient(f"127.0.0.1:{grpc}") as client:
        session = client.create_session(address(source), SSRC, "video").session_id
        for subscriber in subscribers:
            client.add_subscriber(session, address(subscriber))
        for number in range(PACKETS):
            header = bytes([0x80, 96]) + number.to_bytes(2, "big") + bytes(4)
            source.sendto(header + SSRC.to_bytes(4, "big") + bytes(100), ("127.0.0.1", rtp))
            if number < STRANGE:
                source.sendto(b"not RTP at all", ("127.0.0.1", rtp))
            time.sleep(0.01)  # over several scrapes, so that rates have something to show
        wait_until(
            lambda: client.get_session_stats(session).packets_sent == SUBSCRIBERS * PACKETS,
            "copy of every packet",
        )


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    requires("prometheus")
    place = tmp_path_factory.mktemp("dashboard")
    with ExitStack() as stack:
        rtp, grpc, metrics = start_server(stack, place)
        prometheus = start_prometheus(stack, place, f"127.0.0.1:{metrics}")
        move_packets(stack, rtp, grpc)
        total = PACKETS + STRANGE
        wait_until(
            lambda: prometheus.value("rtp_packets_received_total") == total, "scrape of the total"
        )
        yield prometheus


@pytest.mark.parametrize("expression", panel_queries())
def test_each_panel_has_data(prometheus: Prometheus, expression: str) -> None:
    samples = prometheus.query(filled_in(expression))
    assert samples
    assert all(sample["value"][1] != "NaN" for sample in samples), samples


def test_the_variables_offer_the_server(prometheus: Prometheus) -> None:
    asked = 0
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match
            assert len(prometheus.label_values(match[2], filled_in(match[1]))) == 1
            asked += 1
    assert asked == 2


def test_figures_are_exact(prometheus: Prometheus) -> None:
    assert prometheus.value("rtp_packets_received_total") == PACKETS + STRANGE
    assert prometheus.value("rtp_packets_sent_total") == SUBSCRIBERS * PACKETS
    assert prometheus.value('rtpfanout_packets_dropped_total{reason="not_rtp"}') == STRANGE
    assert prometheus.value("rtpfanout_fanout_latency_seconds_count") == PACKETS
    assert prometheus.value("active_sessions") == 1
    assert prometheus.value("total_subscribers") == SUBSCRIBERS


def test_the_accounts_on_the_dashboard_balance(prometheus: Prometheus) -> None:
    accounts = [p for p in DASHBOARD["panels"] if p["title"].endswith("without an account")]
    assert len(accounts) == 2
    for panel in accounts:
        (target,) = panel["targets"]
        assert prometheus.value(filled_in(target["expr"])) == 0


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_asks_for_series_that_exist(prometheus: Prometheus, rule: Any) -> None:
    prometheus.query(rule["expr"])
    names = set(METRIC.findall(rule["expr"]))
    assert names
    for name in names:
        assert prometheus.query(name), f"no series {name}"


def test_prometheus_evaluates_the_alerts_and_none_is_about_us(prometheus: Prometheus) -> None:
    def rules() -> list[dict[str, Any]]:
        groups = fetch(f"{prometheus.url}/api/v1/rules")["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] == "ok" for rule in rules()), "evaluation of all rules")
    assert {rule["name"] for rule in rules()} == {rule["alert"] for rule in ALERTS}
    firing = {rule["name"] for rule in rules() if rule["state"] == "firing"}
    assert not firing


def test_every_metric_of_ours_is_shown_or_alerted_on(prometheus: Prometheus) -> None:
    """A new counter needs a place on the dashboard; milliseconds are the seconds again."""
    names = prometheus.label_values("__name__", '{job="rtpfanout",__name__=~"rtp.+|.+s"}')
    ours = {n for n in names if n.startswith(("rtp_", "rtpfanout_")) and not n.endswith("_created")}
    asked = "\n".join(
        [*(parameter.values[0] for parameter in panel_queries()), *(r["expr"] for r in ALERTS)]
    )
    unseen = {name for name in ours if name not in asked}
    assert unseen <= {
        "rtpfanout_fanout_latency_seconds_count",
        "rtpfanout_fanout_latency_seconds_sum",
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "rtpfanout.rules.yml"),
        ("test", "rules", "rtpfanout.rules.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts_the_files(arguments: tuple[str, ...]) -> None:
    requires("promtool")
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=DOCKER / "prometheus",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_seen_to_fire() -> None:
    """By the promtool test above."""
    tests = yaml.safe_load((DOCKER / "prometheus/rtpfanout.rules.test.yml").read_text())["tests"]
    shown = {
        case["alertname"]
        for test in tests
        for case in test.get("alert_rule_test", [])
        if case["exp_alerts"]
    }
    assert shown == {rule["alert"] for rule in ALERTS}
