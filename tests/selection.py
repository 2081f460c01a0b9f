"""Which tests a run has: the quick ones unless it asks for more, or those of one file; and beside
how many others a test runs. The options are in CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
PACKAGE = ROOT / "src" / "rtpfanout"
CORE = PACKAGE / "_fastpath" / "core"
MOST_PROCESSES = 8
LENGTHY = TESTS / "system"
LEFT_OUT = pytest.StashKey[Counter[str]]()
OPENING_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
FILE_OF_THE_CORE = re.compile(r"\b(\w+)\.[ch]\b")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rtpfanout")
    which = {"action": "store_const", "dest": "slowness", "default": "quick"}
    group.addoption("--all", const="all", help="run the slow tests, too", **which)
    group.addoption("--left-out", const="slow", help="run what plain pytest leaves out", **which)
    group.addoption("--of", metavar="FILE", help="run the tests that belong to a file, slow or not")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Where a file is asked about, its tests; where directories run, processes."""
    option = config.option
    if hasattr(config, "workerinput"):
        return  # one of those processes, to which all this was told
    if option.of:
        option.slowness = "all"
        found = belonging_to(Path(config.invocation_params.dir, option.of).resolve())
        if not found:
            raise pytest.UsageError(f"no test belongs to {option.of}")
        config.args[:] = [str(path) for path in found]
    elif any("::" in argument for argument in config.args):
        option.slowness = "all"
    if config.pluginmanager.hasplugin("xdist") and option.numprocesses is None:
        _use_processes(config)


def _use_processes(config: pytest.Config) -> None:
    option = config.option
    one_at_a_time = option.usepdb or option.capture == "no" or option.collectonly
    if not one_at_a_time and all(Path(name).is_dir() for name in config.args):
        # Three for two CPUs, as tests wait about as long as they compute.
        cpus = len(os.sched_getaffinity(0))
        option.numprocesses = min(max(2, cpus + cpus // 2), MOST_PROCESSES)
        option.dist = "worksteal"


def long_first(items: list[pytest.Item], processes: int) -> list[pytest.Item]:
    """Each process begins with a share of those that start servers, file after file, so that those
    which share a server stay together; then the quick ones, of which the last are soon done.

    xdist gives each process a piece of this list, and who is done early a part of another's.
    """
    quick: list[pytest.Item] = []
    lengthy: list[pytest.Item] = []
    for item in items:
        (lengthy if LENGTHY in item.path.parents else quick).append(item)
    ordered: list[pytest.Item] = []
    for process in range(processes):
        for some in (lengthy, quick):
            first, last = (len(some) * n // processes for n in (process, process + 1))
            ordered += some[first:last]
    return ordered


def pytest_itemcollected(item: pytest.Item) -> None:
    """A program of tests/core is found by the name of each file that it tests: `-k snmp`."""
    program = parameters(item).get("program")
    if program is not None:
        item.extra_keyword_matches.update(modules_of(program))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = {item: mark.args[0] for item in items if (mark := item.get_closest_marker("slow"))}
    keep = {
        "all": lambda _: True,
        "quick": lambda item: item not in slow,
        "slow": lambda item: item in slow,
    }[config.option.slowness]
    wanted = [item for item in items if keep(item) and _is_of(item, config.option.of)]
    if config.option.slowness == "quick":
        counted = (f"{item.path.relative_to(config.rootpath)}: {why}" for item, why in slow.items())
        _keep_left_out(config, Counter(counted))
    config.hook.pytest_deselected(items=[item for item in items if item not in set(wanted)])
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = long_first(wanted, workers) if workers > 1 else wanted


def _keep_left_out(config: pytest.Config, left_out: Counter[str]) -> None:
    config.stash[LEFT_OUT] = left_out
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a process of ours left out, which is the same in each."""
    node.config.stash[LEFT_OUT] = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    left_out = config.stash.get(LEFT_OUT, Counter())
    if not left_out:
        return
    terminalreporter.section(f"{left_out.total()} slow tests left out")
    for what, count in sorted(left_out.items()):
        terminalreporter.line(f"{count:4} of {what}")
    terminalreporter.line("`pytest --left-out` runs these, `pytest --all` everything.")


def parameters(item: pytest.Item) -> dict[str, Any]:
    """What a test is called with by `parametrize`."""
    return getattr(getattr(item, "callspec", None), "params", {})


def modules_of(program: str) -> set[str]:
    """The files of the core that a program's opening comment names, without their ending."""
    comment = OPENING_COMMENT.match((TESTS / "core" / f"{program}.c").read_text())
    assert comment is not None, f"{program}.c says at its beginning what it tests"
    return set(FILE_OF_THE_CORE.findall(comment[0]))


def _is_of(item: pytest.Item, file: str | None) -> bool:
    """Whether a test of a file that has many is about this one of them."""
    params = parameters(item)
    if file is None:
        return True
    if "program" in params:
        return Path(file).stem in {params["program"], *modules_of(params["program"])}
    if item.path.name == "test_layering.py":
        return not isinstance(params.get("path"), Path) or params["path"].name == Path(file).name
    return True


def belonging_to(file: Path) -> list[Path]:
    """The test files that import a module, or its package, or have its name; for a file of the
    core those that run it.
    """
    if file.is_relative_to(TESTS):
        if file.name.startswith("test_") and file.suffix == ".py":
            return [file]
        found = [TESTS / "core/test_core.py"] if file.suffix == ".c" else []
        return found + [path for path in _test_files() if file.stem in imported(path)]
    if file.is_relative_to(CORE):
        programs = (path.stem for path in (TESTS / "core").glob("test_*.c"))
        if any(file.stem in modules_of(program) for program in programs):
            found = [TESTS / "core/test_core.py", TESTS / "unit/test_layering.py"]
            return found + _named(file.stem)
    if file.is_relative_to(PACKAGE / "_fastpath"):
        return sorted(TESTS.glob("fastpath/test_*.py"))
    found = set(_named(file.stem))
    if file.is_relative_to(PACKAGE):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if file.stem == "__init__" else parts)
        package = name.rpartition(".")[0]
        names = {name} if package == PACKAGE.name else {name, package}
        found.update(path for path in _test_files() if names & imported(path))
        found.add(TESTS / "unit/test_layering.py")
    return sorted(found)


def _test_files() -> Iterator[Path]:
    yield from TESTS.glob("*/test_*.py")


def _named(stem: str) -> list[Path]:
    words = re.compile(rf"(?:^|_){re.escape(stem.strip('_'))}(?:_|$)")
    return sorted(path for path in _test_files() if words.search(path.stem[len("test_") :]))


def imported(path: Path) -> set[str]:
    """The modules that a file imports, and what it imports from them as if it were modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names
