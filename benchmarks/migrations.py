"""kill -9 at random moments of a migration of the store, many times; was anything lost?

    python benchmarks/migrations.py --kills 200 --sessions 10000 --subscribers 100
    python benchmarks/migrations.py --kills 0 --subscribers 1000     how long it takes

Makes a store of layout 1, with a log as a killed server leaves it. For each kill a process opens a
copy of it; the moment is chosen from the time that this takes when nobody is killed, or, every
other time, from its end, where the file is replaced. Kills that come when it has opened the store
don't count. Then what lies there is read with SQLite
alone, and once more after this version has opened it. Each row of each table is compared, but of a
file with the very bytes of one that was compared before. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from rtpfanout.store import Store, migrations

OPENS = """
import sys, time
from rtpfanout.store import Store
print("begins", flush=True)
began = time.monotonic()
store = Store(sys.argv[1])
print(time.monotonic() - began, flush=True)
store.close()
"""
SECOND = 10**9
SUFFIXES = ("", "-wal")


def fill(path: Path, sessions: int, subscribers: int) -> sqlite3.Connection:
    """A store of layout 1, open, so that the last of it is in the log."""
    connection = sqlite3.connect(path, isolation_level=None)
    execute = connection.execute
    execute("PRAGMA journal_mode = WAL")
    connection.executescript(migrations.LAYOUTS[0])
    execute(f"PRAGMA application_id = {migrations.APPLICATION_ID}")
    execute("PRAGMA user_version = 1")
    random_bytes = random.Random(1)
    columns = len(execute("PRAGMA table_info(session)").fetchall())
    put = f"INSERT INTO session VALUES ({', '.join('?' * columns)})"  # noqa: S608
    now = time.time_ns()

    def insert(first: int, last: int) -> None:
        execute("BEGIN")
        for n in range(first, last):
            source = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:5000"
            terms = ("", 0.0, 0.0, 0, n % 2, n, 0, "none", b"", 0, f"a={n}")
            session_id = f"00000000-0000-4000-8000-{n:012d}"
            execute(put, (n, session_id, n, "video", "exact", source, now, n, *terms))
            leases = (0, now + 86_400 * SECOND)
            rows = (
                (n, random_bytes.randbytes(24), now + i, leases[i % 2], i % 3)
                for i in range(subscribers)
            )
            connection.executemany("INSERT INTO subscriber VALUES (?, ?, ?, ?, ?)", rows)
            execute("INSERT INTO answer VALUES (?, ?, ?, ?)", (f"id-{n}", b"d", "{}", now / SECOND))
        execute("UPDATE state SET revision = ?, sequence = ?", (last, last))
        execute("COMMIT")

    for first in range(1, sessions - 100, 1000):
        insert(first, min(first + 1000, sessions - 100))
    execute("PRAGMA wal_checkpoint(TRUNCATE)")
    execute("PRAGMA wal_autocheckpoint = 0")
    insert(max(1, sessions - 100), sessions + 1)
    return connection


def copy(source: Path, target: Path) -> None:
    """As a killed server leaves it."""
    for suffix in SUFFIXES:
        if Path(f"{source}{suffix}").exists():
            shutil.copy(f"{source}{suffix}", f"{target}{suffix}")


class Reader:
    """Files by what is in them; one with the same bytes as another is not read again."""

    def __init__(self) -> None:
        self.known: dict[bytes, dict[str, str]] = {}

    def digests(self, path: Path) -> dict[str, str]:
        """Of every row of each table that has any, and the layout, by SQLite alone."""
        files = [Path(f"{path}{suffix}") for suffix in SUFFIXES]
        key = b"".join(hashlib.blake2b(f.read_bytes()).digest() for f in files if f.exists())
        if key not in self.known:
            self.known[key] = _digests(path)
        return dict(self.known[key])


def _digests(path: Path) -> dict[str, str]:
    found = {}
    with closing(sqlite3.connect(path)) as connection:
        found["layout"] = str(connection.execute("PRAGMA user_version").fetchone()[0])
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        for (name,) in connection.execute(query).fetchall():
            digest = hashlib.blake2b()
            rows = 0
            for row in connection.execute(f"SELECT * FROM {name}"):  # noqa: S608  by its key
                digest.update(repr(row).encode())
                rows += 1
            if rows:
                found[name] = f"{rows} rows {digest.hexdigest()}"
    return found


def opens(path: Path) -> subprocess.Popen[str]:
    """A process that opens the store, at the moment when it begins to."""
    child = subprocess.Popen(
        [sys.executable, "-c", OPENS, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout
    while (line := child.stdout.readline()) != "begins\n":
        assert line, "it did not begin"
    return child


def taken(said: str) -> float | None:
    """The seconds that the process says it took to open the store; None if it was not done."""
    last = said.splitlines()[-1:]
    return float(last[0]) if last and last[0].replace(".", "").isdigit() else None


def strike(path: Path, secs: float) -> float | None:
    """Kills a process that opens the store, so long after it began; what it took if it was done."""
    child = opens(path)
    time.sleep(secs)
    os.kill(child.pid, signal.SIGKILL)
    return taken(child.communicate()[0])


def run(given: argparse.Namespace, directory: Path) -> dict[str, object]:
    """All kills."""
    whole, look, killed = (directory / name for name in ("whole.db", "look.db", "killed.db"))
    connection = fill(whole, given.sessions, given.subscribers)
    reader = Reader()
    copy(whole, look)
    expected = reader.digests(look)
    del expected["layout"]
    size = sum(Path(f"{whole}{suffix}").stat().st_size for suffix in SUFFIXES)
    took = []
    for _ in range(given.runs):
        copy(whole, killed)
        took.append(taken(opens(killed).communicate()[0]) or 0.0)
        clear(directory)
    chance = random.Random(given.seed)
    lost: list[str] = []
    states: Counter[str] = Counter()
    number = late = 0
    while number < given.kills and late < 10 * given.kills:
        copy(whole, killed)
        begin = 0.0 if number % 2 else 0.7
        usual = statistics.median(took[-5:])  # as busy as the machine is now
        done = strike(killed, usual * (begin + (1.05 - begin) * chance.random()))
        if done is not None:
            late += 1
            took.append(done)
            clear(directory)
            continue
        number += 1
        copied = " and a copy" if Path(f"{killed}.new").exists() else ""
        copy(killed, look)
        before = reader.digests(look)
        states[f"layout {before.pop('layout')}{copied}"] += 1
        with Store(str(killed)):
            pass
        after = reader.digests(killed)
        del after["layout"]
        for found in (before, after):
            lost += [f"kill {number}: {name}" for name, _ in found.items() ^ expected.items()]
        clear(directory)
    connection.close()
    return {
        "sessions": given.sessions,
        "subscribers": given.sessions * given.subscribers,
        "megabytes": round(size / 1e6, 1),
        "open_secs": {"median": round(statistics.median(took), 3), "max": round(max(took), 3)},
        "kills": number,
        "came_too_late": late,
        "found_after_a_kill": states,
        "rows_compared": {name: text.split(" rows")[0] for name, text in expected.items()},
        "files_read_row_by_row": len(reader.known),
        "lost": len(lost),
        "first_lost": lost[:5],
    }


def clear(directory: Path) -> None:
    """All but the store that is copied."""
    for left in [*directory.glob("killed.db*"), *directory.glob("look.db*")]:
        left.unlink()


def main() -> None:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--subscribers", type=int, default=100, help="of each session")
    parser.add_argument("--runs", type=int, default=3, help="that nobody kills, to know the time")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", help="where the stores lie; a file system with enough room")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        result = run(given, Path(directory))
    print(json.dumps(result, indent=1))
    sys.exit(1 if result["lost"] else 0)


if __name__ == "__main__":
    main()
