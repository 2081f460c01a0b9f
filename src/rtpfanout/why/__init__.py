"""Why sees this viewer nothing? From camera to viewer, what each station on the way says.

Judges what a client was told; asks nobody, and changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtpfanout.why import incoming, outgoing
from rtpfanout.why.finding import Evidence, Fields, Finding, Knocked, Level, Station, feeder

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Evidence",
    "Fields",
    "Finding",
    "Knocked",
    "Level",
    "Station",
    "examine",
    "feeder",
    "found_cause",
]

MOST_SHOWN = 5
"""Subscribers with the same trouble that are listed by their address."""


def examine(evidence: Evidence) -> list[Finding]:
    """In the order in which a packet meets the stations."""
    return [
        *incoming.server(evidence),
        *incoming.session(evidence),
        *incoming.camera(evidence),
        *incoming.reception(evidence),
        *_viewers(evidence),
    ]


def found_cause(findings: list[Finding]) -> bool:
    """Or two, of which one is it."""
    return any(each.level in (Level.CAUSE, Level.EITHER) for each in findings)


def _viewers(e: Evidence) -> Iterator[Finding]:
    there = {each["subscriber_address"]: each for each in e.subscribers}
    if not there or (e.wanted and e.wanted not in there):
        yield outgoing.missing(e)
        return
    before = {each["subscriber_address"]: each for each in e.subscribers_before}
    if e.wanted:
        yield from _viewer(e, there[e.wanted], before.get(e.wanted))
        return
    each = [list(_viewer(e, of, before.get(address))) for address, of in there.items()]
    troubled = [found for found in each if found_cause(found)]
    well = len(each) - len(troubled)
    if well:
        text = f"nothing is wrong with {well} of {len(each)} subscribers, as far as anybody tells"
        yield Finding(Station.SUBSCRIBER, Level.OK, "well", text)
    yield from _merged([finding for found in troubled for finding in found])


def _viewer(e: Evidence, of: Fields, before: Fields | None) -> Iterator[Finding]:
    yield from outgoing.subscriber(e, of)
    yield from outgoing.egress(e, of, before)
    yield from outgoing.reach(of)
    yield from outgoing.report(e, of)


def _merged(findings: list[Finding]) -> Iterator[Finding]:
    """Those of many subscribers that need doing something: one of a kind, with who has it, in the
    words of the first."""
    kinds: dict[tuple[Station, Level, str], list[Finding]] = {}
    for each in findings:
        if each.level in (Level.CAUSE, Level.EITHER):
            kinds.setdefault((each.station, each.level, each.kind), []).append(each)
    for (station, level, kind), alike in kinds.items():
        who = ", ".join(each.about for each in alike[:MOST_SHOWN])
        if len(alike) > MOST_SHOWN:
            who += f" and {len(alike) - MOST_SHOWN} more"
        yield Finding(station, level, kind, f"{who}: {alike[0].text}", alike[0].next)
