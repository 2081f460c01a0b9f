"""Messages of rtnetlink, and questions by the dozen."""

from __future__ import annotations

import errno
import ipaddress
import struct

from hypothesis import given
from hypothesis import strategies as st

from rtpfanout.netlink import ask, attribute, attributes, messages, open_netlink

RTM_NEWROUTE, RTM_GETROUTE, AF_INET, RTA_DST = 24, 26, 2, 1


@given(st.binary(max_size=200))
def test_no_bytes_whatever_confuse_the_reader(noise: bytes) -> None:
    for message in messages(noise):
        assert len(message.body) <= len(noise)
    assert sum(map(len, attributes(noise).values())) <= len(noise)


@given(st.dictionaries(st.integers(0, 65535), st.binary(max_size=40), max_size=6))
def test_attributes_are_read_as_they_are_written(told: dict[int, bytes]) -> None:
    text = b"".join(attribute(kind, value) for kind, value in told.items())
    assert len(text) % 4 == 0
    assert attributes(text) == told


def test_many_questions_are_answered_in_their_order() -> None:
    """Refusals among them: a destination of no family's length."""
    loopback = [ipaddress.IPv4Address(0x7F000001 + number).packed for number in range(50)]
    loopback[7] = b"?"
    header = struct.pack("=BBBBBBBBI", AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
    with open_netlink() as netlink:
        netlink.settimeout(10)
        found = ask(netlink, RTM_GETROUTE, [header + attribute(RTA_DST, to) for to in loopback])
        assert ask(netlink, RTM_GETROUTE, []) == []
    assert found[7].errno in (errno.EINVAL, errno.ERANGE)
    del found[7], loopback[7]
    assert {message.kind for message in found} == {RTM_NEWROUTE}
    assert [attributes(message.body[12:])[RTA_DST] for message in found] == loopback
