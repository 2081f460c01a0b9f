"""Names of sessions: no two have the same, whether they are served or refused.

A name is taken when it is asked of the store, and given back when its session has durably another
or is gone: in between it stands for nothing.
"""

from __future__ import annotations

from typing import Protocol


class Names:
    """Which are taken, and by whom. The state's lock is held throughout."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def holder(self, name: str) -> str | None:
        """The id of the session that has it, or is about to, or has it not quite lost."""
        return self._ids.get(name)

    def take(self, name: str, session_id: str) -> None:
        """For a session that has one, unless it is another's."""
        if name:
            self._ids.setdefault(name, session_id)

    def give_back(self, name: str, session_id: str) -> None:
        """If it is this session's."""
        if self._ids.get(name) == session_id:
            del self._ids[name]


class _Named(Protocol):
    @property
    def session_id(self) -> str: ...
    @property
    def name(self) -> str: ...


def title(session: _Named) -> str:
    """For people: its name, else its id."""
    return session.name or session.session_id


def which(session: _Named) -> dict[str, str]:
    """For a line of the log: its id, and the name if it has one."""
    return {"session_id": session.session_id} | ({"name": session.name} if session.name else {})
