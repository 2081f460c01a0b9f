"""docker/, .github/, .ci/run and pyproject.toml say the same as the program that they surround."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtpfanout.config import ENV_PREFIX, Settings, load_settings

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
KUBERNETES = DOCKER / "kubernetes"
DASHBOARD = DOCKER / "grafana/dashboards/rtpfanout.json"
WORKFLOWS = ROOT / ".github/workflows"


def load_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def pod_spec() -> dict[str, Any]:
    spec: dict[str, Any] = load_yaml(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize(
    "path",
    sorted([*DOCKER.rglob("*.y*ml"), *WORKFLOWS.glob("*.y*ml")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_yaml_files_parse(path: Path) -> None:
    documents = [document for document in yaml.safe_load_all(path.read_text()) if document]
    assert documents
    assert all(isinstance(document, dict) for document in documents)


# ---- image


def dockerfile_stages() -> list[list[str]]:
    """Instructions of each stage, continuation lines joined."""
    text = re.sub(r"\\\n\s*", " ", (DOCKER / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    starts = [i for i, line in enumerate(lines) if line.startswith("FROM ")]
    return [lines[a:b] for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)]


def test_the_image_runs_unprivileged_and_without_a_compiler() -> None:
    build, final = dockerfile_stages()
    assert any("gcc" in line for line in build)
    assert not any("apt-get" in line for line in final)
    users = [line.split()[1] for line in final if line.startswith("USER ")]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]), "by number, for runAsNonRoot"
    assert 'ENTRYPOINT ["rtpfanout"]' in final


def test_the_image_is_made_of_files_that_exist_and_are_let_through() -> None:
    allowed = {
        line[1:]
        for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        name
        for line in dockerfile_stages()[0]
        if line.startswith("COPY ")
        for name in line.split()[1:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_the_image_exposes_the_default_ports() -> None:
    exposed = {
        port for s in dockerfile_stages() for line in s if "EXPOSE" in line for port in line.split()
    }
    settings = Settings()
    assert f"{settings.bind_address.port}/udp" in exposed
    assert f"{settings.metrics_bind_address.port}/tcp" in exposed


# ---- compose


def test_compose_hardens_the_server_and_sets_only_known_keys() -> None:
    service = load_yaml(DOCKER / "compose.yaml")["services"]["rtpfanout"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["network_mode"] == "host", "source addresses must reach the server unchanged"
    keys = {name.removeprefix(ENV_PREFIX).lower() for name in service["environment"]}
    assert keys <= set(Settings.model_fields)
    build = service["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).exists()


def test_compose_mounts_what_exists_and_publishes_pages_on_loopback_only() -> None:
    services = load_yaml(DOCKER / "compose.yaml")["services"]
    mounts = [v for s in services.values() for v in s.get("volumes", []) if v.startswith(".")]
    assert mounts
    assert all((DOCKER / mount.split(":")[0]).is_dir() for mount in mounts)
    ports = [port for s in services.values() for port in s.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    taken = Settings().metrics_bind_address.port
    assert all(int(port.split(":")[1]) != taken for port in ports), "the server has this one"


def test_prometheus_scrapes_the_metrics_port() -> None:
    config = load_yaml(DOCKER / "prometheus/prometheus.yml")
    (job,) = config["scrape_configs"]
    (target,) = job["static_configs"][0]["targets"]
    assert target.endswith(f":{Settings().metrics_bind_address.port}")
    assert all((DOCKER / "prometheus" / name).exists() for name in config["rule_files"])
    source = load_yaml(DOCKER / "grafana/provisioning/datasources/prometheus.yaml")
    interval = source["datasources"][0]["jsonData"]["timeInterval"]
    assert interval == config["global"]["scrape_interval"], "$__rate_interval builds on it"


# ---- Grafana


def test_the_dashboard_is_well_formed() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(ids) == len(set(ids))
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        mine = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not mine & cells, f"{panel['title']} overlaps another panel"
        cells |= mine
        if panel["type"] != "row":
            assert panel["description"]
            assert all(t["datasource"]["uid"] == "${datasource}" for t in panel["targets"])


def test_the_dashboard_is_provisioned() -> None:
    (provider,) = load_yaml(DOCKER / "grafana/provisioning/dashboards/rtpfanout.yaml")["providers"]
    grafana = load_yaml(DOCKER / "compose.yaml")["services"]["grafana"]
    mounts = dict(volume.split(":")[:2][::-1] for volume in grafana["volumes"])
    assert mounts[provider["options"]["path"]] == "./grafana/dashboards"
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{DASHBOARD.name}"


# ---- Kubernetes


def test_the_pod_is_confined() -> None:
    pod = pod_spec()
    (container,) = pod["containers"]
    user = next(line for line in dockerfile_stages()[1] if line.startswith("USER ")).split()[1]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


def test_the_pods_configuration_is_accepted_and_agrees_with_its_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_yaml(KUBERNETES / "configmap.yaml")["data"]
    (name,) = data
    file = tmp_path / name
    file.write_text(data[name])
    monkeypatch.chdir(tmp_path)
    loaded = load_settings(file, {})
    settings = loaded.settings

    pod = pod_spec()
    (container,) = pod["containers"]
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "config")
    assert f"{mount['mountPath']}/{name}" in container["args"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {
        "rtp": settings.bind_address.port,
        "rtcp": settings.bind_address.port + 1,
        "metrics": settings.metrics_bind_address.port,
    }
    paths = {
        kind: container[f"{kind}Probe"]["httpGet"]["path"]
        for kind in ("startup", "liveness", "readiness")
    }
    assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    annotations = load_yaml(KUBERNETES / "deployment.yaml")["spec"]["template"]["metadata"][
        "annotations"
    ]
    assert annotations["prometheus.io/port"] == str(settings.metrics_bind_address.port)


def test_selectors_find_the_pod() -> None:
    deployment = load_yaml(KUBERNETES / "deployment.yaml")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    service = load_yaml(KUBERNETES / "service.yaml")["spec"]
    assert deployment["selector"]["matchLabels"].items() <= labels.items()
    assert service["selector"].items() <= labels.items()


# ---- continuous integration and distribution


@pytest.mark.parametrize("name", ["README_DEMO", "README_TESTS"])
def test_ci_runs_the_readmes_two_commands(name: str) -> None:
    script = (ROOT / ".ci/run").read_text()
    match = re.search(rf'^{name}="(.+)"$', script, re.MULTILINE)
    assert match
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    lines = {line.strip() for block in blocks for line in block.splitlines()}
    assert match[1] in lines, f"{name} of .ci/run, on a line of its own in a fenced block"


def test_ci_scripts_are_valid_shell() -> None:
    bash = shutil.which("bash")
    assert bash
    subprocess.run([bash, "-n", ROOT / ".ci/run"], check=True)


def test_wheels_are_built_on_the_oldest_python_and_tested_on_later_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    oldest = project["project"]["requires-python"].removeprefix(">=").replace(".", "")
    selected = project["tool"]["cibuildwheel"]["build"]
    assert selected[0] == f"cp{oldest}-manylinux_*", "abi3: later ones reuse this wheel"
    assert len(selected) > 1
    matrix = load_yaml(WORKFLOWS / "wheels.yml")["jobs"]["wheels"]["strategy"]["matrix"]
    assert {entry["arch"] for entry in matrix["include"]} == {"x86_64", "aarch64"}


def test_workflows_cover_the_pythons_that_wheels_are_tested_on() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    selected = {s.split("-")[0] for s in project["tool"]["cibuildwheel"]["build"]}
    jobs = load_yaml(WORKFLOWS / "tests.yml")["jobs"]
    pythons = jobs["tests"]["strategy"]["matrix"]["python"]
    assert {f"cp{version.replace('.', '')}" for version in pythons} == selected
    assert "bash .ci/run" in [step.get("run") for step in jobs["full"]["steps"]]


def test_a_container_keeps_its_sessions_on_a_volume() -> None:
    """Its own file system is read-only, and its user has no home."""
    image = (ROOT / "docker/Dockerfile").read_text()
    (place,) = re.findall(r"STATE_DIRECTORY=(\S+)", image)
    assert f"VOLUME {place}" in image
    assert re.search(rf"--owner=10001 .* {place}$", image, re.MULTILINE)
    compose = yaml.safe_load((ROOT / "docker/compose.yaml").read_text())
    (volume,) = compose["services"]["rtpfanout"]["volumes"]
    assert volume.split(":")[1] == place
    assert volume.split(":")[0] in compose["volumes"]
    manifest = yaml.safe_load((ROOT / "docker/kubernetes/deployment.yaml").read_text())
    pod = manifest["spec"]["template"]["spec"]
    mounts = {m["mountPath"]: m["name"] for m in pod["containers"][0]["volumeMounts"]}
    assert mounts[place] in {v["name"] for v in pod["volumes"]}
