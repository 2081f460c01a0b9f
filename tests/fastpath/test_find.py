"""Who of a batch is there, and on which terms."""

from __future__ import annotations

import pytest

from rtpfanout._fastpath import Engine
from rtpfanout.model import Address


def test_find_subscribers() -> None:
    engine = Engine(
        Address.parse("127.0.0.1:0"), max_sessions=1, max_subscribers=9, receive_queue_packets=64
    )
    handle = engine.add_session(Address.parse("192.0.2.1:5000"), 1, 1)
    one, two, three = (Address.parse(f"127.0.0.1:{port}").record for port in (1, 2, 3))
    assert engine.find_subscribers(handle, b"") == []
    assert engine.find_subscribers(handle, one) == [None]
    engine.add_packed_subscribers(handle, one, 1, lease_until=7, subscriber_class=0, withheld=1)
    engine.add_packed_subscribers(handle, two, 2)
    assert engine.find_subscribers(handle, one) == [(7, 0, 1)]
    found = engine.find_subscribers(handle, two + three + one + two)
    assert found == [(0, 2, 0), None, (7, 0, 1), (0, 2, 0)]
    mapped = Address.parse("[2001:db8::1]:1").record  # the socket has no such names
    assert engine.find_subscribers(handle, mapped) == [None]
    assert engine.find_subscribers(handle, mapped + one) == [None, (7, 0, 1)]
    with pytest.raises(ValueError, match="bytes"):
        engine.find_subscribers(handle, one[:-1])
    engine.remove_session(handle)
    with pytest.raises(KeyError):
        engine.find_subscribers(handle, one)
