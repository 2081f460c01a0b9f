"""What the configuration allows: the address policy, and how many there may be."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtpfanout.overload import OverloadLimits
from rtpfanout.sessions.admission import Admission

if TYPE_CHECKING:
    from rtpfanout.policy import AddressPolicy


@dataclass(frozen=True, slots=True)
class Limits:
    """How many there may be. `sessions` and `fanout` are the engine's too."""

    sessions: int
    fanout: int
    """Subscribers of one session."""
    subscribers: int = sys.maxsize
    subscribers_per_ip: int = 0
    """Subscriptions of one IP address, in all sessions; 0: any number."""
    session_timeout_ns: int = 0
    """0: never."""
    overload: OverloadLimits = field(default_factory=OverloadLimits)
    """While one of its marks is passed nobody new is taken."""
    shed: bool = True
    """Whether subscribers are shed where packets of their session had to be dropped."""


class Rules:
    """Those of today. They change under the state's lock: whoever adds somebody does so by the
    ones before or by the ones after.
    """

    def __init__(self, policy: AddressPolicy, limits: Limits) -> None:
        self.replace(policy, limits)

    def replace(self, policy: AddressPolicy, limits: Limits) -> None:
        """The lock is held."""
        self.policy = policy
        self.admission = Admission(policy)
        self.limits = limits
