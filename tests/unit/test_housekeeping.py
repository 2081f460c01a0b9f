"""What a server does again and again, and that nothing of it runs when it has ended."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import pytest
from support import eventually

from rtpfanout import housekeeping
from rtpfanout.housekeeping import housekeep

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS = (
    "on_sample", "expire_subscribers", "expire_idle", "keep_consents", "keep_clock",
    "serve_again", "follow_sources", "look_at_cpus", "show_local_addresses", "look",
    "tell_conditions", "tell_latches", "listen",
)  # fmt: skip
PATIENCE = 10.0


class Scene:
    """Everything that is kept house of. The call `slow` begins and waits until it `may_end`."""

    def __init__(self, slow: str = "") -> None:
        self.called: list[str] = []
        self.running = 0
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self._slow = slow

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in CALLS:
            raise AttributeError(name)

        def call(*_: object) -> list[object]:
            self.called.append(name)
            if name == self._slow:
                self.running += 1
                self.begun.set()
                assert self.may_end.wait(PATIENCE)
                self.running -= 1
            return []

        return call

    def until_called(self, *names: str) -> None:
        """Each of them, as often as it is named."""
        eventually(lambda: Counter(self.called), lambda c: c >= Counter(names), "calls")

    def housekeep(self) -> asyncio.Task[None]:
        parts = cast("Any", self)
        return asyncio.create_task(
            housekeep(
                parts,
                parts,
                parts,
                self.look_at_cpus,
                self.listen,
                self.show_local_addresses,
                lambda: 300.0,
            )
        )


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pressure:
        def __init__(self, _engine: object) -> None: ...

        def sample(self) -> None: ...

    monkeypatch.setattr(housekeeping, "Pressure", Pressure)
    monkeypatch.setattr(housekeeping, "HOUSEKEEPING_SECONDS", 0.01)
    monkeypatch.setattr(housekeeping, "GROUPS_SECONDS", 0.01)


def test_one_that_hangs_holds_up_no_other() -> None:
    async def keep() -> None:
        scene = Scene(slow="keep_consents")
        task = scene.housekeep()
        await asyncio.to_thread(scene.until_called, *CALLS)
        scene.called.remove("keep_consents")
        await asyncio.to_thread(scene.until_called, *["look"] * 3)
        assert "keep_consents" not in scene.called
        scene.may_end.set()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(asyncio.wait_for(keep(), PATIENCE))


@pytest.mark.parametrize("slow", CALLS)
def test_it_has_ended_when_all_calls_have(slow: str) -> None:
    """Who stops it closes what it uses: the store, the socket that local addresses come by."""

    async def keep() -> None:
        scene = Scene(slow)
        task = scene.housekeep()
        await asyncio.to_thread(scene.begun.wait, PATIENCE)
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
        scene.may_end.set()
        await asyncio.wait([task])
        assert task.cancelled()
        assert scene.running == 0
        called = len(scene.called)
        await asyncio.sleep(0.05)
        assert len(scene.called) == called

    asyncio.run(asyncio.wait_for(keep(), PATIENCE))


@pytest.mark.parametrize("broken", CALLS)
def test_a_fault_ends_nothing(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def keep() -> None:
        scene = Scene()
        others = set(CALLS) - {broken, "follow_sources"}
        failed = threading.Event()

        def fail(*_: object) -> None:
            failed.set()
            raise RuntimeError("a fault")

        monkeypatch.setattr(scene, broken, fail, raising=False)
        task = scene.housekeep()
        await asyncio.to_thread(failed.wait, PATIENCE)
        scene.called.clear()
        await asyncio.to_thread(scene.until_called, *others)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(asyncio.wait_for(keep(), PATIENCE))
