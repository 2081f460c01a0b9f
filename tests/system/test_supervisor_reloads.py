"""Reloads of the configuration: all or nothing, and kept over kills and upgrades."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from typing import TYPE_CHECKING

import grpc
import pytest
from datagram_support import subscribers
from flow import Flow
from supervisor_scene import all_logged, command, connected, kill, server_pid
from support import ServerProcess, address_of, eventually, queued, udp_socket

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.usefixtures("runtime_directory")

DENIED = "127.0.0.8"
LONG_LIST = int(os.environ.get("RTPFANOUT_LONG_LIST", "20000"))
"""Networks."""


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> ServerProcess:
    """With a store, so that sessions survive."""
    return start_server(store__path=str(tmp_path / "store.db"))


def assert_denied(server: ServerProcess, session: str) -> None:
    with pytest.raises(grpc.RpcError, match=re.escape(DENIED)):
        server.add(session, f"{DENIED}:7000")


def test_reload_is_all_or_nothing(configured: ServerProcess, config: Path) -> None:
    server = configured
    session = server.create("127.0.0.1:5000", 1)
    config.write_text('unknown = 1\n[address_policy]\ndeny = ["127.0.0.9/32"]\n')
    done = command("reload")
    assert done.returncode == 1
    assert "unknown" in done.stderr
    server.add(session, "127.0.0.9:7000")
    config.write_text(f'max_sessions = 9\n[address_policy]\ndeny = ["{DENIED}/32"]\n')
    done = command("reload")
    assert done.returncode == 0, done.stderr
    assert "max_sessions" in done.stderr
    assert_denied(server, session)
    kill(server)  # the next one has it, too
    connected(server)
    assert_denied(server, session)


def test_who_is_denied_by_a_reload_gets_nothing_any_more(
    configured: ServerProcess, config: Path
) -> None:
    server = configured
    with Flow() as flow, udp_socket("127.0.0.9") as denied:
        session = server.create(flow.source, 1, flow.viewer, address_of(denied))
        flow.start(server.ingest)
        eventually(lambda: queued(denied), bool, "packets to the one to be denied")
        config.write_text('[address_policy]\ndeny = ["127.0.0.9/32"]\n')
        assert command("reload").returncode == 0
        queued(denied)
        time.sleep(0.3)
        assert queued(denied) == []
        states = subscribers(server, session)
        assert states == {flow.viewer: "sending", address_of(denied): "refused"}
        config.write_text("")
        assert command("reload").returncode == 0
        eventually(lambda: queued(denied), bool, "packets again")
        flow.finish()
    assert flow.numbers == list(range(len(flow.sent_at)))
    assert server.metrics()["rtpfanout_policy_withheld_total"] == 1
    assert server.logged("subscribers withheld: they are refused now, and kept")["count"] == 1


def test_what_was_set_on_the_command_line_outlives_reloads_and_upgrades(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--config", str(config), "--set", "limits.max_subscribers=1", "--max-sessions", "1"]
    monkeypatch.setattr(ServerProcess, "command", [*ServerProcess.command, *flags])
    server = ServerProcess(store__path=str(tmp_path / "store.db"), max_sessions=5)
    session = server.create("127.0.0.1:5000", 1, "127.0.0.1:5001")
    for what in ("reload", "upgrade"):
        config.write_text("limits.max_subscribers = 9\nlimits.max_subscribers_per_ip = 7\n")
        done = command(what)
        assert done.returncode == 0, done.stderr
        connected(server)
        for call in (
            lambda: server.add(session, "127.0.0.1:5002"),
            lambda: server.create("127.0.0.1:5000", 2),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    server.stop()


def reload_with_signal(config: Path, pid: int, number: int, delay: float) -> None:
    """A reload that denies DENIED, done in the end though process `pid` is stopped until it gets
    a signal after `delay` seconds."""
    os.kill(pid, signal.SIGSTOP)
    config.write_text(f'[address_policy]\ndeny = ["{DENIED}/32"]\n')
    timer = threading.Timer(delay, os.kill, (pid, number))
    timer.start()
    done = command("reload")
    timer.join()
    assert done.returncode == 0, done.stderr


def test_a_server_that_dies_while_it_reloads(configured: ServerProcess, config: Path) -> None:
    server = configured
    session = server.create("127.0.0.1:5000", 1)
    reload_with_signal(config, server_pid(server), signal.SIGKILL, 0.5)
    eventually(lambda: len(all_logged(server, "ready")), lambda n: n == 2, "ready again")
    connected(server)
    assert_denied(server, session)


def test_a_reload_that_meets_a_starting_server(configured: ServerProcess, config: Path) -> None:
    """It was forked with the old configuration, and gets the new one as soon as it is ready."""
    server = configured
    session = server.create("127.0.0.1:5000", 1)
    old = server_pid(server)
    os.kill(old, signal.SIGKILL)
    starting = eventually(lambda: server_pid(server), lambda pid: pid != old, "another server")
    reload_with_signal(config, starting, signal.SIGCONT, 2)
    connected(server)
    assert_denied(server, session)
    assert server_pid(server) == starting


def test_a_long_deny_list(configured: ServerProcess, config: Path) -> None:
    """Applied as a whole, however long, and by the next server, too."""
    server = configured
    session = server.create("127.0.0.1:5000", 1, f"{DENIED}:7000")
    networks = [f"100.{64 + i // 65536}.{i // 256 % 256}.{i % 256}/32" for i in range(LONG_LIST)]
    listed = ", ".join(f'"{network}"' for network in [f"{DENIED}/32", *networks])
    config.write_text(f"[address_policy]\ndeny = [{listed}]\n")
    done = command("reload", "--timeout", "60")
    assert done.returncode == 0, done.stderr
    assert subscribers(server, session).get(f"{DENIED}:7000") != "sending"
    assert_denied(server, session)
    kill(server)
    connected(server)
    assert_denied(server, session)
    done = command("upgrade", "--pid", str(server.process.pid))
    assert done.returncode == 0, done.stderr
    connected(server)
    assert_denied(server, session)
