"""What survives a restart, in one SQLite file: sessions, subscribers, consents, counters of move
keys, answers, secrets.

`Store` writes what is submitted to it in order, with one fsync for all that came during the
last one, and tells when it is durable. `records` has what is stored, `reading` and `writes` the
statements, `migrations` the file's layouts, `files` where it lies and who may have it.
"""

from rtpfanout.store import writes
from rtpfanout.store.files import MEMORY, default_path, state_directory
from rtpfanout.store.interfaces import renumbered_text
from rtpfanout.store.records import (
    KeptClock,
    StoredAnswer,
    StoredConsent,
    StoredDelivery,
    StoredSession,
    StoredSource,
    SubscriberRow,
    SubscriberRun,
    pack_labels,
    runs_of,
    unpack_labels,
)
from rtpfanout.store.submission import STORE_COUNTERS
from rtpfanout.store.writer import Store
from rtpfanout.store.writes import Write

__all__ = [
    "MEMORY",
    "STORE_COUNTERS",
    "KeptClock",
    "Store",
    "StoredAnswer",
    "StoredConsent",
    "StoredDelivery",
    "StoredSession",
    "StoredSource",
    "SubscriberRow",
    "SubscriberRun",
    "Write",
    "default_path",
    "pack_labels",
    "renumbered_text",
    "runs_of",
    "state_directory",
    "unpack_labels",
    "writes",
]
