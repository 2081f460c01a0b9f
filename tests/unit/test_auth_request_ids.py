"""Request ids of confined identities: those of others are neither seen nor taken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rtpfanout.api import session_pb2
from rtpfanout.auth import Identity, Role, confine

if TYPE_CHECKING:
    from collections.abc import Mapping


def request_id_after(scope: Mapping[str, str], request_id: str) -> str:
    request = session_pb2.CreateSessionRequest(request_id=request_id)
    confine(Identity("somebody", Role.OPERATOR, scope), "CreateSession", request, lambda _: {})
    return request.request_id


def test_ids_of_different_scopes_never_meet() -> None:
    north = request_id_after({"site": "north"}, "one")
    assert north == request_id_after({"site": "north"}, "one")
    others = [
        request_id_after({"site": "south"}, "one"),
        request_id_after({"site": "north", "vehicle": "rover-7"}, "one"),
        request_id_after({"site": "north"}, "two"),
        request_id_after({}, "one"),
    ]
    assert north not in others
    assert 1 <= len(north) <= 64


def test_without_a_scope_an_id_stays() -> None:
    assert request_id_after({}, "one") == "one"


@pytest.mark.parametrize("request_id", ["", "x" * 65, "a b", "\u00e9"])
def test_what_is_no_id_is_left_for_the_manager_to_refuse(request_id: str) -> None:
    assert request_id_after({"site": "north"}, request_id) == request_id
