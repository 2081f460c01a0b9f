"""Which session has which move key, and the highest counter that each key has signed.

A move names its session by SSRC and key, so no two sessions of one SSRC get the same key. (A
store of an earlier version may have such: nobody moves them until one has another key.) The
counter belongs to SSRC and key, which is what the MAC is about: it outlives the session, a change
of its key and a restart, for what was sniffed could be sent again to whoever has them next.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import AlreadyExistsError
from rtpfanout.seldom import Seldom

if TYPE_CHECKING:
    from rtpfanout.sessions.terms import Terms
    from rtpfanout.store import StoredSession

_log = structlog.stdlib.get_logger(__name__)

MOST_KEPT = 65_536
"""Counters of keys that no session has. By number and not by age: a move is refused by its time
half a minute later anyhow, unless this host's clock was set back, and then no age is right."""
IDENTITY_BYTES = 16  # as the store has them
_LABEL = b"rtpfanout move counter"


def identity_of(ssrc: int, move_key: bytes) -> bytes:
    """What tells SSRC and key from all others, and is no key."""
    digest = hmac.digest(move_key, _LABEL + (ssrc & 0xFFFFFFFF).to_bytes(4), "sha256")
    return digest[:IDENTITY_BYTES]


class MoveKeys:
    """The state's lock is held throughout."""

    def __init__(self, most_kept: int = MOST_KEPT) -> None:
        self._most_kept = most_kept
        self._shared = Seldom(10)
        self._holders: dict[bytes, list[str]] = {}
        self._kept: dict[bytes, int] = {}  # of keys without a holder, the oldest first

    def restore(self, counters: Iterable[tuple[bytes, int]], rows: Iterable[StoredSession]) -> None:
        """What the store has, before any of its sessions takes its key by `take_again`.

        A version that didn't know the counters of keys has left them with its sessions.
        """
        self._kept = dict(counters)
        for row in rows:
            if row.move_key:
                identity = identity_of(row.ssrc, row.move_key)
                self._kept[identity] = max(row.move_counter, self._kept.get(identity, 0))

    def holders(self, ssrc: int, move_key: bytes) -> Sequence[str]:
        """The ids of the sessions that have SSRC and key: more than one by `take_again` alone."""
        return self._holders.get(identity_of(ssrc, move_key), ()) if move_key else ()

    def take(self, session_id: str, ssrc: int, terms: Terms) -> int:
        """The counter that a session with the key of `terms` begins at.

        Raises AlreadyExistsError.
        """
        if not terms.move_key:
            return 0
        identity = identity_of(ssrc, terms.move_key)
        if identity in self._holders:
            raise AlreadyExistsError(
                f"another session with SSRC {ssrc:#010x} has this move_key, so a signed move would"
                " not tell which it means; give each its own key",
                field="move_key",
            )
        self._holders[identity] = [session_id]
        return self._kept.pop(identity, 0)

    def take_again(self, session_id: str, ssrc: int, terms: Terms) -> int:
        """The same for a session of the store, which has the key whoever has it, too."""
        if not terms.move_key:
            return 0
        identity = identity_of(ssrc, terms.move_key)
        self._holders.setdefault(identity, []).append(session_id)
        return max(terms.move_counter, self._kept.get(identity, 0))

    def reached(self, ssrc: int, terms: Terms) -> int:
        """The highest counter that the session's key has signed, whichever session had it."""
        kept = self._kept.get(identity_of(ssrc, terms.move_key), 0) if terms.move_key else 0
        return max(terms.move_counter, kept)

    def settle(self) -> list[bytes]:
        """After the last `take_again`: the identities that are forgotten, if there are too many."""
        for identity, held in self._holders.items():
            self._kept.pop(identity, None)
            if len(held) > 1:
                self._shared.write(
                    _log.warning,
                    "stored sessions of one SSRC share a move_key: signed moves of them are refused"
                    " until each has its own",
                    sessions=held[:20],
                )
        return self._forget()

    def give_back(self, session_id: str, ssrc: int, terms: Terms) -> list[bytes]:
        """The session has the key of `terms` no more; the identities that are forgotten for it."""
        if not terms.move_key:
            return []
        identity = identity_of(ssrc, terms.move_key)
        holders = self._holders[identity]
        holders.remove(session_id)
        if counter := max(terms.move_counter, self._kept.pop(identity, 0)):
            self._kept[identity] = counter
        if not holders:
            del self._holders[identity]
        return self._forget()

    def _forget(self) -> list[bytes]:
        excess = max(0, len(self._kept) - self._most_kept)
        free = (identity for identity in self._kept if identity not in self._holders)
        oldest = [identity for identity, _ in zip(free, range(excess), strict=False)]
        for identity in oldest:
            del self._kept[identity]
        return oldest
