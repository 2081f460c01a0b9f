"""Control datagrams: every one reads back as built, and no changed one passes.

RTPFANOUT_FUZZ=full runs 10^6 examples of each property.
"""

from __future__ import annotations

import contextlib
import os
import re
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpfanout import signed
from rtpfanout.model import SubscriberClass
from rtpfanout.signed import Answer, Claims, Join, Kind, Move, Reason, Token
from rtpfanout.traffic import rtp

EXAMPLES = 1_000_000 if os.environ.get("RTPFANOUT_FUZZ") == "full" else 300

many = settings(max_examples=EXAMPLES)
u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
nonces = st.binary(min_size=8, max_size=8)
cookies = st.binary(min_size=24, max_size=24)
keys = st.binary(min_size=32, max_size=32)
move_keys = st.binary(min_size=16, max_size=64)
claims = st.builds(
    Claims,
    session_id=st.uuids().map(str),
    token_id=st.binary(min_size=8, max_size=8),
    lease_ms=st.integers(1, 2**32 - 1),
    expires_ms=u64,
    subscriber_class=st.sampled_from(SubscriberClass),
)
tokens = st.builds(Token, claims, keys)

PARSERS = {
    Kind.MOVE: Move.parse,
    Kind.HELLO: signed.parse_hello,
    Kind.CHALLENGE: signed.parse_challenge,
    Kind.ECHO: signed.parse_echo,
    Kind.JOIN: Join.parse,
    Kind.LEAVE: Join.parse,
    Kind.ACK: Answer.parse,
    Kind.DENY: Answer.parse,
}
A_TOKEN = Token(
    Claims(str(uuid.UUID(int=7)), b"12345678", 30_000, 2**41, SubscriberClass.PILOT), b"k" * 32
)
SAMPLES = {
    Kind.MOVE: signed.build_move(b"m" * 16, ssrc=1, counter=2, time_ms=3),
    Kind.HELLO: signed.build_hello(b"nonce..."),
    Kind.CHALLENGE: signed.build_challenge(b"nonce...", b"c" * 24),
    Kind.ECHO: signed.build_echo(b"nonce...", b"c" * 24),
    Kind.JOIN: signed.build_join(A_TOKEN, nonce=b"nonce..."),
    Kind.LEAVE: signed.build_join(A_TOKEN, nonce=b"nonce...", cookie=b"c" * 24, leave=True),
    Kind.ACK: signed.build_answer(b"k" * 32, b"nonce...", lifetime_ms=5, cookie=b"c" * 24),
    Kind.DENY: signed.build_answer(b"k" * 32, b"nonce...", reason=Reason.LIMIT),
}


@many
@given(key=move_keys, ssrc=u32, counter=u64, time_ms=u64)
def test_a_move_reads_back_as_built(key, ssrc, counter, time_ms):
    move = Move.parse(signed.build_move(key, ssrc=ssrc, counter=counter, time_ms=time_ms))
    assert (move.ssrc, move.counter, move.time_ms) == (ssrc, counter, time_ms)
    assert move.key_id == signed.move_key_id(key)
    assert move.is_signed_with(key)
    assert not move.is_signed_with(key[:-1] + bytes([key[-1] ^ 1]))


@many
@given(nonce=nonces, cookie=cookies)
def test_hello_challenge_and_echo_read_back_as_built(nonce, cookie):
    assert signed.parse_hello(signed.build_hello(nonce)) == nonce
    assert signed.parse_challenge(signed.build_challenge(nonce, cookie)) == (nonce, cookie)
    assert signed.parse_echo(signed.build_echo(nonce, cookie)) == (nonce, cookie)


@many
@given(token=tokens, nonce=nonces, cookie=cookies, leave=st.booleans())
def test_a_token_and_a_join_read_back_as_built(token, nonce, cookie, leave):
    assert Token.parse(str(token)) == token
    join = Join.parse(signed.build_join(token, nonce=nonce, cookie=cookie, leave=leave))
    assert join.kind is (Kind.LEAVE if leave else Kind.JOIN)
    assert (join.nonce, join.cookie, join.claims) == (nonce, cookie, token.claims)
    assert join.packed_claims == token.claims.packed
    assert join.is_signed_with(token.key)
    assert token.key not in join.signed + join.mac, "the key itself never travels"


@many
@given(
    key=st.one_of(keys, cookies, move_keys),
    nonce=nonces,
    reason=st.none() | st.sampled_from(Reason),
    lifetime_ms=u32,
    cookie=cookies,
)
def test_an_answer_reads_back_as_built(key, nonce, reason, lifetime_ms, cookie):
    data = signed.build_answer(key, nonce, reason=reason, lifetime_ms=lifetime_ms, cookie=cookie)
    answer = Answer.parse(data)
    assert answer.reason is reason
    assert (answer.nonce, answer.lifetime_ms, answer.cookie) == (nonce, lifetime_ms, cookie)
    assert answer.is_signed_with(key)


@many
@given(kind=st.sampled_from(Kind), position=st.integers(0, 127), change=st.integers(1, 255))
def test_no_changed_byte_passes(kind, position, change):
    data = bytearray(SAMPLES[kind])
    data[position % len(data)] ^= change
    if kind in (Kind.HELLO, Kind.CHALLENGE, Kind.ECHO):
        return  # what they carry is for the reader of the cookie; test_a_cookie has that
    key = b"m" * 16 if kind is Kind.MOVE else b"k" * 32
    try:
        parsed = PARSERS[kind](bytes(data))
    except ValueError:
        return
    assert not parsed.is_signed_with(key)


@many
@given(data=st.binary(max_size=200) | st.binary(max_size=120).map(signed.MAGIC.__add__))
def test_any_bytes_are_read_or_refused_with_a_reason(data):
    for parse in PARSERS.values():
        with contextlib.suppress(ValueError):
            parse(data)
            assert len(data) == signed.LENGTHS[signed.kind_of(data)]


@many
@given(kind=st.sampled_from(Kind), tail=st.binary(max_size=120), header=st.binary(max_size=3))
def test_bytes_behind_a_good_header_are_read_or_refused(kind, tail, header):
    data = (signed.MAGIC + bytes([kind]) + header.ljust(3, b"\0") + tail)[: signed.LENGTHS[kind]]
    for parse in PARSERS.values():
        with contextlib.suppress(ValueError):
            parse(data)


@pytest.mark.parametrize("kind", Kind)
def test_every_length_but_the_right_one_is_refused(kind):
    sample = SAMPLES[kind]
    assert len(sample) == signed.LENGTHS[kind]
    assert signed.kind_of(sample) is kind
    for length in range(len(sample) + 8):
        if length != len(sample):
            with pytest.raises(ValueError, match=r"bytes|begin"):
                PARSERS[kind]((sample + bytes(8))[:length])


@pytest.mark.parametrize("kind", Kind)
def test_no_kind_passes_for_another(kind):
    for other, parse in PARSERS.items():
        if parse != PARSERS[kind]:
            with pytest.raises(ValueError, match="is no"):
                parse(SAMPLES[kind])
        if signed.LENGTHS[other] == signed.LENGTHS[kind] and other is not kind:
            # The type is under the MAC: a LEAVE is no JOIN with another byte.
            relabelled = SAMPLES[kind][:4] + bytes([other]) + SAMPLES[kind][5:]
            try:
                parsed = parse(relabelled)
            except ValueError:
                continue
            if not isinstance(parsed, tuple | bytes):
                assert not parsed.is_signed_with(b"k" * 32)


@pytest.mark.parametrize("kind", Kind)
def test_reserved_bytes_and_versions_are_refused(kind):
    for position in (0, 3, 5, 6, 7):
        data = bytearray(SAMPLES[kind])
        data[position] ^= 0x80
        with pytest.raises(ValueError, match=r"zero|begin|Reason"):
            PARSERS[kind](bytes(data))


def test_padding_and_reserved_bytes_within_are_zero():
    for kind, position in ((Kind.HELLO, 16), (Kind.HELLO, 39), (Kind.ECHO, 40), (Kind.ACK, 20)):
        data = bytearray(SAMPLES[kind])
        data[position] = 1
        with pytest.raises(ValueError, match="zero"):
            PARSERS[kind](bytes(data))
    for position in (0, 1, 2, 3):
        packed = bytearray(A_TOKEN.claims.packed)
        packed[position] ^= 0x80
        with pytest.raises(ValueError, match="version"):
            Claims.unpack(bytes(packed))


def test_no_answer_is_longer_than_what_it_answers():
    for asked, answers in {
        Kind.HELLO: (Kind.CHALLENGE,),
        Kind.ECHO: (Kind.CHALLENGE, Kind.ACK, Kind.DENY),
        Kind.JOIN: (Kind.CHALLENGE, Kind.ACK, Kind.DENY),
        Kind.LEAVE: (Kind.CHALLENGE, Kind.ACK, Kind.DENY),
        Kind.MOVE: (Kind.ACK, Kind.DENY),
    }.items():
        for answer in answers:
            assert signed.LENGTHS[answer] <= signed.LENGTHS[asked]
    assert max(signed.LENGTHS.values()) <= 96, "the engine hands on no longer ones"


def test_no_control_datagram_is_rtp():
    for sample in SAMPLES.values():
        with pytest.raises(ValueError, match="version"):
            rtp.parse(sample)


@many
@given(text=st.text(max_size=110) | st.text(max_size=100).map(signed.TOKEN_PREFIX.__add__))
def test_any_text_is_no_token_and_says_why(text):
    with pytest.raises(ValueError, match=r"token|claims|lease"):
        Token.parse(text)


@many
@given(token=tokens, position=st.integers(0, 95), letter=st.characters())
def test_a_changed_token_is_refused_or_another_token(token, position, letter):
    text = str(token)
    place = len(signed.TOKEN_PREFIX) + position
    changed = text[:place] + letter + text[place + 1 :]
    try:
        parsed = Token.parse(changed)
    except ValueError:
        return
    assert str(parsed) == changed, "one token has one spelling"
    assert (parsed == token) == (changed == text)


def test_tokens_are_url_safe_and_keep_their_key_out_of_tracebacks():
    assert re.fullmatch(r"[A-Za-z0-9_-]{101}", str(A_TOKEN))
    assert "kkkk" not in repr(A_TOKEN)
    for text in (str(A_TOKEN) + "=", str(A_TOKEN)[:-1], str(A_TOKEN) + " ", str(A_TOKEN)[1:]):
        with pytest.raises(ValueError, match="token"):
            Token.parse(text)


def test_key_of_a_token_depends_on_all_claims_and_the_secret():
    packed = A_TOKEN.claims.packed
    key = signed.token_key(b"s" * 32, packed)
    assert len(key) == signed.TOKEN_KEY_BYTES
    assert signed.token_key(b"t" * 32, packed) != key
    for position in range(len(packed)):
        changed = bytearray(packed)
        changed[position] ^= 1
        assert signed.token_key(b"s" * 32, bytes(changed)) != key


def test_builders_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="8 bytes"):
        signed.build_hello(b"short")
    with pytest.raises(ValueError, match="24 bytes"):
        signed.build_echo(b"nonce...", b"short")
    with pytest.raises(ValueError, match="40 bytes"):
        Claims.unpack(b"short")
