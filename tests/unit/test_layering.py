"""The shape of the source tree, asserted: who may import, include, call and be how long.

A new module fails here until it has a place: add it to the table of its side, at the
layer where everything it needs lies below and everything that needs it lies above.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src/rtpfanout"
CORE = PACKAGE / "_fastpath/core"

# Generated code imports nothing of ours, and is for those who speak gRPC.
GENERATED = "api"
GENERATED_USERS = {"convert", "service", "client", "server"}

PYTHON_LAYERS = (
    {"__init__"},
    {"model", "errors", "stderr", "filestamp", "closing"},
    {"admitting", "multicast", "networks", "netlink", "portrange"},
    {
        "config",
        "policy",
        "netif",
        "host",
        "boot",
        "crowd",
        "descriptors",
        "listening",
        "log",
        "seldom",
        "overload",
        "store",
        "sdp",
        "signed",
        "_fastpath",
    },
    {"acceptor", "kept", "reach"},
    {"ingest_ports"},
    {"sessions", "workers", "pressure", "auth", "receiver", "mover", "groups"},
    {
        "service",
        "convert",
        "metrics",
        "session_series",
        "hooks",
        "http",
        "rtsp",
        "client",
        "doctor",
        "doorman",
        "why",
    },
    {"page"},
    {"assembly", "housekeeping", "traffic"},
    {"server"},
    {"supervisor"},
    {"cli"},
    {"__main__"},
)
# Inside sessions/, for imports of types alone, too.
SESSIONS_LAYERS = (
    {
        "admission",
        "clock",
        "cursor",
        "deadlines",
        "feedback",
        "fields",
        "health",
        "history",
        "listened",
    },
    {"events", "requests", "rules", "source", "tokens"},
    {"event_watch"},
    {"terms"},
    {"asked", "feeding", "media"},
    {"entry", "movekeys", "names", "record"},
    {"views"},
    {"reporting"},
    {"changes", "refused"},
    {"journal", "state", "watching"},
    {"telling"},
    {
        "conditions",
        "describing",
        "judge",
        "knocks",
        "latches",
        "pages",
        "reaching",
        "overview",
        "shedding",
        "standing",
        "zones",
    },
    {"ranking"},
    {"consent"},
    {"subscribers"},
    {"life", "updating"},
    {"guests", "restore", "signals"},
    {"kept"},
    {"removal", "renumbering"},
    {"housekeeping"},
    {"manager"},
    {"__init__"},
)
# The one module that its siblings may import.
SHARED_SIBLINGS = {"convert"}

# The folders of the core ("": core/ itself) and their files. Of a .c and .h pair each file may
# include the other; otherwise only lower lines.
CORE_LAYERS = (
    ("", {"stats_fields"}),
    ("", {"media", "rtcp_api"}),
    ("", {"core"}),
    ("", {"core_senders"}),
    ("base", {"atomic", "hash", "rfo", "rtp"}),
    ("base", {"rtcp"}),
    ("base", {"addr", "qsbr", "stats", "codec"}),
    ("base", {"payload"}),
    ("base", {"payload_fit"}),
    ("net", {"steer", "snmp", "local"}),
    ("net", {"sock"}),
    ("net", {"port", "drops", "membership"}),
    ("table", {"rule", "run", "delivery", "word", "ssrcs", "aliases", "familiar", "repair"}),
    ("table", {"subscriber", "sniff", "parameters"}),
    ("table", {"reception", "reporter"}),
    ("table", {"reception_media", "reception_view", "merged"}),
    ("table", {"feedback"}),
    ("table", {"feedback_reports"}),
    ("table", {"watch"}),
    ("table", {"session"}),
    ("table", {"index"}),
    ("table", {"table", "side_ports"}),
    ("path", {"awaited", "cookie", "notice", "crew", "budget", "known", "knocks"}),
    ("path", {"ingress", "egress", "fair", "linger"}),
    ("path", {"inbox", "follow", "hold", "side_reader", "rtcp_gate"}),
    ("path", {"fanout", "gate"}),
    ("path", {"gate_admit", "gate_wait", "fanout_account"}),
    ("path", {"worker"}),
    (
        "path",
        {
            "worker_admit",
            "worker_room",
            "worker_fanout",
            "worker_recover",
            "worker_health",
            "worker_rtcp",
        },
    ),
    ("control", {"engine"}),
    ("control", {"ways", "ports"}),
    (
        "control",
        {
            "figures",
            "receptions",
            "subscription",
            "sources",
            "senders",
            "datagrams",
            "reporting",
        },
    ),
)
CORE_NAMES = tuple(names for _folder, names in CORE_LAYERS)
SYSTEM_CALLERS = {
    "ingress", "egress", "sock", "steer", "snmp", "membership", "engine", "datagrams",
    "side_reader", "worker", "worker_admit", "worker_room", "worker_fanout", "worker_health",
}  # fmt: skip
# Not of the packet path: the random key, and the pause of a writer's grace period.
OTHER_SYSTEM_CALLS = {
    ("hash", "getrandom"),
    ("qsbr", "nanosleep"),
    ("session", "mmap"),  # memory
    ("session", "munmap"),
    ("inbox", "mmap"),
    ("inbox", "munmap"),
    ("hold", "mmap"),
    ("hold", "munmap"),
}
SYSTEM_CALL = re.compile(
    r"\b(socket|bind|connect|close|ioctl|fcntl|[gs]etsockopt|getsockname|getpeername|shutdown"
    r"|send|sendto|sendmsg|sendmmsg|recv|recvfrom|recvmsg|recvmmsg|read|readv|write|writev|splice"
    r"|poll|ppoll|select|epoll_\w+|eventfd\w*|timerfd_\w+|clock_\w+|time|gettimeofday"
    r"|nanosleep|usleep|sleep|getrandom|mmap|munmap|madvise|syscall)\s*\("
)

MAX_LINES = 400
MAX_LINES_OF_C_TESTS = 600  # a list of cases is read piece by piece
MAX_LINES_OF_A_FUNCTION = 60  # of Python


def python_files() -> list[Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if GENERATED not in p.relative_to(PACKAGE).parts)


def core_files() -> list[Path]:
    return sorted(CORE.rglob("*.[ch]"))


def layer_of(name: str, layers: tuple[set[str], ...], where: Path) -> int:
    for rank, names in enumerate(layers):
        if name in names:
            return rank
    pytest.fail(f"{where.relative_to(ROOT)}: '{name}' has no layer; place it in {__file__}")


def module_of(path: Path) -> str:
    """The top-level module or package below rtpfanout that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_package_member(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


def own_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, top-level module) of each import from rtpfanout, lazy and type-only ones too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in dotted:
            parts = name.split(".")
            if parts[0] == "rtpfanout":
                member = parts[1] if len(parts) > 1 and is_package_member(parts[1]) else "__init__"
                yield node.lineno, member


def third_party_imports(tree: ast.AST) -> set[str]:
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            roots.add(node.module.split(".")[0])
    return roots - set(sys.stdlib_module_names) - {"rtpfanout"}


def without_comments_and_strings(source: str) -> str:
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', " ", source, flags=re.DOTALL)


def relative_id(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", python_files(), ids=relative_id)
def test_python_imports_point_down(path: Path) -> None:
    module = module_of(path)
    rank = layer_of(module, PYTHON_LAYERS, path)
    wrong = []
    for line, imported in own_imports(ast.parse(path.read_text())):
        if imported == module:
            continue  # files of one package
        if imported == GENERATED:
            allowed = module in GENERATED_USERS
        else:
            below = layer_of(imported, PYTHON_LAYERS, path)
            allowed = below < rank or (below == rank and imported in SHARED_SIBLINGS)
        if not allowed:
            wrong.append(f"{path.relative_to(ROOT)}:{line} imports {imported}")
    assert not wrong, "imports must point to a lower layer:\n" + "\n".join(wrong)


def siblings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of each import from the package that a file is in."""
    package = f"rtpfanout.{path.parent.name}"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            for alias in node.names:
                is_module = (path.parent / f"{alias.name}.py").exists()
                yield node.lineno, alias.name if is_module else "__init__"
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{package}."):
            yield node.lineno, str(node.module).split(".")[2]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith(f"{package}."):
                    yield node.lineno, alias.name.split(".")[2]


@pytest.mark.parametrize("path", sorted((PACKAGE / "sessions").glob("*.py")), ids=relative_id)
def test_imports_inside_sessions_point_down(path: Path) -> None:
    """So that no two files need each other, not for their types either."""
    rank = layer_of(path.stem, SESSIONS_LAYERS, path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for line, module in siblings(path)
        if layer_of(module, SESSIONS_LAYERS, path) >= rank
    ]
    assert not wrong, "imports must point to a lower layer:\n" + "\n".join(wrong)


@pytest.mark.parametrize("path", python_files(), ids=relative_id)
def test_python_imports_inside_the_package_are_absolute(path: Path) -> None:
    tree = ast.parse(path.read_text())
    lines = [n.lineno for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]
    assert not lines, f"{path.relative_to(ROOT)}: relative imports in lines {lines}"


@pytest.mark.parametrize("module", sorted(PYTHON_LAYERS[1]))
def test_the_lowest_layer_needs_the_standard_library_only(module: str) -> None:
    assert not third_party_imports(ast.parse((PACKAGE / f"{module}.py").read_text()))


@pytest.mark.parametrize("path", core_files(), ids=relative_id)
def test_core_includes_point_down(path: Path) -> None:
    rank = layer_of(path.stem, CORE_NAMES, path)
    assert path.parent == CORE / CORE_LAYERS[rank][0]
    wrong = []
    for included in re.findall(r'#\s*include\s+"([^"]+)"', path.read_text()):
        stem = included.removesuffix(".h")
        if stem != path.stem and layer_of(stem, CORE_NAMES, path) >= rank:
            wrong.append(included)
    assert not wrong, f"{path.relative_to(ROOT)} must not include {wrong}: not below it"


@pytest.mark.parametrize("path", core_files(), ids=relative_id)
def test_only_the_edges_of_the_core_make_system_calls(path: Path) -> None:
    if path.stem in SYSTEM_CALLERS:
        return
    calls = set(SYSTEM_CALL.findall(without_comments_and_strings(path.read_text())))
    calls = {call for call in calls if (path.stem, call) not in OTHER_SYSTEM_CALLS}
    assert not calls, f"{path.relative_to(ROOT)} calls {sorted(calls)}: pass the result in instead"


@pytest.mark.parametrize("path", core_files(), ids=relative_id)
def test_the_core_is_free_of_python(path: Path) -> None:
    assert not re.search(r"#\s*include\s+[<\"]Python\.h", path.read_text())


@pytest.mark.parametrize("path", core_files(), ids=relative_id)
def test_atomics_are_used_by_name(path: Path) -> None:
    """atomic.h names the memory order of each access; nobody else reaches <stdatomic.h>."""
    if path.name != "atomic.h":
        code = without_comments_and_strings(path.read_text())
        used = re.findall(r"\batomic_\w+_explicit|<stdatomic\.h>|\b__(?:atomic|sync)_\w+", code)
        assert not used, f"{path.relative_to(ROOT)}: {used}; use or add a name in atomic.h"


def test_one_file_declares_the_core_to_cython() -> None:
    fastpath = PACKAGE / "_fastpath"
    sources = [*fastpath.glob("*.pyx"), *fastpath.glob("*.pxd")]
    declaring = {p.name for p in sources if "cdef extern" in p.read_text()}
    assert declaring == {"core.pxd"}


def our_files(*endings: str) -> list[Path]:
    """Of what is written by hand: sources, tests, benchmarks, scripts."""
    places = [ROOT / name for name in ("src", "tests", "benchmarks", "scripts")]
    found = [path for place in places for path in place.rglob("*") if path.suffix in endings]
    return [path for path in found if not path.is_relative_to(PACKAGE / GENERATED)]


def test_no_file_is_too_long() -> None:
    long = {}
    for path in our_files(".py", ".pyx", ".pxd", ".pxi", ".pyi", ".c", ".h"):
        is_c_test = path.suffix in {".c", ".h"} and not path.is_relative_to(PACKAGE)
        lines = len(path.read_bytes().splitlines())
        if lines > (MAX_LINES_OF_C_TESTS if is_c_test else MAX_LINES):
            long[str(path.relative_to(ROOT))] = lines
    long.pop("src/rtpfanout/_fastpath/_engine.c", None)  # what Cython makes of ours
    assert not long, f"split these along what they do: {long}"


def test_no_function_is_too_long() -> None:
    long = {
        f"{path.relative_to(ROOT)}: {node.name}": lines
        for path in our_files(".py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := node.end_lineno - node.lineno + 1) > MAX_LINES_OF_A_FUNCTION
    }
    assert not long, f"give parts of these a name: {long}"
