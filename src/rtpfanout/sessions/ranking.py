"""Sessions in the order in which somebody looks at them: who needs attention, who sends most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtpfanout.model import Condition, SessionStatus

if TYPE_CHECKING:
    from rtpfanout.sessions.overview import Glance

ATTENTION = (
    "refused",
    Condition.FROZEN,
    Condition.SILENT,
    Condition.NO_KEYFRAMES,
    Condition.NO_PARAMETER_SETS,
)
"""States that somebody should look at, the worst first."""
_RANKS = {
    state: rank
    for rank, state in enumerate((*ATTENTION, Condition.NEVER_FED, Condition.FLOWING, "paused"))
}
STATES = ("", "attention", *_RANKS)
_UNKNOWN = -1.0


def state_of(glance: Glance) -> str:
    """Its condition, unless it is paused or refused."""
    if glance.status in (SessionStatus.PAUSED, SessionStatus.REFUSED) or glance.condition is None:
        return glance.status
    return glance.condition


def _by_name(glance: Glance) -> tuple[bool, str]:
    return not glance.name, (glance.name or glance.session_id).casefold()


SORTS: dict[str, Callable[[Glance], Any]] = {
    "name": _by_name,
    "state": lambda g: (_RANKS[state_of(g)], *_by_name(g)),
    "bitrate": lambda g: g.figures.bitrate_bps if g.figures else _UNKNOWN,
    "loss": lambda g: _UNKNOWN if g.lost_lately is None else g.lost_lately,
    "jitter": lambda g: _known(g, "jitter_seconds"),
    "frame_rate": lambda g: _known(g, "frame_rate"),
    "subscribers": lambda g: g.subscribers,
}
"""What sessions are put in order by; the least first."""
LEAST_FIRST = ("name", "state")
"""Of these people want it so, of the others the greatest first."""


def _known(glance: Glance, name: str) -> float:
    value: float | None = getattr(glance.figures, name, None)
    return _UNKNOWN if value is None else value


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sessions; `words`, in lower case, have to be found in what is said of one."""

    words: tuple[str, ...] = ()
    state: str = ""
    """Of STATES."""

    def holds(self, glance: Glance) -> bool:
        """Whether it is one of them."""
        if self.words:
            labels = " ".join(f"{key}={value}" for key, value in glance.labels.items())
            told = f"{glance.name} {glance.session_id} {glance.source} {labels}".casefold()
            if not all(word in told for word in self.words):
                return False
        if not self.state:
            return True
        state = state_of(glance)
        return state in ATTENTION if self.state == "attention" else state == self.state
