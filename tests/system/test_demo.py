"""`rtpfanout demo` as a user runs it."""

import fcntl
import json
import os
import pty
import signal
import subprocess
import termios
import time
from pathlib import Path

import pytest
from cli_support import COMMAND, TIMEOUT, background, environment, run
from procs import children


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_every_packet_arrives_unchanged_and_the_counters_are_exact():
    done = run("demo", "--duration", "2", "-o", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    packets = report["camera"]["packets"]
    assert packets >= 14
    assert packets % 14 == 0
    assert report["faults"] == []
    assert [s["name"] for s in report["subscribers"]] == ["recording", "inference", "monitoring"]
    for subscriber in report["subscribers"]:
        assert subscriber["packets"] == packets
        assert (subscriber["lost"], subscriber["altered"], subscriber["duplicates"]) == (0, 0, 0)
        latency = subscriber["added_latency_ms"]
        assert 0 < latency["p50"] <= latency["p99"] <= latency["max"] * 1.01
    assert report["server"]["packets_received"] == packets
    assert report["server"]["packets_sent"] == 3 * packets
    assert report["server"]["bytes_sent"] == 3 * 1200 * packets


def test_settings_of_the_environment_and_the_directory_do_not_reach_its_server(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "server.toml").write_text("nonsense = 1\n")
    done = subprocess.run(
        [*COMMAND, "demo", "--duration", "0.5"],
        env=environment(RTP_FANOUT__MAX_SESSIONS="0", RTP_FANOUT_CONFIG="/missing"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_end_it_with_its_server_and_a_summary(number):
    with background("demo", "-o", "json") as demo:
        demo.wait_for("metrics on http://127.0.0.1:")
        servers = children(demo.process.pid)
        assert len(servers) == 1
        time.sleep(0.5)
        code, out = demo.finish(number)
    assert code == 0, demo.stderr
    assert json.loads(out)["faults"] == []
    assert not is_running(servers[0])


def test_a_server_that_dies_is_a_failure():
    with background("demo") as demo:
        demo.wait_for("metrics on http://127.0.0.1:")
        (server,) = children(demo.process.pid)
        os.kill(server, signal.SIGKILL)
        code, _ = demo.finish()
    assert code == 1
    assert demo.stderr[-1].startswith("error: the server ended with code -9")


def test_a_terminal_gets_a_live_table_and_ctrl_c_reaches_the_end():
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "demo"],
        env=environment(TERM="xterm-256color", COLUMNS="120", LINES="30"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        start_new_session=True,
        preexec_fn=own_terminal,  # Ctrl-C goes to the terminal's foreground processes
    )
    os.close(follower)
    screen = b""
    pressed = False
    try:
        while chunk := read(leader):
            screen += chunk
            if not pressed and screen.count(b"monitoring") >= 3:
                os.write(leader, b"\x03")  # Ctrl-C
                pressed = True
        assert process.wait(TIMEOUT) == 0, screen.decode()
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert b"30 fps camera" in screen
    assert b"MAX ms" in screen
    assert b"every packet reached every subscriber unchanged" in screen


def own_terminal():
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read(leader):
    try:
        return os.read(leader, 4096)
    except OSError:  # EIO: the last process has closed the terminal
        return b""
