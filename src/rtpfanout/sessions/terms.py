"""What a session is told to be: its terms, and how they follow from each other."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rtpfanout.errors import AlreadyExistsError, PermissionDeniedError
from rtpfanout.model import Address, Consent, SourcePolicy
from rtpfanout.policy import SOURCE_FIELD
from rtpfanout.sessions import fields
from rtpfanout.sessions.source import network_of_one

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rtpfanout.sessions.source import Source


LARGEST_LIMIT_BPS = 2**63 - 1  # as the store has it
LARGEST_COUNT = 2**31 - 1

Key = tuple[int, bytes, int, int, int]
"""(SSRC, 16 bytes, scope, port, prefix): no two sessions may have the same."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What UpdateSession can change: replaced as a whole, so that readers see one or the other."""

    source: Source
    pinned: Address | None = None
    latch_until: float = 0.0
    """Of LATCH: until when the first packet may pin the source; seconds since the epoch."""
    paused: bool = False
    ingest_limit_bps: int = 0
    max_subscribers: int = 0
    consent: Consent = Consent.NONE
    move_key: bytes = b""
    move_counter: int = 0
    """Of the last signed move that was accepted."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def feeder(self) -> Address | None:
        """The one address that packets come from, if there is only one."""
        return self.source.address or self.pinned

    def key(self, ssrc: int) -> Key:
        """What no other session may have."""
        if (exact := self.feeder) is not None:
            return ssrc, exact.packed, exact.scope, exact.port, -1
        network = self.source.network
        if network is None:
            return ssrc, bytes(16), 0, 0, -2
        base = Address(network.network_address, 0)
        offset = 96 if network.version == 4 else 0
        return ssrc, base.packed, base.scope, 0, offset + network.prefixlen

    @property
    def source_scopes(self) -> set[int]:
        """The indexes of the interfaces that its link-local addresses are of."""
        return {address.scope for address in (self.source.base, self.pinned) if address} - {0}


def moved(terms: Terms, address: Address) -> Terms:
    """`terms` with a source that signed its move to `address`.

    Raises PermissionDeniedError: a network doesn't move, and `address` is outside.
    """
    source = terms.source
    if source.policy is SourcePolicy.EXACT:
        return replace(terms, source=replace(source, text=str(address), address=address))
    if source.policy is SourcePolicy.IP:
        network = network_of_one(address.ip)
        return replace(terms, source=replace(source, text=str(address.ip), network=network))
    if source.policy is SourcePolicy.LATCH:
        return replace(terms, pinned=address)
    if not source.admits(address):
        raise PermissionDeniedError(
            f"{address} is outside {source.text}, and a source_policy of cidr stays there",
            field=SOURCE_FIELD,
        )
    return terms


def read_limits(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of Terms that are read alike by CreateSession and UpdateSession."""
    readers: dict[str, Callable[[Any], object]] = {
        "paused": bool,
        "ingest_limit_bps": lambda v: fields.whole(v, "ingest_limit_bps", LARGEST_LIMIT_BPS),
        "max_subscribers": lambda v: fields.whole(v, "max_subscribers", LARGEST_COUNT),
        "consent": fields.consent_of,
        "move_key": fields.move_key_of,
    }
    return {name: reader(values[name]) for name, reader in readers.items() if name in values}


def latch_terms(source: Source, wall_secs: float) -> dict[str, Any]:
    """Of a source that is new: nobody is pinned, and the window begins."""
    is_latch = source.policy is SourcePolicy.LATCH
    return {
        "pinned": None,
        "latch_until": wall_secs + source.latch_window_secs if is_latch else 0.0,
    }


def engine_source(terms: Terms) -> tuple[Address | None, dict[str, Any]]:
    """The arguments of Engine.move_session."""
    source, pinned = terms.source, terms.pinned
    if source.policy is not SourcePolicy.LATCH:
        return source.base, {"prefix": source.prefix}
    if pinned is None:
        return source.base, {"prefix": source.prefix, "latch": True}
    if not source.relatch_after_ns:
        return pinned, {}
    assert source.prefix is not None
    return pinned, {
        "relatch_after_ns": source.relatch_after_ns,
        "relatch": (source.base, source.prefix),
    }


def source_taken(ssrc: int, terms: Terms) -> AlreadyExistsError:
    """To be raised."""
    source = terms.feeder or terms.source.text or "anybody"
    return AlreadyExistsError(
        f"a session with SSRC {ssrc:#010x} from {source} exists", field="ssrc"
    )
