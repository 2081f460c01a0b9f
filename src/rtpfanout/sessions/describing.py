"""What a player is to hear of sessions, as SDP: what was told of them, and what came."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rtpfanout import sdp
from rtpfanout.errors import InvalidArgumentError, NotKnownError
from rtpfanout.model import RTCP, Address, Rtcp
from rtpfanout.sessions import fields
from rtpfanout.sessions.state import Part

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.model import MediaType
    from rtpfanout.sessions.record import Session

MOST_PARTS = 32
MOST_TYPES = 5
"""Payload types that a session's reception knows of."""
LONGEST_WAIT_SECS = 60.0
KEPT_OUT = ("latching", "wrong_source")
"""Reasons of drops that the operator undoes, by a command that is printed for him."""
LOOK_SECS = 0.05


Heard = tuple[str, str]
"""A session, as requests say it, and the address where its packets are to be heard."""


@dataclass(frozen=True, slots=True)
class Description:
    """`text` is the SDP, `notes` what who opens it may have to wait for; while there are some,
    asking again may be answered better."""

    text: str
    notes: tuple[str, ...] = ()


def with_sdp(given: Mapping[str, Any], media_type: MediaType) -> tuple[int, dict[str, Any]]:
    """The SSRC that an SDP among the terms `given` names, or 0, and the terms that it stands for.

    Raises InvalidArgumentError.
    """
    terms = dict(given)
    text = terms.pop("sdp", "")
    if not text:
        return 0, terms
    if any(terms.get("encoding", {}).values()):
        raise InvalidArgumentError("give encoding or sdp, not both", field="sdp")
    section, encoding = fields.section_of(text, media_type)
    sealed = {"srtp": True} if section.is_encrypted else {}
    return section.ssrc or 0, terms | sealed | {"encoding": asdict(encoding)}


@dataclass(eq=False, slots=True)
class Describing(Part):
    """What is known of sessions, for those who are to hear them."""

    def describe(self, parts: Sequence[Heard]) -> Description | NotKnownError:
        """Of one or several sessions. The error: of which nobody knows yet what they carry.

        Raises InvalidArgumentError, NotFoundError.
        """
        if not 1 <= len(parts) <= MOST_PARTS:
            raise InvalidArgumentError(
                f"{len(parts)} sessions, not 1 to {MOST_PARTS}", field="others"
            )
        streams, notes, titles = [], [], []
        for number, (session_id, address) in enumerate(parts):
            try:
                title, stream, missing = self.stream(session_id, _address(address, number))
            except NotKnownError as error:
                return error
            titles.append(title)
            streams.append(stream)
            notes += [f"{title}: {missing}"] if missing else []
        bound = self.engine.bound.ip
        origin = None if bound.is_unspecified else bound
        now = int(self.clock.wall_secs())
        return Description(sdp.write(title_of(titles), origin, now, streams), tuple(notes))

    def stream(self, session_id: str, to: Address) -> tuple[str, sdp.Stream, str]:
        """What a session is called, what is known of it, and what is missing of that, or "".

        Raises InvalidArgumentError, NotFoundError, RefusedError, NotKnownError.
        """
        with self.state.found(session_id) as session:
            title = session.terms.name or session.session_id
            now = self.clock.monotonic_ns()
            return (title, *_stream(session, title, to, self.engine, now))


async def description(
    ask: Callable[[], Description | NotKnownError], wait_secs: float
) -> Description:
    """What `ask` answers as soon as nothing is missing of it, or after that long.

    Raises what `ask` does, InvalidArgumentError, NotKnownError.
    """
    until = time.monotonic() + fields.seconds(wait_secs, "wait_secs", LONGEST_WAIT_SECS)
    while True:
        found = ask()
        is_whole = isinstance(found, Description) and not found.notes
        if not is_whole and time.monotonic() < until:
            await asyncio.sleep(LOOK_SECS)
        elif isinstance(found, Description):
            return found
        else:
            raise found


def _address(text: str, number: int) -> Address:
    field = "subscriber_address" if number == 0 else f"others[{number - 1}].subscriber_address"
    try:
        address = Address.parse(text)
    except ValueError as error:
        raise InvalidArgumentError(str(error), field=field) from None
    if address.port == 0:
        raise InvalidArgumentError(f"{address} has port 0, where nobody listens", field=field)
    return address


def _stream(
    session: Session, title: str, to: Address, engine: Engine, now_ns: int
) -> tuple[sdp.Stream, str]:
    """And what is missing of it, or "". Raises NotKnownError."""
    terms = session.terms
    came = engine.session_reception(session.handle, now_ns)
    encoding = terms.encoding or (sdp.Encoding(came["encoding"]) if came["encoding"] else None)
    if encoding is None and came["payload_type"] is None:
        if why := _kept_out(engine.session_stats(session.handle, now_ns)):
            raise NotKnownError(f"{title}: {why}")
        raise _unknown(title, "no packet has come yet, which would tell what it carries")
    if encoding is None:
        raise NotKnownError(
            f"{title}: its packets don't tell yet what they carry, as most do with their next"
            " keyframe; wait longer, or tell by --sdp or --encoding of `rtpfanout session update`"
        )
    payload_type = came["payload_type"] if encoding.payload_type is None else encoding.payload_type
    if payload_type is None:
        raise _unknown(title, "no packet has come yet, which would tell its payload type")
    clock_rate = encoding.usual_clock_rate or came["clock_rate"]
    if not clock_rate:
        raise _unknown(title, f"the clock of its {encoding.name} is not known")
    (rtcp,) = engine.find_rtcp(session.handle, to.record)
    stream = sdp.Stream(
        to,
        sdp.completed(encoding, payload_type, clock_rate),
        payload_type,
        engine.parameter_sets(session.handle),
        came["bitrate_bps"],
        is_encrypted=terms.srtp,
        has_mux=RTCP[rtcp] is Rtcp.MUX,
    )
    return stream, _missing(stream, came)


def _kept_out(stats: Mapping[str, float]) -> str:
    """Why those that came were not let in, or ""."""
    for reason in KEPT_OUT:
        if count := int(stats[f"dropped_{reason}"]):
            return (
                f"none of its packets was let in, and {count} were dropped as {reason};"
                " `rtpfanout knocks` has the command that lets them in"
            )
    return ""


def _missing(stream: sdp.Stream, came: Mapping[str, Any]) -> str:
    """Of what a player needs besides, or ""."""
    types = came["payload_types"]
    if not types:
        return "no packet has come yet"
    if stream.payload_type not in types and len(types) < MOST_TYPES:
        listed = ", ".join(map(str, types))
        return f"its packets have payload type {listed}, and not {stream.payload_type} as was told"
    if stream.is_encrypted:
        return ""  # nobody sees what comes
    if stream.lacks_parameter_sets:
        return "no parameter sets have come yet: players wait for the next ones"
    if came["keyframes"] == 0:
        return "no keyframe has come yet: players show nothing before the next one"
    return ""


def _unknown(title: str, why: str) -> NotKnownError:
    return NotKnownError(
        f"{title}: {why}; start its source, or tell by --sdp or --encoding of"
        " `rtpfanout session update`",
    )


def title_of(titles: Sequence[str]) -> str:
    """What they have in common, up to a "/"."""
    return os.path.commonpath(titles) or titles[0]
