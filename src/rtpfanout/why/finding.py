"""What was seen, and what each station on the way from camera to viewer says of it."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rtpfanout.model import LatchScope

Fields = Mapping[str, Any]
"""A message of session.proto by its field names; an optional field that is absent is None."""


def feeder(session: Fields) -> str:
    """Who may feed it: where a latch pins any port of an address, that came first is no matter."""
    pinned: str = session["pinned_source"]
    if pinned and session["latch_scope"] == LatchScope.IP:
        return pinned.rpartition(":")[0].strip("[]")
    return pinned or str(session["source_address"])


class Level(enum.StrEnum):
    """`CAUSE`: this keeps the picture away, or breaks it. `EITHER`: one of two does, and which one
    can't be told from here. `NOTE`: worth knowing."""

    OK = "ok"
    NOTE = "note"
    EITHER = "either"
    CAUSE = "cause"


class Station(enum.StrEnum):
    """In the order in which a packet meets them."""

    SERVER = "server"
    SESSION = "session"
    CAMERA = "camera"
    RECEPTION = "reception"
    SUBSCRIBER = "subscriber"
    EGRESS = "egress"
    REACH = "reach"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind` names it for programs, `text` is a sentence. `next` are commands or, where none helps,
    what to do in words. `about`: the subscriber's address."""

    station: Station
    level: Level
    kind: str
    text: str
    next: tuple[str, ...] = ()
    about: str = ""


class Knocked(NamedTuple):
    """A Knock, the command that would admit it, and whether it came meanwhile."""

    knock: Fields
    admit_by: str
    sends: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was asked of a server twice, `seconds` apart: how much a counter has grown is what goes
    on now. `knocks` is None for who may not know them."""

    session: Fields
    before: Fields
    after: Fields
    seconds: float
    subscribers_before: Sequence[Fields] = ()
    subscribers: Sequence[Fields] = ()
    wanted: str = ""
    """The subscriber that is asked about; empty: all are."""
    knocks: Sequence[Knocked] | None = ()
    earlier: Fields | None = None
    """The same as `before`, from before that: what a full queue dropped is missing in a session's
    numbering only when its next packet comes."""

    @property
    def name(self) -> str:
        """As a command names the session."""
        return str(self.session["name"] or self.session["session_id"])

    def grown(self, field: str) -> int:
        """By how much a counter of the session has."""
        return _grown(self.before, self.after, field)

    def grown_in(self, part: str, field: str) -> int:
        """The same of a message in it; 0 where that is absent."""
        before, after = self.before[part], self.after[part]
        return _grown(before, after, field) if before and after else 0

    @property
    def dropped_lately(self) -> int:
        """Packets that the receive queue had no room for, a moment before `before` included."""
        first = (self.earlier or self.before)["server"]
        last = self.after["server"]
        return _grown(first, last, "kernel_receive_drops") if first and last else 0

    @property
    def flows(self) -> bool:
        """Packets were admitted meanwhile."""
        return self.grown("packets_received") > 0


def _grown(before: Fields, after: Fields, field: str) -> int:
    """Not less than nothing: the server may have begun anew."""
    return max(0, int(after[field] or 0) - int(before[field] or 0))


def share(part: float, whole: float) -> str:
    """``3.1 %``."""
    return f"{100 * part / whole:.2g} %" if whole else "0 %"
