"""`rtpfanout upgrade`, `reload` and `drain`: what is asked of a running server on this host."""

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rtpfanout.cli.output import say
from rtpfanout.errors import NotFoundError, RtpFanoutError

if TYPE_CHECKING:
    from rtpfanout.supervisor.statefile import ServerState

_LOOK_SECONDS = 0.02

Pid = Annotated[
    int | None, typer.Option(metavar="PID", help="Of the server, when several run here.")
]
Port = Annotated[
    int | None, typer.Option(metavar="PORT", help="Where it receives RTP, when several run here.")
]
Patience = Annotated[float, typer.Option(metavar="SECONDS", help="Wait no longer than this.")]


def upgrade(pid: Pid = None, port: Port = None, timeout: Patience = 180.0) -> None:
    """Let the installed version take over, losing no packet.

    When it doesn't start the old one goes on, and the exit code is 1.
    """
    after = _ask(_find(pid, port), signal.SIGUSR2, lambda state: state.upgrades, timeout)
    say(f"upgraded: the server is process {after.server_pid}")


def reload(pid: Pid = None, port: Port = None, timeout: Patience = 60.0) -> None:
    """Let the server read its configuration again.

    All of it, or nothing if anything is wrong.
    """
    after = _ask(_find(pid, port), signal.SIGHUP, lambda state: state.reloads, timeout)
    say("reloaded")
    for key in after.needs_restart:
        say(f"warning: {key} has changed and needs a restart")


def drain(pid: Pid = None, port: Port = None, timeout: Patience = 3630.0) -> None:
    """Stop the server in order.

    Not ready first, packets for drain_secs, then the end.
    """
    state = _find(pid, port)
    os.kill(state.pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout
    while state.lives:
        if time.monotonic() > deadline:
            raise RtpFanoutError(f"process {state.pid} still drains")
        time.sleep(_LOOK_SECONDS)
    say("stopped")


def _find(pid: int | None, port: int | None) -> "ServerState":
    """Raises NotFoundError, RtpFanoutError."""
    from rtpfanout.supervisor import statefile

    found = [
        state
        for state in statefile.running()
        if (pid is None or state.pid == pid)
        and (port is None or state.bind_address.endswith(f":{port}"))
    ]
    if not found:
        looked_in = " or ".join(map(str, statefile.places())) or "any directory"
        raise NotFoundError(
            f"no such server tells of itself in {looked_in}; it must run under its supervisor (not"
            " enable_supervisor = false), as this user, and with the same RUNTIME_DIRECTORY"
        )
    if len(found) > 1:
        listed = ", ".join(f"{state.pid} at {state.bind_address}" for state in found)
        raise RtpFanoutError(f"several servers run here, choose one by --pid: {listed}")
    return found[0]


def _ask(
    before: "ServerState",
    number: signal.Signals,
    count: "Callable[[ServerState], int]",
    timeout: float,
) -> "ServerState":
    from rtpfanout.supervisor import statefile

    os.kill(before.pid, number)
    deadline = time.monotonic() + timeout
    while True:
        state = statefile.read(before.pid)
        if state is None:
            raise NotFoundError(f"process {before.pid} has ended")
        if count(state) > count(before):
            if state.error:
                raise RtpFanoutError(state.error)
            return state
        if time.monotonic() > deadline:
            raise RtpFanoutError(f"process {before.pid} does not answer; its log tells more")
        time.sleep(_LOOK_SECONDS)
