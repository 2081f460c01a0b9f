"""setup.py compiles again what a change concerns, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import requires

SETUP = Path(__file__).resolve().parents[2] / "setup.py"
PROJECT = """
[project]
name = "small"
version = "1"
[tool.setuptools.packages.find]
where = ["src"]
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of our shape with little in it."""
    requires(os.environ.get("CC", "cc").split()[0])
    core = tmp_path / "src/rtpfanout/_fastpath/core"
    core.mkdir(parents=True)
    for package in (core.parents[1], core.parents[0]):
        (package / "__init__.py").touch()
    shutil.copy(SETUP, tmp_path)
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (core.parent / "_engine.pyx").write_text("x = 1\n")
    (core / "one.h").write_text("int one(void);\n")
    (core / "one.c").write_text('#include "one.h"\nint one(void) { return 1; }\n')
    (core / "two.c").write_text("int two(void) { return 2; }\n")
    return tmp_path


def compiled(tree: Path, **environment: str) -> set[str]:
    """Builds; which objects are new."""
    before = {path: path.stat().st_mtime_ns for path in tree.glob("build/temp*/**/*.o")}
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tree,
        env=os.environ | environment,
        check=True,
        capture_output=True,
        timeout=100,
    )
    assert list(tree.glob("src/rtpfanout/_fastpath/_engine*.so"))
    after = {path: path.stat().st_mtime_ns for path in tree.glob("build/temp*/**/*.o")}
    return {path.stem for path in after if after[path] != before.get(path)}


def test_what_a_change_concerns_is_compiled_again(tree: Path) -> None:
    core = tree / "src/rtpfanout/_fastpath/core"
    assert compiled(tree) == {"_engine", "one", "two"}
    (core / "two.c").write_text("int two(void) { return 3; }\n")
    assert compiled(tree) == {"two"}
    (core / "one.h").write_text("int one(void);\n\n")
    assert compiled(tree) == {"one"}
    assert compiled(tree, CFLAGS="-DELSE") == {"_engine", "one", "two"}
