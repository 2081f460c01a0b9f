"""Which tests a run has, and what it says about those that it has not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from selection import LENGTHY, TESTS, belonging_to, long_first, modules_of

pytest_plugins = ["pytester"]

ROOT = TESTS.parent
CONFTEST = (TESTS / "conftest.py").read_text()
HOOKS = CONFTEST[CONFTEST.index("from selection") : CONFTEST.index(")\n") + 2]
SUITE = """
import pytest

def test_quick():
    pass

@pytest.mark.slow("sleeps for a year")
def test_slow():
    pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(
        f"[pytest]\nmarkers = slow(reason): slow\ntestpaths = t\npythonpath = {TESTS}\n"
    )
    directory = pytester.mkdir("t")
    (directory / "conftest.py").write_text(HOOKS)
    (directory / "test_it.py").write_text(SUITE)
    return pytester


@pytest.mark.parametrize("processes", ["0", "2"])
def test_slow_ones_are_left_out_and_named_with_their_reasons(
    suite: pytest.Pytester, processes: str
) -> None:
    ran = suite.runpytest_subprocess("-n", processes)
    ran.assert_outcomes(passed=1, deselected=0 if processes == "2" else 1)
    ran.stdout.fnmatch_lines(
        ["* 1 slow tests left out *", "   1 of t?test_it.py: sleeps for a year"]
    )


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [(["--all"], 2), (["--left-out"], 1), (["t/test_it.py::test_slow"], 1)],
)
def test_who_asks_for_slow_ones_gets_them(
    suite: pytest.Pytester, arguments: list[str], passed: int
) -> None:
    ran = suite.runpytest_subprocess("-n", "0", *arguments)
    ran.assert_outcomes(passed=passed, deselected=2 - passed if "::" not in arguments[0] else 0)
    ran.stdout.no_fnmatch_line("*left out*")


def test_each_process_begins_with_a_share_of_the_lengthy() -> None:
    paths = [TESTS / "core/test_core.py"] * 2 + [LENGTHY / f"test_{n}.py" for n in range(5)]
    items: Any = [SimpleNamespace(path=path) for path in [*paths, TESTS / "unit/test_model.py"]]
    names = [item.path.stem for item in long_first(items, 2)]
    assert names == [
        "test_0", "test_1", "test_core", "test_2", "test_3", "test_4", "test_core", "test_model",
    ]  # fmt: skip
    assert long_first(items, 1) == items[2:7] + items[:2] + items[7:]


@pytest.mark.parametrize(
    ("file", "test"),
    [
        ("src/rtpfanout/model.py", "unit/test_model.py"),
        ("src/rtpfanout/store/writer.py", "unit/test_store.py"),
        ("src/rtpfanout/_fastpath/core/net/snmp.c", "core/test_core.py"),
        ("src/rtpfanout/_fastpath/core/net/membership.c", "fastpath/test_group.py"),
        ("src/rtpfanout/_fastpath/_engine.pyx", "fastpath/test_forwarding.py"),
        ("tests/unit/test_model.py", "unit/test_model.py"),
        ("tests/netns.py", "system/test_isolation.py"),
        ("tests/core/test_rtp.c", "core/test_core.py"),
    ],
)
def test_a_file_has_its_tests(file: str, test: str) -> None:
    assert (ROOT / file).exists()
    assert TESTS / test in belonging_to(ROOT / file)


def test_nothing_belongs_to_what_has_no_tests() -> None:
    assert belonging_to(Path("/nowhere/at_all.py")) == []


def test_a_program_of_the_core_tests_what_its_comment_names() -> None:
    assert {"drops", "snmp", "steer"} <= modules_of("test_drops")
