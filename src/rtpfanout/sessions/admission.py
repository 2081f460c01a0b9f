"""Subscribers' addresses by the thousand: read, checked, and packed for the engine.

The plain way of an address (Address.parse, AddressPolicy.check_subscriber, Address.record)
takes about 20 us, nearly all of it in making objects. An IPv4 address that the policy
admits takes about 1 us here; every other goes the plain way, which also says what is wrong.
"""

from __future__ import annotations

import bisect
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from rtpfanout.errors import InvalidArgumentError, RtpFanoutError, Violation
from rtpfanout.model import ADDRESS_RECORD, IPV4_PREFIX, Address
from rtpfanout.policy import SUBSCRIBER_FIELD

if TYPE_CHECKING:
    from rtpfanout.policy import AddressPolicy

LARGEST_BATCH = 1000
BATCH_FIELD = "subscriber_addresses"
_MOST_VIOLATIONS = 20
RECORD_BYTES = ADDRESS_RECORD.size
_HEAD_BYTES = 20  # IP and scope; the port follows
PORT = slice(_HEAD_BYTES, _HEAD_BYTES + 2)
"""Of an ADDRESS_RECORD."""

_Value = TypeVar("_Value")


class Admission:
    """The way in for subscribers under one policy. Thread-safe, as nothing changes."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._ingress_port = policy.ingress.port
        other = 2 if self._ingress_port == 1 else 1
        self._other_port = port_bytes(other) + bytes(2)
        self._no_port, self._own_port = port_bytes(0), port_bytes(self._ingress_port)
        self._starts, self._admitted = policy.ipv4_verdicts()

    def record(self, text: str) -> bytes:
        """The ADDRESS_RECORD of a subscriber to be.

        Raises InvalidArgumentError, AddressDeniedError with field ``subscriber_address``.
        """
        record = self._ipv4_record(text)
        if record is None:
            address = read_address(text, SUBSCRIBER_FIELD)
            self._policy.check_subscriber(address)
            record = address.record
        return record

    def records(self, texts: Sequence[str]) -> bytes:
        """The records of a batch, one behind the other. Raises as `read_batch` does."""
        return b"".join(read_batch(texts, self.record))

    def admitted(self, records: bytes) -> bytes:
        """`records`, if the policy admits all of them; about 0.3 us each.

        Raises InvalidArgumentError, AddressDeniedError about one that it doesn't.
        """
        heads = {records[i : i + _HEAD_BYTES] for i in range(0, len(records), RECORD_BYTES)}
        lowest, highest = min(heads, default=b""), max(heads, default=b"")
        same = self._ipv4_range(lowest)
        if same is None or same != self._ipv4_range(highest) or not self._admitted[same]:
            for head in heads:
                found = self._ipv4_range(head)
                if found is None or not self._admitted[found]:
                    self._policy.check_subscriber(address_of(head + self._other_port))
        for port in (0, self._ingress_port):
            if any_at_port(records, port):  # each address once: it costs 5 us
                own = port_bytes(port)
                for record in {r for r in split_records(records) if r[PORT] == own}:
                    if not self._passes(record):
                        self._policy.check_subscriber(address_of(record))
        return records

    def divide(self, records: bytes) -> tuple[bytes, str]:
        """Those of `records` that the policy admits, and why not the first of the others, or ""."""
        try:
            return self.admitted(records), ""
        except RtpFanoutError:
            pass
        left, reason = [], ""
        for record in split_records(records):
            if self._passes(record):
                left.append(record)
            else:
                reason = reason or self.refusal(record)
        return b"".join(left), reason

    def refusal(self, record: bytes) -> str:
        """Why the policy doesn't admit it; "" if it does."""
        try:
            self._policy.check_subscriber(address_of(record))
        except RtpFanoutError as error:
            return error.message
        return ""

    def _passes(self, record: bytes) -> bool:
        found = self._ipv4_range(record)
        if found is None or record[PORT] == self._no_port:
            return not self.refusal(record)
        if not self._admitted[found]:
            return False
        if record[PORT] != self._own_port:
            return True
        return not self._policy.is_own_ingress_ipv4(record[12:16])

    def _ipv4_range(self, head: bytes) -> int | None:
        """The range of addresses decided alike that an IPv4 address is in; None for others."""
        if head[:12] != IPV4_PREFIX:
            return None
        return bisect.bisect_right(self._starts, head[12:16]) - 1

    def _ipv4_record(self, text: str) -> bytes | None:
        """None if it is not, or perhaps not, an IPv4 address that may be a subscriber."""
        host, _, digits = text.rpartition(":")
        if not (digits.isdigit() and digits.isascii() and len(digits) <= 5):
            return None
        port = int(digits)
        if not 0 < port <= 65535 or port == self._ingress_port or port in self._policy.side_ports:
            return None
        try:
            ip = socket.inet_pton(socket.AF_INET, host)
        except (OSError, ValueError):  # ValueError: a NUL inside
            return None
        if not self._admitted[bisect.bisect_right(self._starts, ip) - 1]:
            return None
        return ADDRESS_RECORD.pack(IPV4_PREFIX + ip, 0, port)


def port_bytes(port: int) -> bytes:
    """As it stands at PORT of an ADDRESS_RECORD."""
    return port.to_bytes(2, sys.byteorder)


def any_at_port(records: bytes, port: int) -> bool:
    """Whether one of `records` has that port; about 2 ns each."""
    low, high = port_bytes(port)
    lows, highs = records[_HEAD_BYTES::RECORD_BYTES], records[_HEAD_BYTES + 1 :: RECORD_BYTES]
    at = lows.find(low)
    while at >= 0:
        if highs[at] == high:
            return True
        at = lows.find(low, at + 1)
    return False


def split_records(records: bytes) -> list[bytes]:
    """One by one."""
    return [records[i : i + RECORD_BYTES] for i in range(0, len(records), RECORD_BYTES)]


def address_of(record: bytes) -> Address:
    """The address in an ADDRESS_RECORD."""
    packed, scope, port = ADDRESS_RECORD.unpack(record)
    return Address.unpack(packed, port, scope)


def read_address(text: str, field: str) -> Address:
    """Raises InvalidArgumentError about `field`."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise InvalidArgumentError(str(error), field=field) from None


def read_batch(texts: Sequence[str], read: Callable[[str], _Value]) -> list[_Value]:
    """`read` of each of 1 to LARGEST_BATCH addresses.

    Raises InvalidArgumentError if one is malformed, else what `read` raised first, with a
    violation for each of the first refused ones, such as ``subscriber_addresses[17]``.
    """
    if not 0 < len(texts) <= LARGEST_BATCH:
        raise InvalidArgumentError(
            f"there are {len(texts)} addresses; give 1 to {LARGEST_BATCH} in a call",
            field=BATCH_FIELD,
        )
    values: list[_Value] = []
    faults: list[tuple[int, RtpFanoutError]] = []
    for index, text in enumerate(texts):
        try:
            values.append(read(text))
        except RtpFanoutError as error:
            faults.append((index, error))
    if faults:
        raise _batch_error(faults, len(texts))
    return values


def _batch_error(faults: list[tuple[int, RtpFanoutError]], count: int) -> RtpFanoutError:
    violations = tuple(
        Violation(f"{BATCH_FIELD}[{index}]", error.message)
        for index, error in faults[:_MOST_VIOLATIONS]
    )
    message = violations[0].message
    if len(faults) > 1:
        message = f"{len(faults)} of {count} addresses are refused; the first: {message}"
    kinds = [type(error) for _index, error in faults]
    kind = InvalidArgumentError if InvalidArgumentError in kinds else kinds[0]
    return kind(message, field=violations[0].field, violations=violations)
