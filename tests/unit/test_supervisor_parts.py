"""What of the supervisor needs no process: how soon it restarts, what an upgrade hands over."""

from __future__ import annotations

import errno
import json
import os

import pytest

from rtpfanout import _fastpath
from rtpfanout.supervisor import ingress, replacement
from rtpfanout.supervisor.replacement import Replacement
from rtpfanout.supervisor.restarts import (
    AT_ONCE,
    FIRST_PAUSE,
    HEALTHY_SECONDS,
    LONGEST_PAUSE,
    Restarts,
)


def test_pauses_double_after_some_restarts_at_once() -> None:
    restarts = Restarts()
    pauses = [restarts.pause(False, 0.0) for _ in range(40)]
    assert pauses[:AT_ONCE] == [0.0] * AT_ONCE
    assert pauses[AT_ONCE : AT_ONCE + 3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert set(pauses[20:]) == {LONGEST_PAUSE}


@pytest.mark.parametrize(
    ("was_ready", "lived", "forgiven"),
    [
        (True, HEALTHY_SECONDS, True),
        (True, HEALTHY_SECONDS / 2, False),
        (False, HEALTHY_SECONDS, False),
    ],
)
def test_only_a_healthy_life_is_a_new_beginning(
    was_ready: bool, lived: float, forgiven: bool
) -> None:
    restarts = Restarts()
    for _ in range(AT_ONCE + 2):
        restarts.pause(False, 0.0)
    assert (restarts.pause(was_ready, lived) == 0.0) is forgiven


def test_what_is_left_is_taken_once_whatever_else_another_version_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    descriptor = os.dup(0)
    try:
        os.set_inheritable(descriptor, True)
        handed = {"sockets": [descriptor], "link": 7, "server": 4711}
        handed |= {"state": {"pid": 1}, "settings": {"buffer_size": 64}}
        monkeypatch.setenv(replacement.VARIABLE, json.dumps(handed | {"of a later version": 1}))
        assert Replacement.take() == Replacement(
            [descriptor], 7, 4711, {"pid": 1}, {"buffer_size": 64}
        )
        assert not os.get_inheritable(descriptor)
        assert Replacement.take() is None
    finally:
        os.close(descriptor)


def test_without_memory_that_outlives_it_a_server_starts_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(count: int) -> int:
        assert count == 2
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    memory = ingress.open_in_hand([3, 4])
    assert memory is not None
    assert os.fstat(memory).st_size > 0
    assert not os.get_inheritable(memory)
    os.close(memory)
    monkeypatch.setattr(_fastpath, "open_in_hand", fail)
    assert ingress.open_in_hand([3, 4]) is None
