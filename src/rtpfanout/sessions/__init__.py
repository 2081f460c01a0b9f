"""Sessions: the rules about them (`manager`), how they look from outside (`views`)."""

from rtpfanout.sessions.admission import LARGEST_BATCH
from rtpfanout.sessions.manager import DEFAULT_PAGE, LARGEST_PAGE, SessionManager
from rtpfanout.sessions.views import (
    LatencySummary,
    SessionLatency,
    SessionStats,
    SessionView,
    SubscriberView,
)

__all__ = [
    "DEFAULT_PAGE",
    "LARGEST_BATCH",
    "LARGEST_PAGE",
    "LatencySummary",
    "SessionLatency",
    "SessionManager",
    "SessionStats",
    "SessionView",
    "SubscriberView",
]
