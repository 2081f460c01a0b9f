"""What requests say a session shall be, as its terms."""

from __future__ import annotations

from dataclasses import fields as each_field
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.model import LatchScope, SourcePolicy
from rtpfanout.sessions.source import Source, read_source
from rtpfanout.sessions.terms import HOW, OF_SOURCE, Terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rtpfanout.policy import AddressPolicy


def new_terms(given: Mapping[str, Any], policy: AddressPolicy, wall_secs: float) -> Terms:
    """Of a session to be, from what CreateSessionRequest says of them.

    Raises TypeError (a name it doesn't have), InvalidArgumentError, what the address policy raises.
    """
    _refuse_unknown(given, [name for name, how in HOW.items() if how.at_creation])
    source = read_source(
        given.get("source_policy", ""),
        given.get("source_address", ""),
        given.get("latch_window_secs", 0.0),
        given.get("relatch_after_secs", 0.0),
        policy,
    )
    read = {name: how.read(given[name]) for name, how in HOW.items() if name in given}
    return _agreeing(Terms(source=source, **latch_terms(source, wall_secs), **read))


def changed_terms(
    terms: Terms, given: Mapping[str, Any], policy: AddressPolicy, wall_secs: float
) -> Terms:
    """`terms` with what UpdateSessionRequest says. Raises as `new_terms`."""
    _refuse_unknown(given, HOW)
    read: dict[str, Any] = {}
    for name, how in HOW.items():
        if name in given:
            value = given[name]
            read[name] = how.change(getattr(terms, name), value) if how.change else how.read(value)
    named = [name for name in OF_SOURCE if name in given]
    if not named:
        return _agreeing(replace(terms, **read))
    before = terms.source
    kind = given.get("source_policy", before.policy.value) or SourcePolicy.EXACT.value
    is_latch = kind == SourcePolicy.LATCH
    source = read_source(
        kind,
        given.get("source_address", before.text),
        given.get("latch_window_secs", before.latch_window_secs if is_latch else 0),
        given.get("relatch_after_secs", before.relatch_after_secs if is_latch else 0),
        policy,
    )
    if named != ["relatch_after_secs"] or not is_latch:  # else whoever is pinned stays so
        read |= latch_terms(source, wall_secs)
    if not is_latch:
        read.setdefault("latch_scope", LatchScope.ADDRESS)
    return _agreeing(replace(terms, source=source, **read))


def _agreeing(terms: Terms) -> Terms:
    """As they are. Raises InvalidArgumentError: one excludes another."""
    if terms.latch_scope is LatchScope.IP and terms.source.policy is not SourcePolicy.LATCH:
        raise InvalidArgumentError(
            "ip, but only source_policy latch has it; source_policy ip admits any port of an"
            " address that is known",
            field="latch_scope",
        )
    if terms.srtp and terms.check_padding:
        raise InvalidArgumentError(
            "true, but with srtp the padding is encrypted; leave it out", field="check_padding"
        )
    if terms.srtp and terms.repair_source:
        raise InvalidArgumentError(
            "true, but with srtp the source takes no RTCP that it can't decrypt; leave it out",
            field="repair_source",
        )
    return terms


def _refuse_unknown(given: Mapping[str, Any], known: Iterable[str]) -> None:
    if unknown := given.keys() - {*OF_SOURCE, *known}:
        raise TypeError(f"unknown terms of a session: {', '.join(sorted(unknown))}")


def said_terms(given: Mapping[str, Any]) -> dict[str, Any]:
    """As a request id stands for them: what may be absent counts where it is empty, too."""
    optional = {each.name for each in each_field(Terms) if each.metadata and each.default is None}
    return {name: [value] if name in optional else value for name, value in given.items()}


def latch_terms(source: Source, wall_secs: float) -> dict[str, Any]:
    """Of a source that is new: nobody is pinned, and the window begins."""
    is_latch = source.policy is SourcePolicy.LATCH
    return {
        "pinned": None,
        "latch_until": wall_secs + source.latch_window_secs if is_latch else 0.0,
    }
