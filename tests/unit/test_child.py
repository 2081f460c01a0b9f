"""A server process told what to do: in which order it begins, and what it does at each word."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from rtpfanout.assembly import Start
from rtpfanout.config import Settings
from rtpfanout.errors import StartError
from rtpfanout.model import Address
from rtpfanout.server import Server
from rtpfanout.supervisor import child
from rtpfanout.supervisor.link import Link

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 10.0
AT_ONCE = ["prepare", "start_packets", "said forwarding", "catch_up", "start_serving", "said ready"]
STEPS = ("prepare", "start_packets", "catch_up", "start_serving")


class FakeEngine:
    def stats(self) -> dict[str, int]:
        return defaultdict(int)


class FakeServer(Server):
    """Each step is noted, none is done; `fails` at one of them."""

    def __init__(self, start: Start, happened: list[str], fails: str = "") -> None:
        super().__init__(start)
        self.happened = happened
        self.fails = fails
        self.engine = FakeEngine()  # type: ignore[assignment]
        self.ingress_address = self.grpc_address = Address.parse("127.0.0.1:5004")

    def _note(self, step: str) -> None:
        self.happened.append(step)
        if step == self.fails:
            self.fails = ""
            raise StartError("no room", field="bind_address")

    def prepare(self) -> None:
        self._note("prepare")

    def start_packets(self) -> None:
        self._note("start_packets")

    def catch_up(self) -> None:
        self._note("catch_up")

    async def start_serving(self) -> None:
        self._note("start_serving")

    async def stop_serving(self) -> None:
        self._note("stop_serving")

    async def resume_serving(self) -> None:
        self._note("resume_serving")

    async def stop_packets(self, *, leaves_queue: bool = False) -> None:
        self._note("stop_packets, queue left" if leaves_queue else "stop_packets")

    async def drain(self) -> None:
        self._note("drain")

    async def stop(self) -> None:
        self._note("stop")

    async def reconfigure(self, settings: Settings, _needs_restart: Any = None) -> list[str]:
        self.settings = settings
        self._note("reconfigure")
        return ["workers"]


class Scene:
    """A server that serves, and the supervisor's end of its link."""

    def __init__(self, *, waits: bool = False, fails: str = "", link: Link | None = None) -> None:
        self.far, near = Link.pair()
        self.happened: list[str] = []
        start = Start(Settings(), waits=waits)
        self.server = FakeServer(start, self.happened, fails)
        self.said: list[dict[str, Any]] = []
        self.task = asyncio.create_task(child._serve(self.server, start, link or near, []))

    async def until(self, *happened: str) -> None:
        """Exactly this has happened, in this order."""
        async with asyncio.timeout(PATIENCE):
            while not self.task.done() and len(self.happened) < len(happened):
                await self.quiet()
        await self.quiet()
        assert self.happened == list(happened)

    async def quiet(self) -> None:
        """All that is due has happened."""
        for _ in range(5):
            await asyncio.sleep(0)
        for message in self.far.heard():
            self.said.append(message)
            self._insert(f"said {message['word']}")

    def _insert(self, said: str) -> None:
        # What is said while it starts has its place among the steps.
        after = {"said forwarding": "start_packets"}.get(said)
        index = self.happened.index(after) + 1 if after else len(self.happened)
        self.happened.insert(index, said)

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            return await self.task


def run(scenario: Callable[[], Any]) -> None:
    asyncio.run(scenario())


def test_packets_come_first() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.until(*AT_ONCE)
        scene.server.finished.set()
        assert await scene.ended() == 0
        await scene.until(*AT_ONCE, "drain", "stop")

    run(scenario)


def test_who_waits_does_nothing_before_its_turn() -> None:
    async def scenario() -> None:
        scene = Scene(waits=True)
        await scene.until()
        scene.far.tell("go")  # that is not due
        await scene.until()
        scene.far.tell("prepare")
        prepared = ["prepare", "catch_up", "said prepared"]
        await scene.until(*prepared)
        scene.far.tell("reload")  # that is not due
        await scene.until(*prepared)
        scene.far.tell("go")
        rest = ["start_packets", "said forwarding", "start_serving", "said ready"]
        await scene.until(*prepared, *rest)
        scene.task.cancel()

    run(scenario)


def test_a_hand_over_leaves_the_queue() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.until(*AT_ONCE)
        scene.far.tell("suspend")
        suspended = [*AT_ONCE, "stop_serving", "said suspended"]
        await scene.until(*suspended)
        scene.far.tell("hand over")
        assert await scene.ended() == 0
        await scene.until(*suspended, "stop_packets, queue left", "said handed over")

    run(scenario)


def test_an_upgrade_that_came_to_nothing() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.until(*AT_ONCE)
        scene.far.tell("suspend")
        scene.far.tell("resume")
        resumed = [*AT_ONCE, "stop_serving", "resume_serving", "said suspended", "said ready"]
        async with asyncio.timeout(PATIENCE):
            while "said ready" not in scene.happened[len(AT_ONCE) :]:
                await scene.quiet()
        assert sorted(scene.happened) == sorted(resumed)
        assert scene.happened.index("stop_serving") < scene.happened.index("resume_serving")
        scene.server.finished.set()
        await scene.ended()
        assert scene.happened[-2:] == ["drain", "stop"]

    run(scenario)


def test_what_can_not_be_resumed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_TRY_AGAIN_SECONDS", 0.0)

    async def scenario() -> None:
        scene = Scene(fails="resume_serving")
        await scene.until(*AT_ONCE)
        scene.far.tell("resume")
        tried = ["resume_serving", "stop_serving", "resume_serving", "said ready"]
        await scene.until(*AT_ONCE, *tried)
        scene.task.cancel()

    run(scenario)


@pytest.mark.parametrize("fails", ["", "reconfigure"])
def test_a_reload_is_applied_or_nothing_changes(fails: str) -> None:
    async def scenario() -> None:
        scene = Scene(fails=fails)
        await scene.until(*AT_ONCE)
        settings = Settings(drain_secs=3)
        scene.far.tell("reload", settings=settings.model_dump(mode="json"))
        await scene.until(*AT_ONCE, "reconfigure", "said reloaded")
        assert scene.server.settings == (Settings() if fails else settings)
        assert bool(scene.said[-1]["error"]) == bool(fails)
        assert scene.said[-1]["needs_restart"] == ([] if fails else ["workers"])
        scene.task.cancel()

    run(scenario)


def test_without_its_supervisor_it_ends_in_order() -> None:
    async def scenario() -> None:
        scene = Scene()
        await scene.until(*AT_ONCE)
        scene.far.close()
        assert await scene.ended() == 0
        assert scene.happened == [*AT_ONCE, "drain", "stop"]

    run(scenario)


def test_linked_to_nobody_it_serves_all_the_same() -> None:
    async def scenario() -> None:
        scene = Scene(link=Link.to_nobody())
        steps = [step for step in AT_ONCE if not step.startswith("said")]
        await scene.until(*steps)
        scene.server.finished.set()
        assert await scene.ended() == 0
        assert scene.happened == [*steps, "drain", "stop"]

    run(scenario)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("fails", STEPS)
def test_what_fails_at_the_start_is_undone(fails: str, waits: bool) -> None:
    async def scenario() -> None:
        scene = Scene(waits=waits, fails=fails)
        scene.far.tell("prepare")
        scene.far.tell("go")
        with pytest.raises(StartError):
            await scene.ended()
        assert [step for step in scene.happened if step in (fails, "stop")] == [fails, "stop"]
        assert scene.happened[-1] == "stop"

    run(scenario)
