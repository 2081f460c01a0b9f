"""A session as the manager keeps it, and what may be going on with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtpfanout.model import Consent, MediaType

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from rtpfanout.model import Address
    from rtpfanout.sessions.source import Source


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

    @property
    def source_scopes(self) -> set[int]:
        """The indexes of the interfaces that its link-local addresses are of."""
        return {address.scope for address in (self.source.base, self.pinned) if address} - {0}


@dataclass(slots=True, eq=False)
class Session:
    """What the engine does not keep; everything changes under the registry's lock."""

    session_id: str
    sequence: int
    handle: int
    ssrc: int
    media_type: MediaType
    created_at: datetime
    created_ns: int
    """Monotonic; before 0 where the host started since."""
    created_wall_ns: int
    """Of the store's time."""
    terms: Terms
    fed_since_ns: int = 0
    """Since when its source is the one it is, and not paused; monotonic."""
    revision: int = 0
    subscribers: int = 0
    refused: int = 0
    """How many of its subscribers the configuration refuses."""
    last_since: int = 0
    """The `since` of the latest subscriber: it grows strictly along the list."""
    at_ingest_port: bool = False
    """Whether it has, or had, a subscriber with the port of our own ingest."""
    # Who is at work on it. An exclusive call waits for the shared ones, and these wait for it;
    # shared calls that name the same subscriber wait for each other.
    shared: int = 0
    exclusive: bool = False
    waiting: int = 0
    claimed: set[bytes] = field(default_factory=set)
    next_feeder: Address | None = None
    """The source it is about to get: no subscriber may have it."""
