"""What the supervisor keeps beside the ingress sockets: those of servers' other ports.

A server says "keep" of a name, with the descriptors, or "give up" of it; one that takes another's
place is told of all by "take". A supervisor that has none of them, as the version before knew none,
says "show": then the server says "keep" of all that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rtpfanout.kept import KeptSockets
from rtpfanout.supervisor.link import MOST_DESCRIPTORS, Link, close_all


class Keeper:
    """`sockets` are descriptors by name."""

    def __init__(self, sockets: Mapping[str, Sequence[int]] | None = None) -> None:
        self.sockets = {name: list(found) for name, found in (sockets or {}).items()}

    def copy(self) -> KeptSockets:
        """For a server that is forked, and has them, too."""
        return KeptSockets(self.sockets)

    def heard(self, message: Mapping[str, Any]) -> bool:
        """Whether that was about them."""
        match message:
            case {"word": "keep", "name": name, "descriptors": descriptors}:
                close_all(self.sockets.pop(name, ()))
                self.sockets[name] = descriptors
            case {"word": "give up", "name": name}:
                close_all(self.sockets.pop(name, ()))
            case _:
                return False
        return True

    def give(self, link: Link) -> str:
        """All to a server that is to take another's place. Why not, or ""."""
        for names in _some(self.sockets):
            shape = {name: len(self.sockets[name]) for name in names}
            descriptors = [each for name in names for each in self.sockets[name]]
            if reason := link.tell_in_time("take", descriptors=descriptors, names=shape):
                return reason
        return ""


def _some(sockets: Mapping[str, Sequence[int]]) -> Iterator[list[str]]:
    """As many as one message can have."""
    names: list[str] = []
    count = 0
    for name, found in sockets.items():
        if count + len(found) > MOST_DESCRIPTORS:
            yield names
            names, count = [], 0
        names.append(name)
        count += len(found)
    if names:
        yield names


def taken(message: Mapping[str, Any]) -> dict[str, list[int]]:
    """By name what came with "take"."""
    descriptors = iter(message.get("descriptors", ()))
    return {
        name: [next(descriptors) for _ in range(count)] for name, count in message["names"].items()
    }


def teller(link: Link) -> Callable[[str, Sequence[int]], str]:
    """How a server says it, see KeptSockets.attach."""

    def tell(name: str, sockets: Sequence[int]) -> str:
        if sockets:
            return link.tell_in_time("keep", descriptors=sockets, name=name)
        return link.tell_in_time("give up", name=name)

    return tell
