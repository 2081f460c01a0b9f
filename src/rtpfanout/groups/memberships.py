"""Joins the groups that are configured, and looks again: interfaces come, go and come back."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import structlog

from rtpfanout.model import Address

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.groups.kernel import Kernel, Place
    from rtpfanout.multicast import IngestGroup, IPAddress

_REMEDIES = {
    errno.ENOBUFS: "raise net.ipv4.igmp_max_memberships, net.ipv4.igmp_max_msf or "
    "net.ipv6.mld_max_msf",
    errno.ENODEV: "the interface needs an address of the group's family",
}
_log = structlog.stdlib.get_logger(__name__)


class Memberships:
    """What an engine has joined. `joined` tells of each configured group, as text, whether it is.

    Thread-safe. Sockets keep what they have joined over a crash or an upgrade, so each look
    compares with what the host has joined, and leaves what nobody wants any more.
    """

    def __init__(self, engine: Engine, groups: Iterable[IngestGroup], kernel: Kernel) -> None:
        self._engine = engine
        self._kernel = kernel
        self._groups = tuple(dict.fromkeys(groups))
        self._lock = threading.Lock()
        self._ours: dict[Place, frozenset[IPAddress]] = {}  # empty: of any source
        self._indexes: dict[IngestGroup, int] = {}  # of its interface, as last found
        self._faults: dict[str, str] = {}  # by entry; "": it is joined

    @property
    def joined(self) -> Mapping[str, bool]:
        """Each configured group, and whether it is joined, as the last look found."""
        return {entry: self._faults.get(entry) == "" for entry in map(str, self._groups)}

    def reconfigure(self, groups: Iterable[IngestGroup]) -> None:
        """Other groups are wanted from now on."""
        with self._lock:
            self._groups = tuple(dict.fromkeys(groups))
        self.look()

    def look(self) -> None:
        """Housekeeping: joins what isn't joined, or not any more. It raises nothing for that."""
        with self._lock:
            faults: dict[str, str] = {}
            wanted = self._places(faults)
            if self._groups:
                self._engine.take_groups_of_others(False)
            present = self._kernel.joined()
            for place in (present or set()) | set(self._ours):
                if place not in wanted:
                    self._leave(place)
            for place, (sources, entries) in wanted.items():
                is_there = present is None or place in present
                if fault := self._join(place, sources, is_there=is_there):
                    faults |= dict.fromkeys(entries, fault)
            if not self._groups:
                self._engine.take_groups_of_others(True)
            self._tell(faults)

    def _places(
        self, faults: dict[str, str]
    ) -> dict[Place, tuple[frozenset[IPAddress], list[str]]]:
        """Where to join what, from which sources, for which entries."""
        found: dict[Place, tuple[frozenset[IPAddress], list[str]]] = {}
        for entry in self._groups:
            index = self._index_for(entry)
            if index is None:
                faults[str(entry)] = (
                    f"there is no interface {entry.interface}"
                    if entry.interface
                    else f"no route to it: name the interface, as in {entry.group}%eth0"
                )
                continue
            place = entry.group, index
            sources = frozenset([entry.source] if entry.source else [])
            if place in found:
                others, entries = found[place]
                # Of any source is more than of some.
                sources = sources | others if sources and others else frozenset()
                entries.append(str(entry))
                found[place] = (sources, entries)
            else:
                found[place] = (sources, [str(entry)])
        return found

    def _index_for(self, entry: IngestGroup) -> int | None:
        """Of its interface; as before where that can't be found out for now."""
        try:
            if entry.interface:
                index = self._kernel.interface_index(entry.interface)
            else:
                index = self._kernel.route_interface(entry.group)
        except OSError as error:
            _log.warning("interfaces can't be read", group=str(entry), reason=str(error))
            return self._indexes.get(entry)
        if index is not None:
            self._indexes[entry] = index
        return index

    def _join(self, place: Place, sources: frozenset[IPAddress], *, is_there: bool) -> str:
        """ "", or why it can't be joined."""
        if is_there and self._ours.get(place) == sources:
            return ""
        if not is_there:  # the interface is another one, of the same number
            self._leave(place)
        group, index = place
        try:
            addresses = [Address(source, 0) for source in sorted(sources, key=str)]
            self._engine.join_group(Address(group, 0), addresses, index)
        except OSError as error:
            remedy = _REMEDIES.get(error.errno or 0, "")
            return f"{error.strerror}{': ' if remedy else ''}{remedy}"
        self._ours[place] = sources
        return ""

    def _leave(self, place: Place) -> None:
        group, index = place
        self._ours.pop(place, None)
        try:
            was_joined = self._engine.leave_group(Address(group, 0), index)
        except OSError as error:
            was_joined = False
            if error.errno not in (errno.ENODEV, errno.EINVAL, errno.ENOPROTOOPT):
                raise
        if was_joined:
            _log.info("ingest group left", group=str(group), interface_index=index)

    def _tell(self, faults: dict[str, str]) -> None:
        now = {entry: faults.get(entry, "") for entry in map(str, self._groups)}
        for entry, fault in now.items():
            if fault == self._faults.get(entry):
                continue
            if fault:
                _log.warning("ingest group can't be joined yet", group=entry, reason=fault)
            else:
                _log.info("ingest group joined", group=entry)
        self._faults = now
