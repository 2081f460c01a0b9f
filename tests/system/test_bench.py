"""`rtpfanout bench` runs, counts and says what it measured. Its figures are no test."""

from __future__ import annotations

import pytest
from cli_support import run, run_json


@pytest.mark.parametrize("workers", [1, 2])
def test_a_cell_has_both_ways_in_one_run(workers: int) -> None:
    (result,) = run_json(
        "bench", "--subscribers", 20, "--burst", 14, "--size", 600,
        "--workers", workers, "--duration", 1,
    )  # fmt: skip
    assert result["cell"] == {
        "subscribers": 20, "burst": 14, "size": 600, "workers": workers, "device_segments": False,
    }  # fmt: skip
    for way in ("segmented", "plain"):
        assert result[way]["copies_per_second"] > 0
        assert result[way]["copies_per_cpu_second"] > 0
        assert result[way]["copies_failed"] == 0
    assert result["plain"]["copies_per_send"] == 1
    assert result["segmented"]["copies_per_send"] > 1
    assert result["ratio"] > 0
    assert result["latency"]["p50_ms"] <= result["latency"]["p99_ms"]


def test_each_combination_is_a_row() -> None:
    done = run(
        "bench", "--subscribers", 1, "--subscribers", 3, "--burst", 1, "--burst", 2,
        "--size", 12, "--duration", 0.5, "--device-segments",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header.startswith("SUBSCRIBERS  BURST")
    assert [row.split()[:3] for row in rows] == [
        ["1", "1", "12"], ["1", "2", "12"], ["3", "1", "12"], ["3", "2", "12"],
    ]  # fmt: skip


def test_help_says_what_is_not_measured() -> None:
    assert "not a network card" in " ".join(run("bench", "--help").stdout.split())
