"""The cookies of a server: whose they are, from when, and what changed ones are worth."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpfanout import signed
from rtpfanout._fastpath import make_cookie, stamp_claims
from rtpfanout.doorman.cookies import KEY_BYTES, ServerCookies
from rtpfanout.model import Address

HERE = Address.parse("192.0.2.1:4000")
keys = st.binary(min_size=KEY_BYTES, max_size=KEY_BYTES)
addresses = st.builds(
    Address.unpack, st.binary(min_size=16, max_size=16), st.integers(0, 65535), st.just(0)
)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@given(key=keys, address=addresses, other=addresses, made_us=st.integers(0, 2**64 - 1))
def test_a_cookie_is_of_its_address_key_and_time_only(key, address, other, made_us):
    cookie = make_cookie(key, address, made_us)
    assert len(cookie) == signed.COOKIE_BYTES
    assert cookie[:8] == made_us.to_bytes(8)
    if other != address:
        assert make_cookie(key, other, made_us) != cookie
    beside = Address(address.ip, address.port ^ 1)
    assert make_cookie(key, beside, made_us)[8:] != cookie[8:]
    assert make_cookie(key, address, made_us ^ 1)[8:] != cookie[8:]
    for place in range(KEY_BYTES):
        changed = bytearray(key)
        changed[place] ^= 1
        assert make_cookie(bytes(changed), address, made_us)[8:] != cookie[8:]


def test_a_cookie_of_a_mapped_address_serves_ipv4():
    key = bytes(KEY_BYTES)
    mapped = make_cookie(key, Address.parse("[::ffff:192.0.2.1]:9"), 5)
    assert mapped == make_cookie(key, Address.parse("192.0.2.1:9"), 5)


def test_a_link_local_cookie_is_of_its_interface():
    key = bytes(KEY_BYTES)
    one, two = (make_cookie(key, Address.parse(f"[fe80::1%{n}]:9"), 5) for n in (1, 2))
    assert one != two


@given(place=st.integers(8 * 8, 24 * 8 - 1))
def test_no_bit_of_the_mac_may_differ(place):
    jar = ServerCookies(b"secret", Clock())
    cookie = bytearray(jar.make(HERE))
    assert jar.made_at(bytes(cookie), HERE) == 1_000_000_000
    cookie[place // 8] ^= 1 << place % 8
    assert jar.made_at(bytes(cookie), HERE) is None
    assert jar.made_at(signed.NO_COOKIE, HERE) is None


def test_how_long_it_is_good_for_what_is_asked_of_it():
    clock = Clock()
    jar = ServerCookies(b"secret", clock)
    made_us = jar.made_at(jar.make(HERE), HERE)
    assert made_us is not None
    clock.now += 9.999
    assert jar.is_valid(made_us, 10_000_000)
    assert jar.left_ms(made_us, 10_000_000) == 1
    clock.now += 0.001
    assert not jar.is_valid(made_us, 10_000_000)
    assert jar.left_ms(made_us, 10_000_000) == 0


def test_cookies_are_in_order_and_none_is_of_the_future():
    clock = Clock()
    jar = ServerCookies(b"secret", clock)
    made = [jar.made_at(jar.make(HERE), HERE) for _ in range(100)]
    assert made == list(range(1_000_000_000, 1_000_000_100)), "of one microsecond, as it were"
    later = jar.make(HERE)
    clock.now -= 10
    assert jar.made_at(later, HERE) is None


def test_keys_and_claims_of_another_length_are_refused():
    with pytest.raises(ValueError, match="16 bytes"):
        make_cookie(b"short", HERE, 5)
    with pytest.raises(ValueError, match="40 bytes"):
        stamp_claims(bytes(KEY_BYTES), b"short")
