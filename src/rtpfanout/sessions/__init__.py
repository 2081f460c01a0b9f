"""Sessions: the rules about them (`manager`), how they look from outside (`views`)."""

from rtpfanout.model import EventKind
from rtpfanout.sessions.admission import LARGEST_BATCH
from rtpfanout.sessions.changes import ChangeLog
from rtpfanout.sessions.describing import description, title_of
from rtpfanout.sessions.event_watch import Begin, watch_events
from rtpfanout.sessions.events import Event, EventLog, Wanted
from rtpfanout.sessions.fields import LARGEST_PAGE, label_selector_of, matches, page_size
from rtpfanout.sessions.guests import Guest, Guests, Place
from rtpfanout.sessions.history import APART_SECONDS, Figures, Moment
from rtpfanout.sessions.housekeeping import Housekeeping
from rtpfanout.sessions.knocks import Knock
from rtpfanout.sessions.manager import SessionManager
from rtpfanout.sessions.names import which
from rtpfanout.sessions.overview import Glance, Overview
from rtpfanout.sessions.rules import Limits
from rtpfanout.sessions.signals import MoveTarget, Signals
from rtpfanout.sessions.state import SCOPE
from rtpfanout.sessions.terms import shown_terms
from rtpfanout.sessions.tokens import JOIN_SECRET
from rtpfanout.sessions.views import (
    LatencySummary,
    SessionStats,
    SessionView,
    SubscriberState,
    SubscriberView,
)
from rtpfanout.sessions.watching import EventType, WatchEvent, watch

__all__ = [
    "APART_SECONDS",
    "JOIN_SECRET",
    "LARGEST_BATCH",
    "LARGEST_PAGE",
    "SCOPE",
    "Begin",
    "ChangeLog",
    "Event",
    "EventKind",
    "EventLog",
    "EventType",
    "Figures",
    "Glance",
    "Guest",
    "Guests",
    "Housekeeping",
    "Knock",
    "LatencySummary",
    "Limits",
    "Moment",
    "MoveTarget",
    "Overview",
    "Place",
    "SessionManager",
    "SessionStats",
    "SessionView",
    "Signals",
    "SubscriberState",
    "SubscriberView",
    "Wanted",
    "WatchEvent",
    "description",
    "label_selector_of",
    "matches",
    "page_size",
    "shown_terms",
    "title_of",
    "watch",
    "watch_events",
    "which",
]
