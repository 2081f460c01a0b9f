"""Whoever reads standard error, or does not, holds up nobody."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from flow import Flow
from supervisor_scene import command, connected, server_pid
from support import (
    SETTLE_SECONDS,
    START_SECONDS,
    ServerProcess,
    eventually,
    server_environment,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

LOST = "rtpfanout_log_lines_lost_total"
pytestmark = pytest.mark.usefixtures("runtime_directory")

COMMAND = [sys.executable, "-m", "rtpfanout", "serve"]


class Unread(ServerProcess):
    """Its log is read up to the first "ready", and then only once `goes_on` is set."""

    def __init__(self, **settings: object) -> None:
        self.goes_on = threading.Event()
        super().__init__(**settings)

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with contextlib.suppress(ValueError):  # its end is closed
            for line in self.process.stderr:
                with contextlib.suppress(json.JSONDecodeError):
                    self.log.append(json.loads(line))
                if self.log and self.log[-1]["event"] == "ready":
                    self.goes_on.wait()

    def fill(self) -> None:
        """The pipe, by an open description that is ours."""
        assert self.process.stderr is not None
        path = f"/proc/self/fd/{self.process.stderr.fileno()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(descriptor, b"x" * 4095 + b"\n")
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(descriptor, b"\n")
        os.close(descriptor)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.goes_on.set()
        return super().stop(number)


@pytest.fixture(params=[True, False], ids=["supervisor", "alone"])
def supervised(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def unread(tmp_path: Path, supervised: bool) -> Iterator[Unread]:
    """Nobody reads its log any more, and the pipe is full."""
    server = Unread(store__path=str(tmp_path / "store.db"), enable_supervisor=supervised)
    server.fill()
    yield server
    server.stop()


def call_until_lines_are_lost(server: ServerProcess) -> float:
    """Calls that change something leave a line each."""
    for number in range(20):
        for port in range(5000, 5100):
            server.delete(server.create(f"127.0.0.9:{port}", number))
        if lost := server.metrics()[LOST]:
            return lost
    pytest.fail("no line was lost")


def test_lines_that_nobody_reads_are_lost_and_told_of(unread: Unread) -> None:
    assert unread.metrics()[LOST] == 0
    call_until_lines_are_lost(unread)
    lost = unread.metrics()[LOST]
    unread.goes_on.set()
    eventually(lambda: len(unread.log), lambda n: n > 100, "the lines that waited")
    time.sleep(0.1)
    unread.create("127.0.0.1:5000", 1)
    told = unread.logged("log lines lost")
    assert told["lines"] == lost
    unread.create("127.0.0.1:5001", 1)
    assert unread.metrics()[LOST] == lost
    audits = [entry for entry in unread.log if entry["event"] == "audit"]
    assert all(entry["level"] == "info" for entry in audits), "none was cut"


def test_a_full_pipe_does_not_keep_a_server_from_its_end(unread: Unread) -> None:
    call_until_lines_are_lost(unread)
    unread.process.send_signal(signal.SIGTERM)
    assert unread.process.wait(SETTLE_SECONDS) == 0


@pytest.mark.parametrize("supervised", [True], indirect=True)
def test_crashes_and_upgrades_with_a_full_pipe(unread: Unread) -> None:
    with Flow() as flow:
        unread.create(flow.source, 1, flow.viewer)
        flow.start(unread.ingest)
        call_until_lines_are_lost(unread)
        for _ in range(3):
            before = server_pid(unread)
            os.kill(before, signal.SIGKILL)  # no line says when the next one is ready
            eventually(lambda: server_pid(unread), lambda pid, old=before: pid != old, "another")
            connected(unread)
        done = command("upgrade", "--pid", str(unread.process.pid))
        assert done.returncode == 0
        connected(unread)
        flow.finish()
    assert flow.first_arrivals == list(range(len(flow.sent_at)))


def test_without_standard_error_a_server_runs(tmp_path: Path, supervised: bool) -> None:
    """Descriptor 2 is closed: nothing of ours gets its number, and lines go nowhere."""
    environment = server_environment(
        {
            "bind_address": "127.0.0.1:0",
            "grpc_bind_address": "127.0.0.1:0",
            "metrics_bind_address": "127.0.0.1:0",
            "grpc_unix_socket": str(tmp_path / "socket"),
            "enable_supervisor": supervised,
        }
    )
    closing = f"exec {' '.join(COMMAND)} <&- >&- 2>&-"
    process = subprocess.Popen(["/bin/sh", "-c", closing], env=environment)
    try:
        channel = grpc.insecure_channel(f"unix:{tmp_path / 'socket'}")
        grpc.channel_ready_future(channel).result(START_SECONDS)
        channel.close()
        descriptors = Path(f"/proc/{process.pid}/fd")
        assert [str((descriptors / name).readlink()) for name in "01"] == ["/dev/null"] * 2
        assert str((descriptors / "2").readlink()).startswith("pipe:")
    finally:
        process.terminate()
        assert process.wait(SETTLE_SECONDS) == 0


def test_a_reader_that_is_gone_is_no_end(unread: Unread) -> None:
    assert unread.process.stderr is not None
    unread.process.stderr.detach().close()
    unread.goes_on.set()
    for port in range(5000, 5010):
        unread.create(f"127.0.0.9:{port}", 1)
    unread.process.send_signal(signal.SIGTERM)
    assert unread.process.wait(SETTLE_SECONDS) == 0
