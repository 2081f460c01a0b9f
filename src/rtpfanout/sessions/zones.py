"""Link-local addresses by the name of their interface (RFC 4007 calls its index a zone id).

An address is given with the index. The name is what stays: when an interface is removed and made
anew the addresses of its sessions and subscribers get the new index.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rtpfanout.model import ADDRESS_RECORD, Address
from rtpfanout.sessions.admission import RECORD_BYTES, split_records

if TYPE_CHECKING:
    from rtpfanout.sessions.journal import Journal

_SCOPE = range(16, 20)
"""The bytes of an ADDRESS_RECORD that have it."""


class Zones:
    """The interfaces of which there are, or were, link-local addresses. Guarded by the state's
    lock."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._names: dict[int, str] = {}
        self._spoken_to: dict[tuple[int, bytes], bytes] = {}

    def restore(self, names: Mapping[int, str]) -> None:
        """As the store has them."""
        self._names.update(names)

    def note(self, scopes: Iterable[int]) -> None:
        """Addresses of these were given: the store learns the names before it has those."""
        for scope in scopes:
            with contextlib.suppress(OSError, OverflowError):  # there is no such interface
                name = socket.if_indextoname(scope)
                if self._names.get(scope) != name:
                    self._names[scope] = name
                    self._journal.save_interface(scope, name)

    def moved(self, now: Mapping[str, int]) -> dict[int, int]:
        """Which indexes have become others, since the interfaces have those of `now`."""
        found = {}
        there = {index: name for name, index in now.items()}
        for old, name in list(self._names.items()):
            new = now.get(name)
            if new is None and old in there:  # it was renamed
                self.note([old])
            elif new is not None and new != old:
                found[old] = new
                del self._names[old]
                self.note([new])
        return found

    def spoke_to(self, sequence: int, records: Iterable[bytes], local: bytes) -> None:
        """Subscribers of a session spoke to this address of ours: kept of link-local ones."""
        for record in records:
            if scopes_of(record):
                self._spoken_to[sequence, record] = local

    def spoken_to(self, sequence: int, record: bytes) -> bytes:
        """By a link-local subscriber; empty: by none, or not known."""
        return self._spoken_to.get((sequence, record), b"")

    def forget(self, sequence: int, records: Iterable[bytes] | None = None) -> None:
        """They are subscribers no more; without `records` all of the session."""
        if not self._spoken_to:
            return
        if records is None:
            records = [record for session, record in self._spoken_to if session == sequence]
        for record in records:
            self._spoken_to.pop((sequence, record), None)


def scopes_of(records: bytes) -> set[int]:
    """Of ADDRESS_RECORDs, without 0; about 2 ns each where there are none."""
    if not any(records[at::RECORD_BYTES].strip(b"\0") for at in _SCOPE):
        return set()
    return {ADDRESS_RECORD.unpack(record)[1] for record in split_records(records)} - {0}


def record_in_zone(record: bytes, moved: Mapping[int, int]) -> bytes:
    """The same of an ADDRESS_RECORD."""
    packed, scope, port = ADDRESS_RECORD.unpack(record)
    return ADDRESS_RECORD.pack(packed, moved.get(scope, scope), port)


def in_zone(address: Address, moved: Mapping[int, int]) -> Address:
    """The same address with the index that its interface has now."""
    if address.scope not in moved:
        return address
    return Address.unpack(address.packed, address.port, moved[address.scope], address.spoken_to)
