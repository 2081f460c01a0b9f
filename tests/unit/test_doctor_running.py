"""What `rtpfanout doctor` says of servers that run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rtpfanout.config import Settings
from rtpfanout.doctor import Finding, Level, Running, running
from rtpfanout.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SETTINGS = Settings(enable_metrics=False)
PAGE = """\
rtpfanout_build_info{version="1"} 1.0
rtpfanout_receive_buffer_bytes 425984.0
rtpfanout_send_buffer_bytes 425984.0
rtpfanout_egress_lanes 1.0
rtpfanout_workers 2.0
rtpfanout_receiving_workers 2.0
rtpfanout_kernel_receive_drops_total 0.0
rtp_packets_received_total 1000.0
rtpfanout_send_failures_total{reason="would_block"} 0.0
rtpfanout_send_failures_total{reason="unreachable"} 7.0
rtpfanout_overload_mark_passed{mark="busy"} 0.0
rtpfanout_ingest_group_joined{group="239.1.2.3%eth0"} 1.0
rtpfanout_store_failing 0.0
rtpfanout_log_lines_lost_total 0.0
"""


def troubles(findings: Iterable[Finding]) -> dict[str, str]:
    return {each.subject: each.text for each in findings if each.level is not Level.OK}


def of_page(text: str) -> dict[str, str]:
    samples = running.parse(text)
    assert samples is not None
    return troubles(running.check_metrics(samples))


def test_a_server_that_is_well() -> None:
    assert of_page(PAGE) == {}
    samples = running.parse(PAGE)
    assert samples is not None
    (queue,) = [f for f in running.check_metrics(samples) if f.subject == "its receive queue"]
    assert queue.text.startswith("212992 bytes; 0 packets dropped")


@pytest.mark.parametrize(
    ("line", "subject", "words"),
    [
        ("rtpfanout_kernel_receive_drops_total 1000", "its receive queue", "(50.00%)"),
        ('rtpfanout_send_failures_total{reason="would_block"} 3', "its send buffer", "3 copies"),
        ("rtpfanout_receiving_workers 1", "its workers", "of which 1 receive"),
        ('rtpfanout_overload_mark_passed{mark="busy"} 1', "its overload", "busy"),
        ('rtpfanout_ingest_group_joined{group="239.1.2.3%eth0"} 0', "its multicast", "239.1.2.3"),
        ("rtpfanout_store_failing 1", "its store", "can't be written"),
        ("rtpfanout_log_lines_lost_total 4", "its log", "4 lines"),
    ],
)
def test_what_is_wrong_with_it(line: str, subject: str, words: str) -> None:
    name = line.rpartition(" ")[0]
    (changed,) = [old for old in PAGE.splitlines() if old.rpartition(" ")[0] == name]
    found = of_page(PAGE.replace(changed, line))
    assert set(found) == {subject}
    assert words in found[subject]


@pytest.mark.parametrize("text", ["", "<html>", "other_metric 1.0\n", "rtpfanout_build_info{ 1"])
def test_another_programs_page_is_none(text: str) -> None:
    assert running.parse(text) is None


def test_capabilities_and_keys_that_wait(tmp_path: Path) -> None:
    host = Host(tmp_path)
    file = tmp_path / "proc/7/status"
    file.parent.mkdir(parents=True)
    server = Running(6, 7, "0.0.0.0:5004", ("workers",))

    def said() -> str:
        (first, waits, *_) = running.check_running(SETTINGS, host, [server])
        assert waits.level is Level.WARN
        assert "workers" in waits.text
        return first.text

    assert "cannot be read" in said()
    file.write_text("Name:\trtpfanout\nCapEff:\t0000000000000000\n")
    assert "no CAP_NET_ADMIN" in said()
    assert "no CAP_NET_RAW" in said()
    file.write_text("Name:\trtpfanout\nCapEff:\t000001ffffffffff\n")
    assert said() == "at 0.0.0.0:5004, with CAP_NET_ADMIN and CAP_NET_RAW"


def test_where_none_runs_it_says_so(tmp_path: Path) -> None:
    (only,) = running.check_running(SETTINGS, Host(tmp_path), [])
    assert (only.level, only.subject) == (Level.OK, "running server")
    assert only.text.startswith("none")
