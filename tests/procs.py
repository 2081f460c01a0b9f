"""The processes and threads of a server, from /proc (proc(5))."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = "rtp-worker-"


def children(pid: int) -> list[int]:
    """Of all its threads; none where it has ended."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def worker_threads(pid: int) -> dict[str, int]:
    """The threads of a process that forward packets: id by name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith(WORKER):
            found[name] = int(task.name)
    return found


def no_worker_runs(pid: int) -> bool:
    """Those of a process and its descendants sleep, as they do between two turns."""
    try:
        return not any(
            _runs(one, task) for one in _family(pid) for task in worker_threads(one).values()
        )
    except (FileNotFoundError, ProcessLookupError):
        return True  # a process that ends, and its workers with it


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in children(pid):
        yield from _family(child)


def _runs(pid: int, task: int) -> bool:
    stat = Path(f"/proc/{pid}/task/{task}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "R"


def thread_states(pid: int) -> set[str]:
    """Of all its threads, by the letters of proc(5); {"T"}: it is stopped."""
    tasks = Path(f"/proc/{pid}/task").glob("*/stat")
    return {task.read_text().rpartition(") ")[2][0] for task in tasks}
