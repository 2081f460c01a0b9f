"""Who of a batch is there, and on which terms."""

from __future__ import annotations

import pytest
from fastpath.engines import engine, local

from rtpfanout.model import Address


def test_find_subscribers() -> None:
    e = engine(max_sessions=1, max_subscribers=9)
    handle = e.add_session(Address.parse("192.0.2.1:5000"), 1, 1)
    one, two, three = (Address.parse(f"127.0.0.1:{port}").record for port in (1, 2, 3))
    assert e.find_subscribers(handle, b"") == []
    assert e.find_subscribers(handle, one) == [None]
    e.add_subscribers(handle, one, 1, lease_until=7, subscriber_class=0, withheld=1)
    e.add_subscribers(handle, two, 2)
    assert e.find_subscribers(handle, one) == [(7, 0, 1)]
    found = e.find_subscribers(handle, two + three + one + two)
    assert found == [(0, 2, 0), None, (7, 0, 1), (0, 2, 0)]
    mapped = Address.parse("[2001:db8::1]:1").record  # the socket has no such names
    assert e.find_subscribers(handle, mapped) == [None]
    assert e.find_subscribers(handle, mapped + one) == [None, (7, 0, 1)]
    with pytest.raises(ValueError, match="bytes"):
        e.find_subscribers(handle, one[:-1])
    e.remove_session(handle)
    with pytest.raises(KeyError):
        e.find_subscribers(handle, one)


def test_rows_of_many_sessions() -> None:
    e = engine(max_subscribers=3)
    first, second = (e.add_session(local(n), 7, 1) for n in (1, 2))
    five, six, seven = (local(n).record for n in (5, 6, 7))
    rows = [
        (1, 0, 0, 2, 10, five, 0),
        (1, 0, 0, 2, 12, six, 0),
        (1, 0, 0, 1, 11, seven, 0),
        (2, 0, 0, 0, 20, five, 0),
        (3, 0, 0, 2, 30, five, 0),  # nobody has that
    ]
    added = e.add_subscriber_rows({1: first, 2: second}, rows, 0)
    assert added == ([(1, 3, 12), (2, 1, 20)], [])
    assert e.find_subscribers(first, five + six + seven) == [(0, 2, 0), (0, 2, 0), (0, 1, 0)]
    assert [row[1] for row in e.subscribers(first, 0, 9)] == [10, 11, 12]
    assert e.find_subscribers(second, five + six) == [(0, 0, 0), None]
    assert e.add_subscriber_rows({}, [], 0) == ([], [])
    with pytest.raises(BlockingIOError):
        e.add_subscriber_rows({1: first}, [(1, 0, 0, 2, 40, local(9).record, 0)], 0)
    with pytest.raises(ValueError, match="a row has one record"):
        e.add_subscriber_rows({2: second}, [(2, 0, 0, 2, 40, five + six, 0)], 0)


def test_rows_with_leases() -> None:
    e = engine()
    first, second = (e.add_session(local(n), 7, 1) for n in (1, 2))
    records = [local(n).record for n in range(5, 11)]
    offset = -(10**18)  # it is a monotonic time that the engine has
    ends = [None, 5 * 10**9, 5 * 10**9 + 10**9 // 2, 1, 2**62, 5 * 10**9]
    rows = [
        (1 if n < 5 else 2, 0, 0 if end is None else end - offset, 2, 10 + n, record, 0)
        for n, (end, record) in enumerate(zip(ends, records, strict=True))
    ]
    added, leases = e.add_subscriber_rows({1: first, 2: second}, rows, offset)
    assert added == [(1, 5, 14), (2, 1, 15)]
    assert leases == [(1, 5), (1, 6), (1, 1), (1, 2**32 - 1), (2, 5)]
    found = e.find_subscribers(first, b"".join(records[:5]))
    assert found == [(until, 2, 0) for until in (0, 5, 6, 1, 2**32 - 1)]
    assert e.find_subscribers(second, records[5]) == [(5, 2, 0)]
