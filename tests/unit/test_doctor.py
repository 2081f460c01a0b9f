"""`rtpfanout doctor`: on this host, and on hosts made of files."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
from cli_support import background, run, run_json
from ports_support import free_range
from ports_support import taken as port_taken

from rtpfanout.config import Settings
from rtpfanout.config.sections import TlsSettings
from rtpfanout.doctor import Finding, Level, examine, interfaces, kernel, sockets, sysctl_lines
from rtpfanout.host import Feature, Host, Ring
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

FREE = {
    "RTP_FANOUT__BIND_ADDRESS": "127.0.0.1:0",
    "RTP_FANOUT__GRPC_BIND_ADDRESS": "127.0.0.1:0",
    "RTP_FANOUT__METRICS_BIND_ADDRESS": "127.0.0.1:0",
}
SYSCTLS = {
    "net.ipv4.neigh.default.gc_thresh2": 4096,
    "net.ipv4.neigh.default.gc_thresh3": 8192,
    "net.ipv4.neigh.default.unres_qlen_bytes": 212992,
    "net.core.netdev_max_backlog": 1000,
    "net.core.netdev_budget": 300,
    "net.core.netdev_budget_usecs": 2000,
    "net.ipv4.conf.all.rp_filter": 0,
}


class FakeHost(Host):
    """Files below a directory, and interfaces that say what the test wants."""

    offloads: dict[str, Feature] | None = None
    ring: Ring | None = None
    synchronised: bool | None = True

    def write(self, path: str, text: object) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    def set_sysctl(self, name: str, value: int) -> None:
        self.write(f"proc/sys/{name.replace('.', '/')}", value)

    def add_interface(self, name: str, mtu: int = 1500, flags: str = "0x1003") -> None:
        self.write(f"sys/class/net/{name}/flags", flags)
        self.write(f"sys/class/net/{name}/mtu", mtu)
        self.set_sysctl(f"net.ipv4.conf.{name}.rp_filter", 0)

    def features(self, interface: str) -> dict[str, Feature] | None:  # noqa: ARG002
        return self.offloads

    def receive_ring(self, interface: str) -> Ring | None:  # noqa: ARG002
        return self.ring

    def clock_synchronised(self) -> bool | None:
        return self.synchronised


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    """One on which everything is well."""
    host = FakeHost(tmp_path)
    for name, value in SYSCTLS.items():
        host.set_sysctl(name, value)
    host.add_interface("eth0")
    host.add_interface("lo", 65536, "0x9")
    host.add_interface("eth9", 1500, "0x1002")  # down
    host.write("proc/net/softnet_stat", "0000ffff 00000000 00000000\n000000ff 00000000 00000000")
    on = Feature(active=True, changeable=True)
    host.offloads = dict.fromkeys(
        ("tx-udp-segmentation", "tx-checksum-ip-generic", "rx-gro", "rx-gro-hw"), on
    )
    host.ring = Ring(2048, 4096)
    return host


def by_subject(findings: Iterable[Finding]) -> dict[str, Finding]:
    found = {finding.subject: finding for finding in findings}
    assert found
    return found


def complaints(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {f.subject: f for f in findings if f.level is not Level.OK}


def check_kernel(host: Host, **settings: object) -> dict[str, Finding]:
    return by_subject(kernel.check_kernel(Settings(**settings), host))


def test_a_good_host_has_nothing_to_mend(host: FakeHost) -> None:
    assert not complaints(interfaces.check_interfaces(host))
    assert not complaints(kernel.check_kernel(Settings(), host))


def test_interfaces_that_are_down_and_loopback_are_left_out(host: FakeHost) -> None:
    assert host.interfaces() == ["eth0"]


@pytest.mark.parametrize(
    ("sysctl", "value", "settings", "wanted"),
    [
        ("net.ipv4.neigh.default.gc_thresh3", 1024, {}, 2000),
        ("net.ipv4.neigh.default.gc_thresh3", 8192, {"max_fanout_per_session": 5000}, 10000),
        ("net.ipv4.neigh.default.gc_thresh2", 512, {}, 1000),
        ("net.ipv4.neigh.default.unres_qlen_bytes", 3000, {}, 32768),
    ],
)
def test_a_sysctl_that_is_too_small(
    host: FakeHost, sysctl: str, value: int, settings: dict[str, object], wanted: int
) -> None:
    host.set_sysctl(sysctl, value)
    finding = check_kernel(host, **settings)[sysctl]
    assert finding.level is Level.WARN
    assert str(value) in finding.text
    assert finding.sysctls == {sysctl: str(wanted)}


def test_a_sysctl_that_cannot_be_read_is_no_complaint(tmp_path: Path) -> None:
    """As in a container, whose namespace doesn't show them."""
    empty = FakeHost(tmp_path)
    assert not complaints(kernel.check_kernel(Settings(), empty))
    assert not complaints(interfaces.check_interfaces(empty))


def test_in_another_network_namespace_softnet_is_judged_without_its_sysctls(
    tmp_path: Path,
) -> None:
    inside = FakeHost(tmp_path)
    inside.write("proc/net/softnet_stat", "0000ffff 00000000 00000000")
    finding = check_kernel(inside)["softnet"]
    assert finding.level is Level.OK
    assert "None" not in finding.text
    inside.write("proc/net/softnet_stat", "0000ffff 00000003 00000000")
    assert check_kernel(inside)["softnet"].level is Level.WARN


def test_packets_that_softnet_dropped(host: FakeHost) -> None:
    host.write("proc/net/softnet_stat", "0000ffff 00000003 00000000\n000000ff 0000000a 000000ff")
    found = check_kernel(host)
    backlog = found["net.core.netdev_max_backlog"]
    assert (backlog.level, backlog.sysctls) == (
        Level.WARN,
        {"net.core.netdev_max_backlog": "10000"},
    )
    assert "13 of 65790" in backlog.text
    assert found["net.core.netdev_budget"].sysctls["net.core.netdev_budget"] == "600"


def test_conntrack(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_kernel(host)["conntrack"].text == "not loaded"
    host.set_sysctl("net.netfilter.nf_conntrack_max", 1000)
    host.set_sysctl("net.netfilter.nf_conntrack_count", 0)
    assert check_kernel(host)["conntrack"].level is Level.OK
    host.set_sysctl("net.netfilter.nf_conntrack_count", 900)
    monkeypatch.setattr(kernel, "_untracked", lambda port: port == 5006)
    finding = check_kernel(host)["conntrack"]
    assert finding.level is Level.WARN
    assert "900 of 1000" in finding.text
    assert "nft add rule inet rtpfanout out udp sport 5004 notrack" in finding.commands
    assert check_kernel(host, bind_address="0.0.0.0:5006")["conntrack"].level is Level.OK


def test_a_notrack_rule_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nft = tmp_path / "nft"
    nft.write_text("#!/bin/sh\necho '  udp dport 5004 notrack'\n")
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert kernel._untracked(5004)
    assert not kernel._untracked(500)


def test_cores(host: FakeHost) -> None:
    host.write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave")
    host.write("sys/fs/cgroup/cpu.max", "50000 100000")
    found = check_kernel(host)
    assert found["CPU governor"].level is Level.WARN
    assert "powersave" in found["CPU governor"].text
    assert found["cores"].level is Level.WARN
    assert "0.5" in found["cores"].text
    host.write("sys/fs/cgroup/cpu.max", "max 100000")
    assert check_kernel(host)["cores"].level is Level.OK


@pytest.mark.parametrize(("state", "level"), [(False, Level.WARN), (None, Level.OK)])
def test_clock(host: FakeHost, state: bool | None, level: Level) -> None:
    host.synchronised = state
    assert check_kernel(host)["clock"].level is level


def test_a_strict_reverse_path_filter_matters_with_two_interfaces(host: FakeHost) -> None:
    host.set_sysctl("net.ipv4.conf.eth0.rp_filter", 1)
    assert check_kernel(host)["reverse path filter"].level is Level.OK
    host.add_interface("eth1")
    finding = check_kernel(host)["reverse path filter"]
    assert finding.level is Level.WARN
    assert finding.sysctls == {"net.ipv4.conf.eth0.rp_filter": "2"}


def test_offloads_that_are_off(host: FakeHost) -> None:
    off = Feature(active=False, changeable=True)
    host.offloads = dict.fromkeys(("tx-udp-segmentation", "tx-checksum-ip-generic", "rx-gro"), off)
    found = by_subject(interfaces.check_interfaces(host))
    assert found["eth0 tx-udp-segmentation"].commands == ("ethtool -K eth0 tx-udp-segmentation on",)
    assert found["eth0 checksums"].commands == ("ethtool -K eth0 tx on",)
    assert found["eth0 GRO"].commands == ("ethtool -K eth0 gro on",)
    assert len(complaints(interfaces.check_interfaces(host))) == 3


def test_what_the_device_cannot_do_is_no_complaint(host: FakeHost) -> None:
    assert host.offloads
    host.offloads["tx-udp-segmentation"] = Feature(active=False, changeable=False)
    finding = by_subject(interfaces.check_interfaces(host))["eth0 tx-udp-segmentation"]
    assert (finding.level, finding.commands) == (Level.OK, ())


def test_rings_and_mtu(host: FakeHost) -> None:
    host.ring = Ring(256, 4096)
    host.add_interface("eth0", mtu=900)
    found = by_subject(interfaces.check_interfaces(host))
    assert found["eth0 receive ring"].commands == ("ethtool -G eth0 rx 4096",)
    assert found["eth0 MTU"].level is Level.WARN
    host.ring = Ring(256, 256)
    assert by_subject(interfaces.check_interfaces(host))["eth0 receive ring"].level is Level.OK
    host.write("sys/class/net/eth0/statistics/rx_missed_errors", 7)
    finding = by_subject(interfaces.check_interfaces(host))["eth0 receive ring"]
    assert finding.level is Level.WARN
    assert "7 packets missed" in finding.text


def test_sysctl_lines_are_ready_for_a_file() -> None:
    findings = [
        Finding(Level.WARN, "a", "", sysctls={"net.core.rmem_max": "1"}),
        Finding(Level.OK, "b", ""),
        Finding(Level.WARN, "c", "", sysctls={"net.core.wmem_max": "2", "net.core.rmem_max": "1"}),
    ]
    assert sysctl_lines(findings) == ["net.core.rmem_max = 1", "net.core.wmem_max = 2"]


def test_a_buffer_that_was_cut_names_the_sysctl(host: FakeHost) -> None:
    finding = sockets._buffer(host, "receive buffer", "net.core.rmem_max", 100, 200, "danger")
    assert (finding.level, finding.sysctls) == (Level.WARN, {"net.core.rmem_max": "200"})
    host.set_sysctl("net.core.rmem_max", 150)
    finding = sockets._buffer(host, "receive buffer", "net.core.rmem_max", 200, 200, "danger")
    assert finding.level is Level.OK
    assert "without it net.core.rmem_max = 150" in finding.text


def test_how_many_dead_neighbours_fill_the_send_buffer(host: FakeHost) -> None:
    """As measured in tests/system/test_isolation: 8 MiB held 37 of them, not 50."""
    assert "64 sockets instead; 40 unreachable neighbours" in sockets._waiting(8 << 20, 64, host)
    assert "3 unreachable neighbours" in sockets._waiting(425984, 64, host)


def test_more_workers_than_cores(host: FakeHost) -> None:
    finding = check_kernel(host, workers=64)["cores"]
    assert finding.level is Level.WARN
    assert "64 workers" in finding.text


@pytest.fixture
def taken() -> Iterator[Address]:
    """A UDP port and a TCP port of the same number that this process has."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            tcp.listen(1)
            try:
                udp.bind(tcp.getsockname())
            except OSError:  # somebody else has it
                continue
            yield Address.parse("{}:{}".format(*tcp.getsockname()))
            return


def test_ports_in_use_fail_and_name_who_has_them(taken: Address) -> None:
    settings = Settings(
        bind_address=taken,
        grpc_bind_address=taken,
        metrics_bind_address=Address.parse("127.0.0.1:0"),
    )
    found = by_subject(sockets.check_ports(settings, Host()))
    for key in ("bind_address", "grpc_bind_address"):
        assert found[key].level is Level.FAIL
        assert "in use by process" in found[key].text
    assert found["metrics_bind_address"].level is Level.OK


def test_the_rtsp_door(taken: Address) -> None:
    free = dict.fromkeys(("grpc_bind_address", "metrics_bind_address"), "127.0.0.1:0")
    settings = Settings(bind_address="127.0.0.1:0", rtsp_bind_address=taken, **free)
    found = by_subject(sockets.check_ports(settings, Host()))
    assert found["rtsp_bind_address"].level is Level.FAIL
    keys = {"auth": {"jwt_keys": "keys.json"}}
    settings = Settings(bind_address="127.0.0.1:0", rtsp_bind_address="0.0.0.0:0", **free, **keys)
    found = by_subject(sockets.check_ports(settings, Host()))
    assert found["rtsp_bind_address"].level is Level.OK
    assert found["tokens by RTSP"].level is Level.WARN
    sealed = settings.model_copy(update={"tls": TlsSettings(certificate="c", key="k")})
    assert "tokens by RTSP" not in by_subject(sockets.check_ports(sealed, Host()))


def test_ports_beside_the_main_one() -> None:
    ports = free_range(4)
    settings = Settings(
        bind_address=f"127.0.0.1:{ports.first}",
        ingest_ports=f"{ports.first + 2}-{ports.last}",
        grpc_bind_address="127.0.0.1:0",
        metrics_bind_address="127.0.0.1:0",
    )
    found = by_subject(sockets.check_ports(settings, Host()))
    assert found["enable_rtcp_port"].level is found["ingest_ports"].level is Level.OK
    assert "3 sessions" in found["ingest_ports"].text
    with port_taken(ports.first + 1), port_taken(ports.first + 5):
        found = by_subject(sockets.check_ports(settings, Host()))
    assert found["enable_rtcp_port"].level is Level.FAIL
    assert found["ingest_ports"].level is Level.WARN
    assert f"the first: 127.0.0.1:{ports.first + 5} (udp) is in use" in found["ingest_ports"].text


def test_an_address_of_another_host_fails() -> None:
    settings = Settings(bind_address="192.0.2.1:5004")
    finding = by_subject(sockets.check_ports(settings, Host()))["bind_address"]
    assert finding.level is Level.FAIL
    assert "this host has no such address" in finding.text


def test_this_host_is_read_from_the_kernel() -> None:
    findings = by_subject(examine(Settings(**{k[12:].lower(): v for k, v in FREE.items()}), Host()))
    assert {"bind_address", "receive buffer", "send buffer", "UDP_GRO", "cores"} <= set(findings)
    features = Host().features("lo")
    assert features is not None
    assert "tx-udp-segmentation" in features
    assert not features["tx-udp-segmentation"].changeable or features["rx-gro"].changeable
    assert Host().features("nonesuch") is None
    assert Host().receive_ring("nonesuch") is None
    assert Host().clock_synchronised() in (True, False)


def test_the_command_prints_and_passes_with_warnings() -> None:
    done = run("doctor", **FREE)
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith("ok    bind_address ")
    report = run_json("doctor", **FREE)
    levels = [finding["level"] for finding in report["findings"]]
    assert {name: levels.count(name) for name in ("ok", "warn", "fail")} == {
        name: report[name] for name in ("ok", "warn", "fail")
    }
    assert all(line in done.stdout for line in report["sysctl_lines"])


def test_the_command_fails_when_a_port_is_taken(taken: Address) -> None:
    done = run("doctor", "-o", "json", **FREE | {"RTP_FANOUT__BIND_ADDRESS": str(taken)})
    assert done.returncode == 1
    assert json.loads(done.stdout)["fail"] == 1


def test_a_running_server_is_no_clash() -> None:
    arguments = (
        "--bind-address", "127.0.0.1:0", "--grpc-bind-address", "127.0.0.1:0",
        "--set", "enable_metrics=false", "--log-format", "json",
    )  # fmt: skip
    with background("serve", *arguments) as server:
        address = server.wait_for(r'"bind_address": "([^"]+)"')[1]
        settings = Settings(bind_address=address)
        finding = next(sockets.check_ports(settings, Host()))
    assert finding.level is Level.OK
    assert f"in use by process {server.process.pid}" in finding.text


def test_a_wrong_configuration_is_code_2() -> None:
    done = run("doctor", RTP_FANOUT__MAX_SESSIONS="0")
    assert done.returncode == 2
    assert "max_sessions" in done.stderr
