"""What a reload changes, as the supervisor and the server see it: always alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rtpfanout.config import Settings
from rtpfanout.supervisor.link import Link
from rtpfanout.supervisor.reloads import Reloads

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    one, other = Link.pair()
    yield one, other
    one.close()
    other.close()


def wanted(**values: object) -> Settings:
    return Settings(**values)  # type: ignore[arg-type]


def test_a_server_gets_what_can_change_and_hears_what_can_not(ends: tuple[Link, Link]) -> None:
    reloads = Reloads(Settings())
    assert reloads.ask(wanted(drain_secs=3, max_sessions=9), ends[0]) is None
    (told,) = ends[1].heard()
    assert told["word"] == "reload"
    assert told["needs_restart"] == ["max_sessions"]
    assert Settings.model_validate(told["settings"]) == wanted(drain_secs=3)
    assert reloads.settings == wanted(drain_secs=3)
    assert reloads.applied("") == ("", ["max_sessions"])
    assert reloads.ask(wanted(drain_secs=3, max_sessions=9), None) == ("", ["max_sessions"])


def test_what_a_server_could_not_apply_is_not_kept(ends: tuple[Link, Link]) -> None:
    reloads = Reloads(Settings())
    assert reloads.ask(wanted(drain_secs=3), ends[0]) is None
    assert reloads.applied("no room") == ("no room", [])
    assert reloads.settings == Settings()


def test_what_a_server_can_not_be_told_is_not_kept(ends: tuple[Link, Link]) -> None:
    reloads = Reloads(Settings())
    while not ends[0].tell("word"):
        pass
    answer = reloads.ask(wanted(drain_secs=3), ends[0])
    assert answer is not None
    assert "could not be told" in answer[0]
    assert reloads.settings == Settings()


def test_several_reloads_are_answered_in_turn(ends: tuple[Link, Link]) -> None:
    reloads = Reloads(Settings())
    assert reloads.ask(wanted(max_sessions=9), ends[0]) is None
    assert reloads.ask(wanted(max_sessions=9, workers=3, drain_secs=1), ends[0]) is None
    assert reloads.applied("") == ("", ["max_sessions"])
    assert reloads.server_ended() == [("", ["max_sessions", "workers"])]
    assert reloads.server_ended() == []
    assert reloads.settings == wanted(drain_secs=1), "the next server has it from its start"
