"""The store over kill -9, a full disk and failing syncs, with real processes and file systems."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
from store_support import contents, record
from support import requires, requires_root

from rtpfanout.store import Store
from rtpfanout.store.writes import drop_session

if TYPE_CHECKING:
    from collections.abc import Iterator

KILLS = 120

LOG = 'from rtpfanout import log; log.configure("info", "console")\n'
# Submits without end, many at a time; says so before (">N") and when it is durable ("=N").
WRITER = """
import sys
from collections import deque
from store_support import records, session
from rtpfanout.store import Store
from rtpfanout.store.writes import drop_subscribers, put_session, put_subscribers

store = Store(sys.argv[1], wait_secs=30)
n = store.revision
print("open", n, flush=True)
waiting = deque()
while True:
    n += 1
    changes = [put_session(session(n)), put_subscribers(n, records(range(n, n + 30)), n)]
    changes.append(drop_subscribers(n, records(range(n, n + 10))))
    print(f">{n}", flush=True)
    waiting.append((n, store.submit(changes, n)))
    while len(waiting) > 8:
        number, future = waiting.popleft()
        future.result()
        print(f"={number}", flush=True)
"""

# Submits one session of 1000 subscribers for each line it reads, and says how it went.
OBEDIENT = """
import sys
from store_support import records, session
from rtpfanout.errors import UnavailableError
from rtpfanout.store import Store
from rtpfanout.store.writes import drop_session, put_session, put_subscribers

store = Store(sys.argv[1])
print("open", flush=True)
for line in sys.stdin:
    verb, number = line.split()
    n = int(number)
    changes = [put_session(session(n)), put_subscribers(n, records(range(1000)), n)]
    if verb == "drop":
        changes = [drop_session(n)]
    try:
        store.submit(changes, n).result()
        print("ok", flush=True)
    except UnavailableError as error:
        print("unavailable", error.message, flush=True)
store.close()
print("closed", flush=True)
"""


def process(code: str, path: Path, *before: str) -> subprocess.Popen[str]:
    tests = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {tests!r})\n{LOG}{code}"
    return subprocess.Popen(
        [*before, sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


class Obedient:
    def __init__(self, path: Path, *before: str) -> None:
        self.process = process(OBEDIENT, path, *before)
        assert self._line() == "open"

    def __call__(self, verb: str, number: int) -> str:
        self._stdin.write(f"{verb} {number}\n")
        self._stdin.flush()
        return self._line()

    def end(self) -> None:
        self._stdin.close()
        assert self._line() == "closed"
        assert self.process.wait(30) == 0

    @property
    def _stdin(self) -> IO[str]:
        assert self.process.stdin is not None
        return self.process.stdin

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.mark.slow("kills at many moments, each followed by a look at all that is stored")
@pytest.mark.timeout(600)
def test_killed_at_any_moment_all_that_was_acknowledged_is_there(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    choose = random.Random(4)
    acknowledged = asked = 0
    for _ in range(KILLS):
        child = process(WRITER, path)
        assert child.stdout is not None
        assert child.stdout.readline().startswith("open")
        time.sleep(choose.random() ** 3 * 0.2)
        child.kill()
        for line in child.stdout.read().split("\n")[:-1]:
            if line[0] == "=":
                acknowledged = max(acknowledged, int(line[1:]))
            asked = max(asked, int(line[1:]))
        child.wait()
        with Store(str(path)) as store:
            last = store.revision
            # A group that was under way may be there, and then as a whole.
            assert acknowledged <= last <= asked
            found = contents(store)
            numbers = [s.sequence for s in found]
            assert numbers == list(range(max(1, last - len(found) + 1), last + 1))
            for s, subscribers in found.items():
                wanted = {record(s.sequence + i) for i in range(10, 30)}
                assert subscribers.keys() == wanted
            # Keep it small, so that looking at all of it takes no time.
            drops = [drop_session(s.sequence) for s in found if s.sequence <= last - 20]
            store.submit(drops).result(30)
    assert acknowledged > KILLS
    assert not list(tmp_path.glob("*damaged*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 1 MiB of room."""
    requires("mount", "umount")
    requires_root()
    where = tmp_path / "disk"
    where.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "rtpfanout", where])
    if mounted.returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    path = small_disk / "s.db"
    ballast = small_disk / "ballast"
    child = Obedient(path)
    try:
        assert child("put", 1) == "ok"
        with ballast.open("wb", buffering=0) as file:
            for size in (65_536, 4096, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue
        answers = [child("put", n) for n in range(2, 30)]
        assert "ok" not in answers[-3:]
        refused = [n for n, answer in enumerate(answers, 2) if answer != "ok"]
        for n in refused:
            assert "full" in answers[n - 2]
            assert "nothing was changed" in answers[n - 2]
        ballast.unlink()
        assert child("put", 30) == "ok"
        child.process.kill()
    finally:
        child.process.kill()
        child.process.wait()
    kept = [n for n in range(1, 31) if n not in refused]
    with Store(str(path)) as store:
        found = contents(store)
        assert [s.sequence for s in found] == kept
        assert all(len(subscribers) == 1000 for subscribers in found.values())


def test_a_disk_full_before_the_first_start(small_disk: Path) -> None:
    from rtpfanout.errors import StartError

    with (small_disk / "ballast").open("wb", buffering=0) as file:
        for size in (65_536, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    with pytest.raises(StartError, match=r"full|I/O"):
        Store(str(small_disk / "s.db"))
    (small_disk / "ballast").unlink()
    with Store(str(small_disk / "s.db")) as store:
        assert store.sessions() == []


@pytest.mark.parametrize("how_long", ["1", "1..2", "1..9", "1+"])
def test_a_failing_sync_applies_nothing_even_over_a_kill(how_long: str, tmp_path: Path) -> None:
    """The frames of the commit were written: it must not come back to life."""
    requires("strace")
    path = tmp_path / "s.db"
    with Store(str(path)) as store:
        store.submit([drop_session(0)]).result(30)
    child = Obedient(path)
    try:
        assert child("put", 1) == "ok"
        assert child("put", 2) == "ok"
        tracer = subprocess.Popen(
            [
                *("strace", "-qq", "-f", "-o", "/dev/null", "-p", str(child.process.pid)),
                *("-e", "trace=fsync,fdatasync"),
                *("-e", f"inject=fsync,fdatasync:error=EIO:when={how_long}"),
            ]
        )
        try:
            attached = Path(f"/proc/{child.process.pid}/status")
            deadline = time.monotonic() + 30
            while "TracerPid:\t0" in attached.read_text() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.2)  # until it has all threads
            answer = child("put", 3)
            assert answer.startswith("unavailable"), answer
            assert "I/O" in answer
            later = [child("put", n) for n in (4, 5)]
            child.process.kill()
        finally:
            tracer.kill()
            tracer.wait()
    finally:
        child.process.kill()
        child.process.wait()
    kept = [1, 2] + [n for n, answer in zip((4, 5), later, strict=True) if answer == "ok"]
    with Store(str(path)) as store:
        assert [s.sequence for s in contents(store)] == kept
