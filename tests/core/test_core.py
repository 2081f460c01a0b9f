"""Every C test program, plain and under the sanitizers; what is wrong is in its output."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from core import build
from selection import modules_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Objects = tuple["Path", list["Path"]]
SANITIZED = [
    pytest.param(
        variant,
        marks=pytest.mark.slow("the core built anew under sanitizers, and many times slower"),
    )
    for variant in build.VARIANTS
    if variant != "plain"
]


def demand(missing: str | None) -> None:
    """Skips for that reason, or fails where everything must be there (CI)."""
    if missing:
        give_up = pytest.fail if os.environ.get("RTPFANOUT_REQUIRE_ALL") == "1" else pytest.skip
        give_up(missing)


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Objects]:
    """Compiles the core, once for a variant: the directory and the objects."""
    built: dict[str, Objects] = {}

    def objects(variant: str) -> Objects:
        if variant not in built:
            out = tmp_path_factory.mktemp("core")
            built[variant] = out, build.compile_core(out, variant)
        return built[variant]

    return objects


@pytest.mark.parametrize("program", build.programs())
@pytest.mark.parametrize("variant", ["plain", *SANITIZED])
@pytest.mark.timeout(300 + build.TIMEOUT)
def test_program(program: str, variant: str, core: Callable[[str], Objects]) -> None:
    demand(build.missing(variant))
    out, objects = core(variant)
    result = build.run(build.link_program(build.HERE / f"{program}.c", objects, out, variant))
    assert result.returncode == 0, result.stdout
    print(result.stdout)


def test_each_file_of_the_core_is_named_by_a_program_that_tests_it() -> None:
    files = {path.stem for path in build.CORE.rglob("*.[ch]")}
    named = set().union(*map(modules_of, build.programs()))
    facade = {"core", "core_senders", "rtcp_api"}
    elsewhere = facade | {"membership"}  # the groups of the host, in tests/fastpath
    assert files - named == elsewhere
    assert not {name.removeprefix("test_") for name in build.programs()} & files - named


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warnings(compiler: str, tmp_path: Path) -> None:
    """At -O2, as shipped, where data-flow warnings see the most."""
    demand(None if shutil.which(compiler) else f"{compiler} is not installed")
    extra = ["-Watomic-implicit-seq-cst"] if compiler == "clang" else []
    build.compile_core(tmp_path, "plain", extra=("-O2", *extra), command=[compiler])


def test_a_failing_check_fails(tmp_path: Path) -> None:
    """The harness itself: a program whose check does not hold says where."""
    demand(build.missing("plain"))
    source = tmp_path / "test_false.c"
    source.write_text('#include "check.h"\nint main(void) { CHECK_EQ(1 + 1, 3); return 0; }\n')
    result = build.run(build.link_program(source, [], tmp_path, "plain"))
    assert result.returncode == 1
    assert "test_false.c:2: main: 1 + 1 is 2, expected 3" in result.stdout


def test_the_lookup_benchmark_runs() -> None:
    """It is built on the core's inner parts; its figures belong to a quiet machine."""
    demand(build.missing("plain"))
    script = build.HERE.parents[1] / "benchmarks" / "lookup.py"
    ran = subprocess.run(
        [sys.executable, str(script), "--keys=1", "--rounds=1", "--repeats=2"],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(ran.stdout)
    assert list(figures) == ["hit", "miss", "gate"]
    for kind in figures.values():
        assert kind["ns_among_10"] > 0
        assert kind["least"] <= kind["ratio"] <= kind["most"]


def test_the_reception_benchmark_runs() -> None:
    demand(build.missing("plain"))
    script = build.HERE.parents[1] / "benchmarks" / "reception.py"
    ran = subprocess.run(
        [sys.executable, str(script), "--rounds=1", "--repeats=1"],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(ran.stdout)
    assert list(figures) == ["one", "bursts", "singles"]
    assert all(cell["with_ns"] > 0 for cell in figures.values())
