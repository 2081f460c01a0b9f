"""Roles, identities, and what a request becomes when its caller is confined."""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtpfanout.errors import PermissionDeniedError
from rtpfanout.model import LABEL, REQUEST_ID, Pairs

READING = frozenset(
    (
        "GetSession",
        "ListSessions",
        "GetSessionStats",
        "ListSubscribers",
        "GetSubscriberSdp",
        "WatchSessions",
        "WatchEvents",
        "TopSessions",
    )
)
SUBSCRIBING = frozenset(
    (
        "AddSubscriber",
        "RemoveSubscriber",
        "BatchAddSubscribers",
        "BatchRemoveSubscribers",
        "IssueJoinToken",
        "RequestKeyframe",
    )
)
OPERATING = frozenset(("CreateSession", "UpdateSession", "DeleteSession", "ListKnocks"))
LISTS = frozenset(("ListSessions", "WatchSessions", "WatchEvents", "TopSessions"))
"""Calls about all sessions that a selector has."""
UNCONFINED = frozenset(("ListKnocks",))
"""Calls about what belongs to no session."""


class Role(enum.StrEnum):
    """What an identity may call; each may do what those before it may."""

    VIEWER = "viewer"
    SUBSCRIBER = "subscriber"
    OPERATOR = "operator"
    ADMIN = "admin"


_ALLOWED = {
    Role.VIEWER: READING,
    Role.SUBSCRIBER: READING | SUBSCRIBING,
    Role.OPERATOR: READING | SUBSCRIBING | OPERATING,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. `scope` are labels that a session must have to be theirs; empty: all are."""

    name: str
    role: Role
    scope: Pairs = ()
    expires: float = math.inf
    """Seconds since the epoch."""

    def may(self, method: str) -> bool:
        """Whether the role lets it make this call."""
        return self.role is Role.ADMIN or method in _ALLOWED[self.role]


ANYBODY = Identity("anonymous", Role.ADMIN)
"""Where neither tokens nor certificates are asked for."""
LOCAL = Identity("local", Role.ADMIN)
"""Who can open the Unix socket."""


def scope_of(labels: object) -> Pairs | None:
    """Sorted pairs of a mapping of label keys to label values; None if it isn't one.

    They have to be spelt as a session's labels are: a comma in one would make two of it where
    selectors are read.
    """
    if not isinstance(labels, dict):
        return None
    parts = (part for pair in labels.items() for part in pair)
    if not all(isinstance(part, str) and LABEL.fullmatch(part) for part in parts):
        return None
    return tuple(sorted(labels.items()))


def confine(identity: Identity, method: str, request: Any) -> None:
    """Makes `request` one of this identity's alone. Raises PermissionDeniedError.

    Its request ids are its own. Lists and watches see its own sessions, and what it creates is
    one of them. A single session is looked for by the manager, which has the scope as well.
    """
    if not identity.may(method):
        raise PermissionDeniedError(f"the role {identity.role} may not call {method}")
    _own_request_id(identity, request)
    if not identity.scope:
        return
    if method in UNCONFINED:
        raise PermissionDeniedError(
            f"you are confined to the label {identity.scope[0][0]}, and what {method} tells is"
            " nobody's yet"
        )
    if method in LISTS:
        scope = ",".join(f"{key}={value}" for key, value in identity.scope)
        request.label_selector = ",".join(filter(None, (request.label_selector, scope)))
    elif method == "CreateSession":
        _keep_labels(identity, request.labels)
        for key, value in identity.scope:
            request.labels[key] = value
    elif method == "UpdateSession":
        _keep_labels(identity, request.labels)


def _own_request_id(identity: Identity, request: Any) -> None:
    """Nobody is answered what another was, or has an id taken away by another."""
    if identity in (ANYBODY, LOCAL):
        return
    given = getattr(request, "request_id", "")
    if REQUEST_ID.fullmatch(given):  # others are refused in the words of the manager
        told = repr((identity.name, identity.scope, given))
        request.request_id = hashlib.sha256(told.encode()).hexdigest()


def _keep_labels(identity: Identity, labels: Mapping[str, str]) -> None:
    for key, value in identity.scope:
        if key in labels and labels[key] != value:
            raise PermissionDeniedError(
                f"the label {key} must stay {value}: you are confined to it", field="labels"
            )
