"""What a client of the first version is answered is, byte for byte, what it was.

data/v1_answers.json is of the last version without names (see first_version.py): what it answered
to each call of DIALOGUE, in the fields of the first version. Stores of each layout before today's
are shown to such a client as the servers showed them that wrote them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from first_version import CALLS, DIALOGUE, LIMITS, FirstVersionClient, answers, known_bytes
from google.protobuf import json_format

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import ServerProcess

RECORDED = Path(__file__).with_name("data") / "v1_answers.json"
STORES = sorted((Path(__file__).parents[1] / "unit/data").glob("store_*.db"))


def test_the_dialogue_has_all_calls_and_their_errors() -> None:
    recorded = json.loads(RECORDED.read_text())
    assert len(recorded) == len(DIALOGUE)
    both = zip(DIALOGUE, recorded, strict=True)
    assert {call for (call, _), found in both if isinstance(found, str)} == set(CALLS)
    codes = {found["code"] for found in recorded if isinstance(found, dict)}
    assert codes >= {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "RESOURCE_EXHAUSTED"}


def test_it_sees_no_difference(start_server: Callable[..., ServerProcess]) -> None:
    server = start_server(store__path=":memory:", **LIMITS)
    found = answers(FirstVersionClient(server.channel))
    for said, now, before in zip(DIALOGUE, found, json.loads(RECORDED.read_text()), strict=True):
        if isinstance(now, dict) and now["details"] == [{"bad_request": ["session_id"]}]:
            # Of a text that is no UUID more is said today.
            for more in (", nor the name of a session", ", nor a name"):
                now["text"] = now["text"].removesuffix(more)
        assert now == before, said


@pytest.mark.parametrize("store", STORES, ids=lambda path: path.stem)
def test_a_store_of_a_version_before(
    start_server: Callable[..., ServerProcess], tmp_path: Path, store: Path
) -> None:
    path = shutil.copy(store, tmp_path / "store.db")
    said = json.loads(store.with_suffix(".json").read_text())
    server = start_server(
        bind_address="[::]:0",
        store__path=path,
        address_policy__allow='["fe80::/16", "::/0", "0.0.0.0/0"]',
    )
    client = FirstVersionClient(server.channel)
    listed = {each.session_id: each for each in client("ListSessions", limit=1000).sessions}
    assert set(listed) == set(said["sessions"])
    for session_id, each in said["sessions"].items():
        subscribers = said["subscribers"][session_id]
        lasting = [other for other in subscribers if "expires_at" not in other]
        for now in (listed[session_id], client("GetSession", session_id=session_id)):
            then = known(client, each)
            assert len(lasting) <= now.subscriber_count <= then.subscriber_count
            then.subscriber_count = now.subscriber_count  # leases end meanwhile
            if then.status == "active":  # no packet has come since
                then.status = now.status
            assert known_bytes(now, []) == known_bytes(then, [])
        stats = client("GetSessionStats", session_id=session_id)
        assert (stats.session_id, stats.packets_received) == (session_id, 0)
        assert len(lasting) <= stats.subscriber_count <= len(subscribers)
    first, *_ = listed
    client("AddSubscriber", session_id=first, subscriber_address="127.0.0.1:9")
    client("RemoveSubscriber", session_id=first, subscriber_address="127.0.0.1:9")
    client("DeleteSession", session_id=first)
    assert len(client("ListSessions").sessions) == len(listed) - 1


def known(client: FirstVersionClient, said: dict[str, Any]) -> Any:
    """A session as it was shown, to this client."""
    message = client.message("SessionResponse")
    return json_format.ParseDict(said, message, ignore_unknown_fields=True)
