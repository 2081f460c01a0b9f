"""Join tokens: what they say, and which requests for one are refused."""

from __future__ import annotations

import math
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from managers import MOMENT, SOURCE, Clock, engine_of, manager_of

from rtpfanout import signed
from rtpfanout._fastpath import stamp_claims
from rtpfanout.errors import InvalidArgumentError, NotFoundError
from rtpfanout.model import SubscriberClass
from rtpfanout.sessions import tokens
from rtpfanout.store import MEMORY, Store

SESSION = str(uuid.UUID(int=9))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
SECRET = b"s" * 32


def issue(**request):
    text, expires_at = tokens.issue(SECRET, SESSION, NOW, **request)
    return signed.Token.parse(text), expires_at


def test_the_defaults_are_an_hour_and_half_a_minute():
    token, expires_at = issue()
    assert expires_at == NOW + timedelta(hours=1)
    assert token.claims.session_id == SESSION
    assert token.claims.expires_ms == (NOW + timedelta(hours=1)).timestamp() * 1000
    assert token.claims.lease_ms == 30_000
    assert token.claims.subscriber_class is SubscriberClass.MONITOR
    assert token.key == signed.token_key(SECRET, token.claims.packed)


def test_a_token_bears_a_stamp_that_only_its_secret_makes():
    packed = issue()[0].claims.packed
    key = signed.stamp_key(SECRET)
    assert stamp_claims(key, packed) == packed
    assert stamp_claims(signed.stamp_key(b"t" * 32), packed) != packed
    for position in (*range(20), *range(24, 40)):
        changed = bytearray(packed)
        changed[position] ^= 1
        assert stamp_claims(key, bytes(changed)) != changed


def test_each_token_is_another():
    (one, _), (other, _) = issue(), issue()
    assert one.claims.token_id != other.claims.token_id


def test_what_is_asked_for_is_claimed():
    token, expires_at = issue(ttl_secs=90.5, lease_secs=2.5, subscriber_class="pilot")
    assert expires_at == NOW + timedelta(seconds=90.5)
    assert token.claims.lease_ms == 2500
    assert token.claims.subscriber_class is SubscriberClass.PILOT


@pytest.mark.parametrize("field", ["ttl_secs", "lease_secs"])
@pytest.mark.parametrize("value", [-1, 0.5, 30 * 86_400 + 1, math.nan, math.inf, -math.inf])
def test_seconds_out_of_range_are_refused(field, value):
    with pytest.raises(InvalidArgumentError, match="0 stands for") as caught:
        issue(**{field: value})
    assert caught.value.field == field


def test_an_unknown_class_is_refused():
    with pytest.raises(InvalidArgumentError, match="pilot, recorder or monitor") as caught:
        issue(subscriber_class="vip")
    assert caught.value.field == "subscriber_class"


def test_a_token_is_of_a_session_there_is_and_of_the_stores_secret():
    with engine_of() as engine, Store(MEMORY) as store:
        manager = manager_of(engine, Clock(), store)
        session_id = manager.create(SOURCE, 1, "video").session_id
        text, expires_at = manager.issue_join_token(session_id.upper(), lease_secs=5)
        token = signed.Token.parse(text)
        assert token.claims.session_id == session_id
        assert expires_at == (MOMENT + timedelta(hours=1)).replace(microsecond=678_000)
        assert token.key == signed.token_key(store.secret(tokens.JOIN_SECRET), token.claims.packed)
        with pytest.raises(NotFoundError):
            manager.issue_join_token(SESSION)
