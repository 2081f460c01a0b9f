"""A session as the manager keeps it, and what may be going on with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtpfanout.model import Condition

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from rtpfanout.model import Address, MediaType
    from rtpfanout.sessions.terms import Terms


@dataclass(slots=True, eq=False)
class Session:
    """What the engine does not keep; everything changes under the state's lock."""

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
    timed_since_ns: int = 0
    """Since when its idle timeout is the one it is; monotonic."""
    condition: Condition = Condition.NEVER_FED
    condition_since_ns: int = 0
    """Monotonic."""
    is_active: bool = False
    """Whether it was so when that was last looked at."""
    followed: int = 0
    """As `engine_followed` makes it: which SSRC its source sent last, where one is followed."""
    revision: int = 0
    subscribers: int = 0
    refused: int = 0
    """How many of its subscribers the configuration refuses."""
    last_since: int = 0
    """The `since` of the latest subscriber: it grows strictly along the list."""
    at_ingress_port: bool = False
    """Whether it has, or had, a subscriber with the port of our own ingress."""
    # Who is at work on it. An exclusive call waits for the shared ones, and these wait for it;
    # shared calls that name the same subscriber wait for each other.
    shared: int = 0
    exclusive: bool = False
    waiting: int = 0
    claimed: set[bytes] = field(default_factory=set)
    next_feeder: Address | None = None
    """The source it is about to get: no subscriber may have it."""

    @property
    def name(self) -> str:
        """Empty: it has none."""
        return self.terms.name

    @property
    def labels(self) -> Mapping[str, str]:
        """By key."""
        return self.terms.labels
