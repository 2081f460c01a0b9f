"""The `rtpfanout` command as a user runs it: as a process."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "rtpfanout"]
TIMEOUT = 60


def environment(**extra: str) -> dict[str, str]:
    """This environment without settings of rtpfanout, and with `extra`."""
    return {k: v for k, v in os.environ.items() if not k.startswith("RTP_FANOUT")} | extra


def run(*arguments: object, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def run_json(*arguments: object, **extra: str) -> Any:
    """Run the command with ``-o json``; it must succeed, and print one JSON value."""
    done = run(*arguments, "-o", "json", **extra)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class Background:
    """A running command; `stderr` grows while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.stderr: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in a line of stderr."""
        with self._said:
            found: list[re.Match[str]] = []

            def search() -> bool:
                found.extend(m for line in self.stderr if (m := re.search(pattern, line)))
                return bool(found)

            assert self._said.wait_for(search, TIMEOUT), f"no {pattern!r} in {self.stderr}"
            return found[0]

    def finish(self, signal_number: int | None = None) -> tuple[int, str]:
        """Send a signal if there is one; exit code and stdout when it has ended."""
        if signal_number is not None:
            self.process.send_signal(signal_number)
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        code = self.process.wait(TIMEOUT)
        self._reader.join()
        return code, out

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self.stderr.append(line)
                self._said.notify_all()


@contextmanager
def background(*arguments: object) -> Iterator[Background]:
    """Run the command beside the test; it is killed at the end of the block."""
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    command = Background(process)
    try:
        yield command
    finally:
        process.kill()
        command.finish()
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()


@contextmanager
def receiver(*arguments: object) -> Iterator[tuple[Background, str]]:
    """`rtpfanout recv` on a free port: the command, and its address."""
    with background("recv", "127.0.0.1:0", "-o", "json", *arguments) as command:
        yield command, command.wait_for(r"receiving on (\S+)")[1]


def on_terminal(*arguments: str, columns: int) -> str:
    """What a command shows on a terminal of so many columns, without colours."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, "-m", "rtpfanout", *arguments],
            stdout=theirs, env=os.environ | {"COLUMNS": str(columns)}, check=True, timeout=60,
        )  # fmt: skip
        return re.sub(r"\x1b\[[0-9;]*m", "", os.read(ours, 65536).decode())
    finally:
        os.close(ours)
        os.close(theirs)
