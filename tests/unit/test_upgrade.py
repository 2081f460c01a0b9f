"""Every order of events in an upgrade: a world of two processes, each of which may end at any
moment, and a supervisor that carries out what it is told."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from rtpfanout.supervisor.upgrade import Order, Phase, Upgrade

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class World:
    """What is so, whatever the machine thinks. `server` and `successor` are the state of each
    process, "" where there is none; `said` what it has said that nobody has heard yet."""

    server: str = "ready"
    server_is_new: bool = False
    server_said: tuple[str, ...] = ()
    successor: str = ""
    successor_said: tuple[str, ...] = ()
    reports: int = 0
    executed: bool = False


OLD_STEPS = {"suspending": "suspended", "resuming": "ready", "handing over": "handed over"}
NEW_STEPS = {"starting": "waiting", "preparing": "prepared"}


class Scene:
    """A machine and its world, both rebuilt from the events that led there."""

    def __init__(self) -> None:
        self.upgrade = Upgrade()
        self.world = World()
        self.fails = False  # the next order can't be carried out

    def events(self) -> Iterator[str]:
        world = self.world
        if world.server_said:
            yield "hear server"
        elif world.server == "ended":
            yield "reap server"
        if world.successor_said:
            yield "hear successor"
        elif world.successor == "ended":
            yield "reap successor"
        if world.server in OLD_STEPS or (world.server_is_new and world.server == "going"):
            yield "server goes on"
        if world.successor in NEW_STEPS:
            yield "successor goes on"
        if world.server not in ("", "ended"):
            yield "server dies"
        if world.successor not in ("", "ended"):
            yield "successor dies"
        if self.upgrade.is_on:
            yield "late"
            if not self.fails:
                yield "next order fails"

    def happen(self, event: str) -> None:
        world = self.world
        match event:
            case "ask":
                self.follow(self.upgrade.ask())
            case "hear server":
                self.world = replace(world, server_said=world.server_said[1:])
                self.follow(self.upgrade.server_said(world.server_said[0]))
            case "hear successor":
                self.world = replace(world, successor_said=world.successor_said[1:])
                self.follow(self.upgrade.successor_said(world.successor_said[0]))
            case "reap server":
                self.world = replace(world, server="", server_is_new=False)
                self.follow(self.upgrade.server_ended("died"))
            case "reap successor":
                self.world = replace(world, successor="")
                self.follow(self.upgrade.successor_ended("died"))
            case "server goes on":
                word = OLD_STEPS.get(world.server, "ready")
                state = "ended" if word == "handed over" else word
                said = (*world.server_said, word)
                self.world = replace(world, server=state, server_said=said)
            case "successor goes on":
                word = NEW_STEPS[world.successor]
                said = (*world.successor_said, word)
                self.world = replace(world, successor=word, successor_said=said)
            case "server dies":
                self.world = replace(world, server="ended")
            case "successor dies":
                self.world = replace(world, successor="ended")
            case "late":
                self.follow(self.upgrade.late())
            case "next order fails":
                self.fails = True

    def follow(self, orders: list[Order]) -> None:
        while orders:
            if self.carry_out(orders.pop(0)):
                continue
            orders = self.upgrade.failed("no room")

    def carry_out(self, order: Order) -> bool:
        world = self.world
        can_fail = order not in (Order.REPORT, Order.SPAWN, Order.KILL_SERVER, Order.KILL_SUCCESSOR)
        if self.fails and can_fail:
            self.fails = False
            if order is Order.PROMOTE:  # it is the server, and has not been told
                self.promote("stuck")
            return False
        match order:
            case Order.START:
                assert not world.successor
                self.world = replace(world, successor="starting", successor_said=())
            case Order.SUSPEND:
                self.tell("suspending")
            case Order.RESUME:
                self.tell("resuming")
            case Order.HAND_OVER:
                assert world.successor, "nobody to hand over to"
                self.tell("handing over")
            case Order.PREPARE:
                if world.successor != "ended":
                    self.world = replace(world, successor="preparing")
            case Order.PROMOTE:
                assert world.server == "ended", "two would read the sockets"
                assert world.successor in ("prepared", "ended")
                self.promote("going" if world.successor == "prepared" else "ended")
            case Order.EXECUTE:
                assert world.server_is_new
                assert world.server in ("ready", "ended")
                self.world = replace(world, executed=True)
            case Order.KILL_SUCCESSOR:
                assert world.successor
                self.world = replace(world, successor="ended")
            case Order.KILL_SERVER:
                assert world.server
                self.world = replace(world, server="ended")
            case Order.SPAWN:
                assert not world.server, "two would read the sockets"
                assert not world.successor, "it may have the store"
                self.world = replace(world, server="ready", server_said=())
            case Order.REPORT:
                self.world = replace(world, reports=world.reports + 1)
        return True

    def promote(self, state: str) -> None:
        said = self.world.successor_said
        self.world = replace(
            self.world,
            server=state,
            server_is_new=True,
            server_said=said,
            successor="",
            successor_said=(),
        )

    def tell(self, state: str) -> None:
        """It hears one after the other."""
        world = self.world
        if world.server == "ended" or self.world.server_is_new:
            return
        if state == "resuming" and world.server == "suspending":
            self.world = replace(world, server_said=(*world.server_said, "suspended"))
            world = self.world
        self.world = replace(world, server=state)

    def key(self) -> object:
        return (
            self.world,
            self.fails,
            tuple(sorted((k, str(v)) for k, v in vars(self.upgrade).items())),
        )


def reached(events: tuple[str, ...]) -> Scene:
    scene = Scene()
    for event in events:
        scene.happen(event)
    return scene


def explore(limit: int = 200_000) -> dict[object, tuple[str, ...]]:
    """Each state that can be reached, and a shortest way."""
    first = ("ask",)
    ways = {reached(first).key(): first}
    queue = deque([first])
    while queue:
        way = queue.popleft()
        scene = reached(way)
        if scene.world.executed or (not scene.upgrade.is_on and scene.world.reports):
            continue  # it is over
        for event in scene.events():
            after = reached((*way, event))
            if after.key() not in ways:
                ways[after.key()] = (*way, event)
                queue.append((*way, event))
        assert len(ways) < limit
    return ways


@pytest.fixture(scope="module")
def ways() -> dict[object, tuple[str, ...]]:
    return explore()


def is_over(scene: Scene) -> bool:
    return scene.world.executed or not scene.upgrade.is_on


def test_all_orders_are_possible_and_never_do_two_read_the_sockets(
    ways: dict[object, tuple[str, ...]],
) -> None:
    """The asserts of `carry_out`, in every state."""
    assert len(ways) > 150
    seen = {reached(way).upgrade.phase for way in ways.values()}
    assert seen == set(Phase)


def test_whatever_happened_it_comes_to_an_end(ways: dict[object, tuple[str, ...]]) -> None:
    """From every state, if processes go on, or hang until a step is late, but no more go wrong."""
    for way in ways.values():
        scene = reached(way)
        steps: list[str] = []
        while not is_over(scene):
            goes_on = [
                event
                for event in scene.events()
                if event.startswith(("hear", "reap")) or event.endswith("goes on")
            ]
            event = goes_on[0] if goes_on else "late"
            steps.append(event)
            assert len(steps) < 30, (way, steps, scene.world)
            scene.happen(event)
        if scene.world.executed:
            continue
        for _ in range(10):  # what is under way when it has been reported
            for event in list(scene.events()):
                if event.startswith(("hear", "reap")) or event.endswith("goes on"):
                    scene.happen(event)
                    break
        assert scene.world.server == "ready", (way, steps, scene.world)
        assert not scene.world.successor, (way, steps)


def test_each_question_gets_one_answer(ways: dict[object, tuple[str, ...]]) -> None:
    """And one more where the new server ran, and its supervisor could not be executed at once."""
    for way in ways.values():
        scene = reached(way)
        if scene.world.executed or scene.upgrade.phase is Phase.EXECUTING:
            assert scene.world.reports <= ("next order fails" in way), way
        else:
            assert scene.world.reports == (not scene.upgrade.is_on), way


def test_the_good_way() -> None:
    scene = reached(
        (
            "ask",
            "successor goes on",
            "hear successor",
            "server goes on",
            "hear server",
            "successor goes on",
            "hear successor",
            "server goes on",
            "hear server",
            "server goes on",
            "hear server",
        )
    )
    assert scene.world.executed
    assert scene.world.server_is_new
    assert scene.world.reports == 0, "the program that is executed reports"


def test_who_asks_during_an_upgrade_waits_for_its_outcome() -> None:
    upgrade = Upgrade()
    assert upgrade.ask() == [Order.START]
    assert upgrade.ask("not ready") == []
    assert upgrade.successor_ended("why") == [Order.REPORT]
    assert upgrade.reason == "why"
    assert upgrade.ask("not ready") == [Order.REPORT]
    assert upgrade.reason == "not ready"
    assert not upgrade.is_on


def test_without_an_upgrade_a_server_that_ends_is_followed_by_another() -> None:
    assert Upgrade().server_ended("killed") == [Order.SPAWN]
