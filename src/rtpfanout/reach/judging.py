"""What is to be said of one subscriber, from all that is known of it."""

from __future__ import annotations

import enum
import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.reach.heard import STALE_SECS
from rtpfanout.reach.icmp import Told

if TYPE_CHECKING:
    from rtpfanout.model import Address, IPAddress
    from rtpfanout.reach.heard import Heard
    from rtpfanout.reach.ways import Way

SILENT_AFTER_SECS = 30.0
"""Receivers report every 5 s (RFC 3550 section 6.2), and are gone after five times that (6.3.5)."""
_REFUSALS = {
    errno.ENETUNREACH: "this host has no route there",
    errno.EHOSTUNREACH: "a route of this host says that it is unreachable",
    errno.EACCES: "a route of this host prohibits it",
    errno.EINVAL: "a route of this host is a black hole for it",
}


class State(enum.StrEnum):
    """Whether copies get to a subscriber, as far as anybody tells."""

    UNKNOWN = "unknown"
    REACHABLE = "reachable"
    NO_ARP = "no_arp"
    NO_ROUTE = "no_route"
    PORT_CLOSED = "port_closed"
    SILENT_RECEIVER = "silent_receiver"


class Asked(NamedTuple):
    """A subscriber, and what is known of it beside. `source`: the address of ours that its copies
    leave from, where one is configured."""

    address: Address
    source: IPAddress | None = None
    report_secs: float | None = None
    """Since its last report."""
    echoes: bool = False
    """It has to echo cookies to get copies, and does."""
    idle_secs: float = 0.0
    """Since the session's last packet: nobody says anything while nothing leaves."""
    is_taken: bool = False
    """Copies leave, and the kernel takes them all: it knows a way, be it by another rule."""


class Reached(NamedTuple):
    """`detail` is a sentence; `since_secs`: for how long it has been so, where that is known."""

    state: State
    detail: str = ""
    since_secs: float | None = None


def judge(asked: Asked, way: Way, heard: Heard | None, deafness: str, now: float) -> Reached:
    """The surest comes first: who reports is reached, whatever ICMP or the kernel say.

    `deafness`: why ICMP errors are not heard of, or nothing; `now` as `heard` has it.
    """
    report = asked.report_secs
    if heard and now - heard.last > STALE_SECS + asked.idle_secs:
        heard = None
    if report is not None and report < SILENT_AFTER_SECS:
        if heard is None or now - heard.last > report:
            return Reached(State.REACHABLE, f"it reported {report:.0f} s ago")
    elif asked.echoes:
        return Reached(State.REACHABLE, "it echoes the cookies that it is sent")
    found = (
        _rejected(asked, heard, now)
        or _refused(asked, way)
        or _unanswered(way)
        or _lost_on_the_way(heard, way, now)
    )
    if found:
        return found
    if report is not None and report >= SILENT_AFTER_SECS:
        detail = f"it reported last {report:.0f} s ago: it ended, or nothing gets there or back"
        return Reached(State.SILENT_RECEIVER, detail, report)
    return _untold(asked, way, deafness)


def _rejected(asked: Asked, heard: Heard | None, now: float) -> Reached | None:
    if heard is None or heard.told not in (Told.PORT, Told.FIREWALL):
        return None
    place = "" if heard.by == asked.address.ip else ", on the way,"
    return Reached(State.PORT_CLOSED, _quoted(heard, place, now), now - heard.first)


def _lost_on_the_way(heard: Heard | None, way: Way, now: float) -> Reached | None:
    if heard is None or (way.answers and heard.by == way.own):  # it does answer by now
        return None
    state = State.NO_ARP if heard.told is Told.HOST else State.NO_ROUTE
    place = ", this host," if heard.by == way.own else ", on the way,"
    return Reached(state, _quoted(heard, place, now), now - heard.first)


def _quoted(heard: Heard, place: str, now: float) -> str:
    said = f"{heard.told.value} (last {now - heard.last:.0f} s ago)"
    return f"{heard.by}{place} says by ICMP: {said}"


def _refused(asked: Asked, way: Way) -> Reached | None:
    if not way.refusal or asked.is_taken:
        return None
    return Reached(State.NO_ROUTE, _REFUSALS.get(way.refusal) or os.strerror(way.refusal))


def _unanswered(way: Way) -> Reached | None:
    if way.answers is not False or way.next_hop is None:
        return None
    asking = "ARP" if way.next_hop.version == 4 else "neighbour discovery"
    detail = f"{way.next_hop} does not answer {asking} on {way.interface}"
    return Reached(State.NO_ARP, detail, way.heard_secs)


def _untold(asked: Asked, way: Way, deafness: str) -> Reached:
    """Nobody complains; whether anybody listens is another question."""
    silence = "whether anybody listens at the port nothing tells"
    if deafness:
        silence += f", ICMP neither: {deafness}"
    if way.is_local:
        return Reached(State.REACHABLE, f"an address of this host; {silence}")
    is_on_link = way.next_hop == asked.address.ip
    if way.answers and is_on_link:
        return Reached(State.REACHABLE, f"its host answers on {way.interface}; {silence}")
    if way.answers:
        return Reached(
            State.UNKNOWN, f"the gateway {way.next_hop} on {way.interface} answers; {silence}"
        )
    if way.interface:
        return Reached(State.UNKNOWN, f"it is sent to by {way.interface}; {silence}")
    return Reached(State.UNKNOWN, silence)
