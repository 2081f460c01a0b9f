"""What a request id stands for: the request, however our code spells it, now and before."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.sessions.requests import digest_before, digest_of

TEXTS = st.text(max_size=8)
VALUES = st.one_of(TEXTS, st.integers(), st.floats(allow_nan=False), st.binary(), st.booleans())
SAID = st.dictionaries(TEXTS, VALUES | st.dictionaries(TEXTS, VALUES) | st.lists(TEXTS))


@given(SAID)
def test_what_is_empty_or_comes_in_another_order_changes_nothing(said: dict[str, object]) -> None:
    turned = dict(reversed(list(said.items()))) | {"added later": ""}
    assert digest_of("M", turned) == digest_of("M", said)
    assert digest_of("N", said) != digest_of("M", said)


def test_the_digest_is_pinned() -> None:
    """Stored answers are found by it for ten minutes, also after an upgrade."""
    said = {"ssrc": 1, "ttl_secs": 2.0, "labels": {"b": "", "a": "ä"}, "move_key": b"\1", "x": 0}
    text = '["M",{"labels":{"a":"\\u00e4","b":""},"move_key":"01","ssrc":1,"ttl_secs":2}]'
    assert digest_of("M", said) == hashlib.sha256(text.encode()).digest()


@pytest.mark.parametrize(
    "other",
    [
        {"changes": {}},
        {"changes": {"paused": True}},
        {"changes": {"paused": False, "labels": {"a": ""}}},
        {"changes": {"paused": False}, "if_revision": 1},
        {"changes": {"paused": False}, "session_id": "other"},
    ],
)
def test_of_a_change_also_what_is_empty_counts(other: dict[str, object]) -> None:
    said = {"session_id": "s", "changes": {"paused": False}}
    for digest in (digest_of, digest_before):
        assert digest("UpdateSession", {**said, **other}) != digest("UpdateSession", said)


@pytest.mark.parametrize(
    ("method", "said", "arguments"),
    [
        (
            "CreateSession",
            {"source_address": "a", "ssrc": 3, "media_type": "video", "labels": {"k": "v"}},
            (
                ("", "a", 0.0, 0.0),
                3,
                "video",
                {
                    "labels": {"k": "v"},
                    "ingest_limit_bps": 0,
                    "max_subscribers": 0,
                    "consent": "",
                    "move_key": b"",
                },
            ),
        ),
        (
            "UpdateSession",
            {"session_id": "s", "changes": {"labels": {"k": ""}, "paused": False}},
            ("s", {"paused": False, "labels": {"k": ""}}, 0),
        ),
        ("DeleteSession", {"session_id": "s"}, ("s",)),
        (
            "AddSubscriber",
            {"session_id": "s", "subscriber_address": "a", "ttl_secs": 2.5},
            ("s", "a", 2.5, ""),
        ),
        (
            "BatchAddSubscribers",
            {"session_id": "s", "subscriber_addresses": ["a"], "subscriber_class": "pilot"},
            ("s", ["a"], 0.0, "pilot"),
        ),
        ("RemoveSubscriber", {"session_id": "s", "subscriber_address": "a"}, ("s", "a")),
        (
            "BatchRemoveSubscribers",
            {"session_id": "s", "subscriber_addresses": ["a"]},
            ("s", ["a"]),
        ),
    ],
)
def test_as_layout_1_has_it(
    method: str, said: dict[str, object], arguments: tuple[object, ...]
) -> None:
    assert (
        digest_before(method, said) == hashlib.sha256(repr((method, arguments)).encode()).digest()
    )
    assert digest_before(method, {**said, "added_later": ""}) == digest_before(method, said)
    assert digest_before(method, {**said, "added_later": "x"}) is None
