"""`rtpfanout config`, run as the process that a user runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = """
from rtpfanout.cli.config import app
from rtpfanout.cli.exits import run_cli
run_cli(lambda: app(prog_name='rtpfanout config'))
"""


@pytest.fixture
def run(tmp_path: Path):
    def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RTP_FANOUT")}
        paths = [str(ROOT / "src"), kept.get("PYTHONPATH", "")]
        return subprocess.run(
            [sys.executable, "-c", COMMAND, *arguments],
            cwd=tmp_path,
            env=kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_check_of_a_good_file(run, tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_text("max_sessions = 3\n")
    done = run("check", "--config", "good.toml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok: good.toml\n", "")


def test_check_prints_warnings_beside_ok(run) -> None:
    done = run("check", RTP_FANOUT__MAX_SESIONS="3")
    assert done.returncode == 0
    assert done.stdout.startswith("ok: ")
    assert done.stderr.startswith("warning: environment variable RTP_FANOUT__MAX_SESIONS ")


def test_check_prints_each_problem_on_a_line_and_exits_with_2(run, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("max_sessions = 0\nbufer_size = 3\n")
    done = run("check", "-c", "bad.toml", RTP_FANOUT__INSECURE="perhaps")
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(done.stderr.splitlines()) == [
        "error: bad.toml: max_sessions = 0: expected a whole number from 1 to 1000000",
        "error: bad.toml: unknown key bufer_size, did you mean buffer_size?",
        'error: environment variable RTP_FANOUT__INSECURE: insecure = "perhaps": '
        "expected true or false",
    ]


def test_check_of_a_missing_file(run) -> None:
    for done in (run("check", "-c", "no.toml"), run("check", RTP_FANOUT_CONFIG="no.toml")):
        assert (done.returncode, done.stdout) == (2, "")
        assert "no.toml: no such file" in done.stderr


def test_show_says_where_each_value_comes_from(run, tmp_path: Path) -> None:
    (tmp_path / "some.toml").write_text("max_sessions = 3\n")
    done = run("show", "-c", "some.toml", RTP_FANOUT__LOG__LEVEL="debug")
    assert done.returncode == 0
    lines = [line.split("  # ") for line in done.stdout.splitlines() if "#" in line]
    origins = {assignment.strip(): origin for assignment, origin in lines}
    assert origins["max_sessions = 3"] == "some.toml"
    assert origins['level = "debug"'] == "environment variable RTP_FANOUT__LOG__LEVEL"
    assert origins["buffer_size = 65536"] == "default"


def test_show_as_json(run) -> None:
    done = run("show", "-o", "json", RTP_FANOUT__MAX_SESSIONS="3", RTP_FANOUT__ZZZ="1")
    shown = json.loads(done.stdout)
    assert shown["settings"]["max_sessions"] == {
        "value": 3,
        "origin": "environment variable RTP_FANOUT__MAX_SESSIONS",
    }
    assert shown["settings"]["address_policy.allow"] == {"value": [], "origin": "default"}
    assert len(shown["warnings"]) == 1


def test_example_is_the_committed_file_and_passes_check(run, tmp_path: Path) -> None:
    done = run("example")
    assert done.stdout == (ROOT / "config/server.toml").read_text()
    (tmp_path / "example.toml").write_text(done.stdout)
    assert run("check", "-c", "example.toml").returncode == 0


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, rtpfanout.cli.config; print([m for m in sys.modules if 'pydantic' in m])"
    environ = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
