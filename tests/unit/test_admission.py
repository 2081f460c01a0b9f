"""Batches of subscribers' addresses: the quick way in decides as the plain one does."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtpfanout.errors import AddressDeniedError, InvalidArgumentError, RtpFanoutError
from rtpfanout.model import ADDRESS_RECORD, Address
from rtpfanout.policy import AddressPolicy
from rtpfanout.sessions import LARGEST_BATCH
from rtpfanout.sessions.admission import Admission, read_batch

if TYPE_CHECKING:
    from collections.abc import Sequence

INGEST = Address.parse("198.51.100.1:5004")


def policy_of(
    allow: Sequence[str] = (), deny: Sequence[str] = (), *, sends_ipv4: bool = True
) -> AddressPolicy:
    return AddressPolicy(
        INGEST,
        sends_ipv4,
        True,
        tuple(map(ipaddress.ip_network, allow)),
        tuple(map(ipaddress.ip_network, deny)),
        False,
        lambda _ip: False,
    )


POLICIES = [
    policy_of(),
    policy_of(sends_ipv4=False),
    policy_of(deny=["10.0.0.0/8", "192.0.2.7/32"]),
    policy_of(allow=["10.0.0.0/8", "127.0.0.0/30"], deny=["10.1.0.0/16"]),
    policy_of(allow=["0.0.0.0/0", "239.1.0.0/16"]),
    policy_of(allow=["::ffff:10.0.0.0/104"]),
]
ADMISSIONS = [(policy, Admission(policy)) for policy in POLICIES]

near_a_boundary = st.tuples(
    st.sampled_from([start for _p, a in ADMISSIONS for start in a._starts]), st.integers(-2, 2)
).map(lambda pair: str(ipaddress.IPv4Address((int.from_bytes(pair[0]) + pair[1]) % 2**32)))
hosts = near_a_boundary | st.ip_addresses(v=4).map(str)
ports = st.integers(0, 70_000).map(str) | st.sampled_from(["5004", "0", "00080", "+5", "5_0", "٣"])
endpoints = st.tuples(hosts, ports).map(":".join)


def outcome(policy: AddressPolicy, text: str) -> bytes | type[RtpFanoutError]:
    """By the plain way."""
    try:
        address = Address.parse(text)
        policy.check_subscriber(address)
    except ValueError:
        return InvalidArgumentError
    except RtpFanoutError as error:
        return type(error)
    return address.record


@given(endpoints | st.text())
@example("127.0.0.1:9")
@example("1.2.3.4:5004")
@example("01.2.3.4:9")
@example("1.2.3:9")
@example("1.2.3.4\x00:9")
@example("1.2.3.4: 9")
@example("[1.2.3.4]:9")
@example("[2001:db8::1]:9")
@example("[::ffff:1.2.3.4]:9")
@example("[fe80::1%2]:9")
@example(":9")
def test_the_quick_way_decides_as_the_plain_one(text: str) -> None:
    for policy, admission in ADMISSIONS:
        expected = outcome(policy, text)
        if isinstance(expected, bytes):
            assert admission.record(text) == expected
        else:
            with pytest.raises(expected) as error:
                admission.record(text)
            assert error.value.field == "subscriber_address"


def test_ordinary_addresses_take_the_quick_way() -> None:
    admission = Admission(policy_of())
    for text in ("10.1.2.3:6000", "192.0.2.1:1", "203.0.113.9:65535"):
        assert admission._ipv4_record(text) == Address.parse(text).record


def test_a_batch_is_its_records_in_order() -> None:
    texts = ["10.0.0.1:1", "[2001:db8::1]:2", "10.0.0.1:1"]
    records = Admission(policy_of()).records(texts)
    read = [ADDRESS_RECORD.unpack_from(records, 24 * i) for i in range(3)]
    assert [str(Address.unpack(ip, port, scope)) for ip, scope, port in read] == texts


def test_each_fault_is_named_by_its_place() -> None:
    texts = ["10.0.0.1:1", "x", "224.0.0.1:5", "10.0.0.1:0"]
    with pytest.raises(InvalidArgumentError) as error:
        Admission(policy_of()).records(texts)
    assert [violation.field for violation in error.value.violations] == [
        "subscriber_addresses[1]",
        "subscriber_addresses[2]",
        "subscriber_addresses[3]",
    ]
    assert error.value.field == "subscriber_addresses[1]"
    assert error.value.message.startswith("3 of 4 addresses are refused; the first: 'x' is not")
    assert error.value.violations[2].message.startswith("10.0.0.1:0 has port 0")


def test_denied_addresses_alone_are_a_denial() -> None:
    with pytest.raises(AddressDeniedError) as error:
        Admission(policy_of()).records(["10.0.0.1:1", "224.0.0.1:5"])
    assert error.value.field == "subscriber_addresses[1]"
    assert error.value.message.startswith("224.0.0.1:5 is multicast")


def test_no_more_than_twenty_faults_are_named() -> None:
    with pytest.raises(InvalidArgumentError) as error:
        Admission(policy_of()).records(["x"] * 100)
    assert len(error.value.violations) == 20
    assert error.value.message.startswith("100 of 100 ")


@pytest.mark.parametrize("count", [0, LARGEST_BATCH + 1])
def test_a_batch_has_bounds(count: int) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        read_batch(["10.0.0.1:1"] * count, Address.parse)
    assert error.value.field == "subscriber_addresses"
    assert str(LARGEST_BATCH) in error.value.message
    assert len(read_batch(["10.0.0.1:1"] * LARGEST_BATCH, Address.parse)) == LARGEST_BATCH


@given(st.lists(st.tuples(hosts, st.sampled_from([1, 5003, 5004, 5005])), max_size=6))
def test_records_are_admitted_as_their_texts_are(endpoints: list[tuple[str, int]]) -> None:
    texts = [f"{host}:{port}" for host, port in endpoints]
    records = [Address.parse(text).record for text in texts]
    for policy, admission in ADMISSIONS:
        expected = [isinstance(outcome(policy, text), bytes) for text in texts]
        admitted = b"".join(
            r for r, is_admitted in zip(records, expected, strict=True) if is_admitted
        )
        left, reason = admission.divide(b"".join(records))
        assert (left, not reason) == (admitted, all(expected))
        if all(expected):
            assert admission.admitted(b"".join(records)) == b"".join(records)
        else:
            with pytest.raises(RtpFanoutError):
                admission.admitted(b"".join(records))


def test_a_port_of_ours_beside_the_main_one_is_none_either() -> None:
    rules = dataclasses.replace(policy_of(), side_ports=frozenset({6000}))
    for check in (rules.check_source, rules.check_subscriber):
        with pytest.raises(AddressDeniedError, match="own ingest"):
            check(Address.parse("198.51.100.1:6000"))
        check(Address.parse("198.51.100.1:6001"))
        check(Address.parse("192.0.2.1:6000"))
    with pytest.raises(AddressDeniedError, match="own ingest"):
        Admission(rules).record("198.51.100.1:6000")
    assert Admission(rules).record("192.0.2.1:6000")
