"""What the page costs: its browser's main thread, and the server, with so many sessions.

    python benchmarks/page.py -s 1000 -s 10000

Needs chromium. Nothing is sent: all cells that can change do, by figures of their own.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from browser import Browser
from cameras import Camera, Cameras
from support import ServerProcess

from rtpfanout.client import SessionClient

SECONDS = 20.0


def cpu_seconds(pid: int) -> float:
    """Of a process, user and system (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident(pid: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def measure(server: ServerProcess, browser: Browser | None) -> tuple[float, float]:
    """Seconds of work in a second: of the page's main thread, and of the server."""
    began, cpu = time.monotonic(), cpu_seconds(server.pid)
    work = browser.task_seconds() if browser else 0.0
    time.sleep(SECONDS)
    took = time.monotonic() - began
    work = browser.task_seconds() - work if browser else 0.0
    return work / took, (cpu_seconds(server.pid) - cpu) / took


def run(sessions: int, fed: int) -> None:
    """One line of figures."""
    server = ServerProcess(max_sessions=max(10_000, sessions), session_timeout_secs=0)
    try:
        with (
            SessionClient(str(server.grpc)) as client,
            Cameras([Camera(n + 1, rate=10, packets=1) for n in range(fed)]) as cameras,
        ):
            for number in range(sessions):
                source = cameras.all[number].address if number < fed else f"127.1.2.3:{1 + number}"
                client.create_session(
                    source, ssrc=number + 1, media_type="video", name=f"site/rover-{number}"
                )
            cameras.start(server.ingest_target)
            time.sleep(2)
            _, alone = measure(server, None)
            memory = resident(server.pid)
            with Browser() as browser:
                browser.goto(f"http://{server.metrics_address}/")
                browser.wait("document.querySelectorAll('.sessions tbody tr').length === 50")
                time.sleep(12)
                table, looked = measure(server, browser)
                browser.goto(f"http://{server.metrics_address}/?session=site%2Frover-0")
                browser.wait("document.querySelectorAll('.plot canvas').length === 4")
                time.sleep(2)
                session, _ = measure(server, browser)
            grown = resident(server.pid) - memory
    finally:
        server.stop()
    print(
        f"{sessions:6} sessions: main thread {1000 * table:5.1f} ms/s of the table,"
        f" {1000 * session:5.1f} ms/s of a session; server {1000 * alone:5.1f} ms/s unseen,"
        f" {1000 * looked:5.1f} ms/s seen; {memory:.1f} MiB unseen, {grown:+.1f} MiB seen"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-s", "--sessions", type=int, action="append")
    parser.add_argument("--fed", type=int, default=60, help="so many of them have a camera")
    arguments = parser.parse_args()
    for sessions in arguments.sessions or [1000]:
        run(sessions, min(arguments.fed, sessions))


if __name__ == "__main__":
    main()
