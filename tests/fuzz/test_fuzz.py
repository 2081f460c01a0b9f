"""The fuzz targets: over their corpus always, with libFuzzer where clang has it.

RTPFANOUT_FUZZ=full runs 10^7 inputs through the parsers and 10^6 through whole turns.
"""

from __future__ import annotations

import os
import re
import shutil
from functools import cache
from pathlib import Path

import pytest
from core import build

HERE = Path(__file__).resolve().parent
FULL = os.environ.get("RTPFANOUT_FUZZ") == "full"
RUNS = {
    "fuzz_rtp": 10_000_000 if FULL else 200_000,
    "fuzz_rtcp": 10_000_000 if FULL else 200_000,
    "fuzz_payload": 10_000_000 if FULL else 100_000,
    "fuzz_turn": 1_000_000 if FULL else 10_000,
}
LONGEST = {"fuzz_rtp": 512, "fuzz_rtcp": 512, "fuzz_payload": 2048, "fuzz_turn": 4096}
LIBFUZZER = "fuzzer,address,undefined"


def demand(missing: str | None) -> None:
    """Skips for that reason, or fails where everything must be there (CI)."""
    if missing:
        give_up = pytest.fail if os.environ.get("RTPFANOUT_REQUIRE_ALL") == "1" else pytest.skip
        give_up(missing)


@cache
def libfuzzer_missing() -> str | None:
    """Why libFuzzer can't be used here, or None."""
    if not shutil.which("clang"):
        return "clang is not installed"
    return build.missing(LIBFUZZER, ("clang",))


def corpus(target: str) -> list[str]:
    return sorted(str(path) for path in (HERE / "corpus" / target).iterdir())


@pytest.mark.slow("the core built anew under sanitizers")
@pytest.mark.parametrize("target", RUNS)
def test_corpus(target: str, tmp_path: Path) -> None:
    variant = "plain" if build.missing("address,undefined") else "address,undefined"
    demand(build.missing(variant))
    objects = build.compile_core(tmp_path, variant)
    program = build.link_program(
        HERE / f"{target}.c", [HERE / "replay.c", *objects], tmp_path, variant
    )
    result = build.run(program, *corpus(target))
    assert result.returncode == 0, result.stdout
    assert f"{len(corpus(target))} inputs" in result.stdout


@pytest.mark.slow("builds the core for libFuzzer, and runs it as often as makes sense")
@pytest.mark.parametrize("target", RUNS)
@pytest.mark.timeout(1200)
def test_fuzz(target: str, tmp_path: Path) -> None:
    demand(libfuzzer_missing())
    found = tmp_path / "found"
    found.mkdir()
    objects = build.compile_core(
        tmp_path, "address,undefined", extra=("-fsanitize=fuzzer-no-link",), command=["clang"]
    )
    program = build.link_program(
        HERE / f"{target}.c", objects, tmp_path, LIBFUZZER, command=["clang"]
    )
    result = build.run(
        program,
        f"-runs={RUNS[target]}",
        f"-max_len={LONGEST[target]}",
        f"-artifact_prefix={tmp_path}/",
        "-print_final_stats=1",
        "-verbosity=0",
        str(found),
        str(HERE / "corpus" / target),
        timeout=1100,
    )
    assert result.returncode == 0, result.stdout
    executed = re.search(r"stat::number_of_executed_units: (\d+)", result.stdout)
    assert executed, result.stdout
    assert int(executed[1]) >= RUNS[target]
    print(result.stdout)
