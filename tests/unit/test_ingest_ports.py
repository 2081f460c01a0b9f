"""Ports of sessions' own: which there are, who may have them, what becomes of their sockets."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from fastpath.engines import engine
from ports_support import free_range, taken

from rtpfanout import _fastpath
from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    UnavailableError,
)
from rtpfanout.ingest_ports import IngestPorts
from rtpfanout.kept import RTCP, KeptSockets
from rtpfanout.portrange import AUTO, PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout._fastpath import Engine


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("6000-6005", [6000, 6002, 6004]),
        ("6001-6005", [6001, 6003]),
        ("6000-6001", [6000]),
        ("1-2", [1]),
        ("65534-65535", [65534]),
        ("", []),
    ],
)
def test_a_range_is_pairs(text: str, numbers: list[int]) -> None:
    ports = PortRange.parse(text)
    assert list(ports.numbers()) == numbers
    assert len(ports) == len(numbers)
    assert bool(ports) == bool(numbers)
    assert str(ports) == text
    held = [port for port in range(65536) if ports.holds(port)]
    assert held == [port for number in numbers for port in (number, number + 1)]


@pytest.mark.parametrize("text", ["6000", "a-b", "0-5", "7-7", "8-7", "1-65536", "-1-5", "1-2,4-5"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        PortRange.parse(text)


@pytest.fixture
def an_engine() -> Engine:
    return engine()


class Scene:
    def __init__(self, an_engine: Engine, pairs: int) -> None:
        self.kept = KeptSockets()
        self.range = free_range(pairs)
        self.numbers = list(self.range.numbers())
        self.ports = IngestPorts(an_engine, self.kept, self.range, 65536)


@pytest.fixture
def scene(an_engine: Engine) -> Iterator[Scene]:
    made = Scene(an_engine, 3)
    yield made
    made.kept.give_up(made.kept.names())


def test_each_has_one_until_there_is_none(scene: Scene) -> None:
    assert [scene.ports.claim_new(AUTO) for _ in range(3)] == scene.numbers
    with pytest.raises(LimitError, match="all 3 ports") as full:
        scene.ports.claim_new(AUTO)
    assert (full.value.field, full.value.limit) == ("ingest_ports", 3)
    assert scene.ports.used == 3
    scene.ports.claim(scene.range.last + 1)  # of a session from before the range was this
    scene.ports.free(scene.numbers[1])
    assert scene.ports.used == 2
    assert scene.ports.claim_new(AUTO) == scene.numbers[1]


def test_a_port_that_was_freed_is_the_last_to_be_given_again(scene: Scene) -> None:
    first = scene.ports.claim_new(AUTO)
    scene.ports.free(first)
    assert [scene.ports.claim_new(AUTO) for _ in range(3)] == [*scene.numbers[1:], first]


def test_the_one_that_is_asked_for(scene: Scene) -> None:
    assert scene.ports.claim_new(scene.numbers[2]) == scene.numbers[2]
    with pytest.raises(AlreadyExistsError, match="another session has port"):
        scene.ports.claim_new(scene.numbers[2])
    for wrong, why in (
        (scene.numbers[0] + 1, "is for the RTCP of"),
        (scene.range.first - 1, "is outside"),
        (scene.range.last + 1, "is outside"),
    ):
        with pytest.raises(InvalidArgumentError, match=why) as refused:
            scene.ports.claim_new(wrong)
        assert refused.value.field == "ingest_port"
    assert scene.kept.names() == {str(scene.numbers[2])}


@pytest.mark.parametrize("wanted", [AUTO, 6000])
def test_without_a_range_there_is_none(an_engine: Engine, wanted: int) -> None:
    ports = IngestPorts(an_engine, KeptSockets(), PortRange(), 64)
    with pytest.raises(InvalidArgumentError, match="ingest_ports is not configured"):
        ports.claim_new(wanted)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_port_that_another_program_has(scene: Scene, offset: int) -> None:
    number = scene.numbers[0]
    with taken(number + offset):
        with pytest.raises(UnavailableError, match=f"port {number + offset} can't be opened"):
            scene.ports.claim_new(number)
        assert not scene.kept.names()
        assert scene.ports.claim_new(AUTO) == scene.numbers[1]
    assert scene.ports.claim_new(number) == number  # nothing was left of it


def test_no_descriptors_are_left(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(_fastpath, "open_socket", fail)
    with pytest.raises(LimitError, match="no file descriptors"):
        scene.ports.claim_new(AUTO)


def test_who_can_not_be_told_of_them_is_no_reason_to_try_others(scene: Scene) -> None:
    tried: list[str] = []

    def refuse(name: str, _sockets: object) -> str:
        tried.append(name)
        return "no room"

    scene.kept.attach(refuse, knows=True)
    with pytest.raises(UnavailableError, match="the supervisor can't be told"):
        scene.ports.claim_new(AUTO)
    assert tried == [str(scene.numbers[0])]
    assert not scene.kept.names()


def test_what_the_process_before_had_is_taken_up(an_engine: Engine) -> None:
    before = Scene(an_engine, 3)
    first, second, third = (before.ports.claim_new(AUTO) for _ in range(3))
    kept = KeptSockets({name: before.kept.find(name) or () for name in before.kept.names()})
    kept.add(RTCP, [os.dup(0)])
    ports = IngestPorts(an_engine, kept, before.range, 65536)
    ports.claim(second)
    ports.open(second)  # though it is bound
    with pytest.raises(AlreadyExistsError):
        ports.claim(second)
    ports.close_unclaimed()
    assert kept.names() == {RTCP, str(second)}
    assert ports.claim_new(first) == first
    kept.give_up(kept.names())
    assert third  # closed above


def test_a_number_outside_of_todays_range_stays_claimed(scene: Scene) -> None:
    outside = scene.range.last + 1
    scene.ports.claim(outside)
    with pytest.raises(InvalidArgumentError, match="is outside"):
        scene.ports.open(outside)
    with pytest.raises(AlreadyExistsError):
        scene.ports.claim(outside)
    scene.ports.free(outside)
    scene.ports.claim(outside)


def test_a_session_gets_it(scene: Scene, an_engine: Engine) -> None:
    number = scene.ports.claim_new(AUTO)
    handle = an_engine.add_session(None, 7, 0, at_own_port=True)
    scene.ports.give(handle, number)
    an_engine.remove_session(handle)
    scene.ports.free(number)
    with taken(number), taken(number + 1):
        pass
