"""The dashboard, the alerts and the scrape configuration, against a real Prometheus.

A real server forwards RTP while a real Prometheus scrapes it with the committed
configuration; then every query of the dashboard and of every alert is asked.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
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
from support import (
    ServerProcess,
    address_of,
    eventually,
    free_tcp_port,
    requires,
    rtp_packet,
    udp_socket,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKER = Path(__file__).resolve().parents[2] / "docker"
RULES = DOCKER / "prometheus/rtpfanout.rules.yml"
DASHBOARD = json.loads((DOCKER / "grafana/dashboards/rtpfanout.json").read_text())
ALERTS = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]

PACKETS = 200
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
    """What the API answers, be it a refusal; OSError while Prometheus is not there yet."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310
            return json.load(response)
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise
        return json.load(error)


@dataclass(frozen=True)
class Prometheus:
    url: str

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query; fails on anything but success."""
        answer = fetch(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        assert answer["status"] == "success", f"{expression}\n{answer}"
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def targets_up(self) -> bool:
        try:
            return bool(self.query("up == 1"))
        except OSError:
            return False  # not listening yet

    def value(self, expression: str) -> float:
        (sample,) = self.query(expression)
        return float(sample["value"][1])

    def label_values(self, label: str, selector: str) -> list[str]:
        query = urllib.parse.urlencode({"match[]": selector})
        values: list[str] = fetch(f"{self.url}/api/v1/label/{label}/values?{query}")["data"]
        return values


@contextmanager
def running_prometheus(place: Path, target: str) -> Iterator[Prometheus]:
    """With the committed configuration, only faster and with another target."""
    config = yaml.safe_load((DOCKER / "prometheus/prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (place / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(RULES, place)
    port = free_tcp_port()
    command = [
        "prometheus",
        f"--config.file={place / 'prometheus.yml'}",
        f"--storage.tsdb.path={place / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    log = place / "prometheus.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    prometheus = Prometheus(f"http://127.0.0.1:{port}")
    try:
        eventually(prometheus.targets_up, bool, f"a scrape of the server; see {log}")
        yield prometheus
    finally:
        child.terminate()
        child.wait(timeout=30)


def move_packets(server: ServerProcess, stack: ExitStack) -> None:
    """PACKETS packets to each subscriber, and STRANGE ones that are not RTP, paced."""
    source, *subscribers = (stack.enter_context(udp_socket()) for _ in range(1 + SUBSCRIBERS))
    server.create(address_of(source), SSRC, *map(address_of, subscribers))
    for number in range(PACKETS):
        source.sendto(rtp_packet(SSRC, number), server.ingest_target)
        if number < STRANGE:
            source.sendto(b"not RTP at all", server.ingest_target)
        time.sleep(0.01)  # over several scrapes, so that rates have something to show
    server.settled(PACKETS + STRANGE)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    requires("prometheus")
    with ExitStack() as stack:
        server = ServerProcess()
        stack.callback(server.stop)
        prometheus = stack.enter_context(
            running_prometheus(tmp_path_factory.mktemp("prometheus"), str(server.metrics_address))
        )
        move_packets(server, stack)
        eventually(
            lambda: prometheus.value("rtp_packets_received_total"),
            lambda value: value == PACKETS + STRANGE,
            "the scrape of the last packet",
        )
        yield prometheus
        server.check_identities()


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

    eventually(
        lambda: {rule["name"]: rule["health"] for rule in rules()},
        lambda health: set(health.values()) == {"ok"},
        "the evaluation of all rules",
    )
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
        f"rtpfanout_{name}_latency_seconds_{what}"
        for name in ("fanout", "first_copy")
        for what in ("count", "sum")
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
