"""The supervisor's loop over processes that are none: what it forks, hears, reaps and tells."""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from rtpfanout.config import Settings
from rtpfanout.errors import StartError
from rtpfanout.supervisor import parent, servers
from rtpfanout.supervisor.link import Link
from rtpfanout.supervisor.parent import Supervisor
from rtpfanout.supervisor.process import ServerProcess
from rtpfanout.supervisor.succession import Successor
from rtpfanout.supervisor.upgrade import Upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rtpfanout.assembly import Start

READY = {"bind_address": "127.0.0.1:5004", "grpc_bind_address": "", "metrics_bind_address": ""}


class FakeProcess(ServerProcess):
    """`far` is the end that the server would have."""

    far: Link
    signals: list[signal.Signals]

    def signal(self, number: signal.Signals) -> None:
        self.signals.append(number)

    def words(self) -> list[str]:
        return [message["word"] for message in self.far.heard()]


class FakeSuccessor(Successor, FakeProcess):
    def __init__(self, *_: object) -> None:
        ours, self.far = Link.pair()
        ServerProcess.__init__(self, 0, ours)
        self.settings = {}

    def forget(self) -> None: ...

    def reason(self, code: int) -> str:
        return ServerProcess.reason(self, code)


class World:
    """What the supervisor sees of the system: `begun` is each process, its pid its number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
        self.begun: list[FakeProcess] = []
        self.starts: list[Start] = []
        self.ended: list[tuple[int, int]] = []
        self.has_room = True
        self.executed: list[ServerProcess] = []
        monkeypatch.setattr(parent, "fork_server", self.fork)
        monkeypatch.setattr(parent, "reaped", self.reaped)
        monkeypatch.setattr(servers, "Successor", self.succeed)
        monkeypatch.setattr(parent, "Successor", FakeSuccessor)
        monkeypatch.setattr(parent.ingress, "open_in_hand", lambda _sockets: None)
        monkeypatch.setattr(parent.Replacement, "of", self.replace)
        settings = Settings(store={"path": str(tmp_path / "store.db")}, drain_secs=0)
        self.supervisor = Supervisor(settings, lambda: settings)

    def fork(self, start: Start, _closed: object) -> FakeProcess:
        if not self.has_room:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        ours, far = Link.pair()
        process = FakeProcess(0, ours)
        process.far = far
        self.starts.append(start)
        return self._begin(process)

    def succeed(self, *_: object) -> FakeProcess:
        return self._begin(FakeSuccessor())

    def _begin(self, process: FakeProcess) -> FakeProcess:
        self.begun.append(process)
        process.pid = len(self.begun)
        process.signals = []
        return process

    def replace(self, server: ServerProcess, *_: object) -> Any:
        self.executed.append(server)
        return self

    def execute(self) -> None:
        """The program can't be executed, so the supervisor goes on."""
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def reaped(self) -> Iterator[tuple[int, int]]:
        while self.ended:
            yield self.ended.pop(0)

    # -- what happens

    def ready(self) -> FakeProcess:
        """The first server, ready."""
        self.supervisor._spawn()
        self.say(1, "forwarding")
        self.say(1, "ready")
        return self.begun[0]

    def say(self, pid: int, word: str) -> None:
        values: dict[str, Any] = READY if word == "ready" else {}
        if word == "waiting":
            values = {"settings": {}}
        self.begun[pid - 1].far.tell(word, **values)
        self.turn()

    def end(self, pid: int, code: int = -9) -> None:
        self.ended.append((pid, code))
        self.turn()

    def end_with(self, pid: int, word: str, code: int = 0) -> None:
        """It is found to have ended before what it said is heard."""
        self.begun[pid - 1].far.tell(word)
        self.ended.append((pid, code))
        self.supervisor._reap()

    def come(self, number: int) -> None:
        self.supervisor._signals._came.append(number)
        self.turn()

    def turn(self) -> bool:
        """One, that waits for nothing."""
        self.supervisor._look_at = 0.0
        return self.supervisor._turn()

    @property
    def error(self) -> str:
        return self.supervisor._file.state.error

    def upgrade(self, old: int) -> None:
        """Up to the point where the old server stops: the new one is the next to be begun."""
        self.come(signal.SIGUSR2)
        new = len(self.begun)
        self.say(new, "waiting")
        self.say(old, "suspended")
        self.say(new, "prepared")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path)


def test_a_server_that_dies_is_followed_by_one_that_trusts_the_store(world: World) -> None:
    world.ready()
    assert not world.starts[0].trusts_store
    world.end(1)
    assert [start.trusts_store for start in world.starts] == [False, True]
    world.end(2)
    assert not world.starts[2].trusts_store, "it never was ready: the store may be why"
    assert not any(start.waits for start in world.starts)


def test_what_can_not_be_forked_is_forked_later(world: World) -> None:
    world.has_room = False
    world.supervisor._spawn()
    assert world.supervisor._spawn_at < float("inf")
    world.has_room = True
    world.supervisor._spawn_at = 0.0
    world.turn()
    assert len(world.begun) == 1


def test_a_first_server_that_can_not_start_ends_all(world: World) -> None:
    world.supervisor._spawn()
    world.begun[0].far.tell("failed", message="the port is in use", field="bind_address")
    with pytest.raises(StartError, match="in use"):
        world.end(1, 1)


def test_a_later_one_that_can_not_is_tried_again(world: World) -> None:
    world.ready()
    world.end(1)
    world.begun[1].far.tell("failed", message="no room", field="")
    world.end(2, 1)
    assert len(world.begun) == 3


def test_an_upgrade_goes_step_by_step(world: World) -> None:
    old = world.ready()
    world.upgrade(1)
    assert old.words() == ["suspend", "hand over"]
    assert world.begun[1].words() == ["prepare"]
    world.say(1, "handed over")
    world.end(1, 0)
    assert world.begun[1].words() == ["go"]
    world.say(2, "ready")
    assert world.executed == [world.begun[1]]
    assert len(world.begun) == 2, "nobody follows a server that has handed over"


def test_last_words_count_before_the_end(world: World) -> None:
    """It hands over and ends before the supervisor has looked at either."""
    world.ready()
    world.upgrade(1)
    world.end_with(1, "handed over")
    assert world.begun[1].words() == ["prepare", "go"]
    assert len(world.begun) == 2


def test_a_successor_that_was_replaced_itself_is_no_news_when_it_ends(world: World) -> None:
    """Where the supervisor's program can't be replaced, its servers are successors ever after."""
    world.ready()
    world.upgrade(1)
    world.say(1, "handed over")
    world.end(1, 0)
    world.say(2, "ready")
    assert "can't be executed" in world.error
    world.supervisor._upgrade = Upgrade()  # that attempt is over
    world.upgrade(2)
    world.end_with(2, "handed over")
    assert world.begun[2].words() == ["prepare", "go"]
    assert len(world.begun) == 3
    world.say(3, "ready")
    assert world.executed == world.begun[1:]


@pytest.mark.parametrize("phase", ["waiting", "prepared"])
def test_a_successor_that_dies_leaves_the_old_server(world: World, phase: str) -> None:
    old = world.ready()
    world.come(signal.SIGUSR2)
    world.say(2, "waiting")
    if phase == "prepared":
        world.say(1, "suspended")
    world.end(2, -9)
    assert old.words() == ["suspend", "resume"]
    assert "the new version does not start: exit code -9" in world.error
    assert len(world.begun) == 2


def test_no_upgrade_without_a_server_that_is_ready(world: World) -> None:
    world.supervisor._spawn()
    world.come(signal.SIGUSR2)
    assert "not ready" in world.error
    assert len(world.begun) == 1


def test_a_reload_is_refused_during_an_upgrade(world: World) -> None:
    world.ready()
    world.come(signal.SIGUSR2)
    world.come(signal.SIGHUP)
    assert "being upgraded" in world.error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_ends_all_and_is_over_when_they_have_ended(world: World, number: int) -> None:
    world.ready()
    world.come(signal.SIGUSR2)
    world.come(number)
    assert [process.signals for process in world.begun] == [[signal.SIGTERM]] * 2
    world.end(1, 0)
    assert not world.turn()
    world.ended.append((2, -15))
    assert world.turn()
    assert world.supervisor._exit_code == 0
    assert len(world.begun) == 2


def test_who_does_not_end_is_killed(world: World) -> None:
    server = world.ready()
    world.come(signal.SIGTERM)
    world.supervisor._kill_at = 0.0
    world.turn()
    assert server.signals == [signal.SIGTERM, signal.SIGKILL]


def test_who_says_nothing_is_killed(world: World) -> None:
    server = world.ready()
    for _ in range(20):
        world.turn()
    assert signal.SIGKILL in server.signals
    world.end(1)
    world.say(2, "ready")
    for _ in range(20):
        world.say(2, "alive")
    assert world.begun[1].signals == []
