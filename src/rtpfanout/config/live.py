"""What a running server can change: which keys, and how two configurations differ."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rtpfanout.config.settings import leaf_fields
from rtpfanout.model import Address

if TYPE_CHECKING:
    from rtpfanout.config.settings import Settings

LIVE_KEYS = frozenset(
    (
        "address_policy.allow",
        "address_policy.deny",
        "drain_secs",
        "ingest_groups",
        "limits.max_subscribers",
        "limits.max_subscribers_per_ip",
        "log.format",
        "log.level",
        "overload.shed",
        "session_timeout_secs",
    )
)
"""For the others a restart is needed, or an upgrade."""


def changed_keys(running: Settings, wanted: Settings) -> tuple[list[str], list[str]]:
    """The keys that differ: those of LIVE_KEYS, and those that need a restart.

    Where any free port is wanted, the one that was found is no difference.
    """
    changed = []
    for key in leaf_fields():
        before, after = attrgetter(key)(running), attrgetter(key)(wanted)
        if before != after and not _is_free_port(before, after):
            changed.append(key)
    return [k for k in changed if k in LIVE_KEYS], [k for k in changed if k not in LIVE_KEYS]


def live_settings(running: Settings, wanted: Settings) -> Settings:
    """`running` with the LIVE_KEYS of `wanted`."""
    updates: dict[str, Any] = {}
    for key in LIVE_KEYS:
        group, _, name = key.rpartition(".")
        if group:
            section = updates.get(group, getattr(running, group))
            value = getattr(getattr(wanted, group), name)
            updates[group] = section.model_copy(update={name: value})
        else:
            updates[name] = getattr(wanted, name)
    return running.model_copy(update=updates)


def _is_free_port(found: object, wanted: object) -> bool:
    if not isinstance(found, Address) or not isinstance(wanted, Address):
        return False
    return wanted.port == 0 and found.ip == wanted.ip
