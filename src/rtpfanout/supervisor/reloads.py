"""Reloads: the supervisor decides what changes, a server applies it, and both then agree."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rtpfanout.config import changed_keys, live_settings

if TYPE_CHECKING:
    from rtpfanout.config import Settings
    from rtpfanout.supervisor.link import Link


@dataclass(frozen=True)
class _Asked:
    before: Settings
    needs_restart: list[str]


class Reloads:
    """`settings` are what the next server gets: those of a reload as soon as they are told."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._asked: deque[_Asked] = deque()

    def ask(self, wanted: Settings, link: Link | None) -> tuple[str, list[str]] | None:
        """Why nothing changes, or "", and the keys that need a restart; None: a server was told.

        Without a server (`link`) the next one has them.
        """
        needs_restart = changed_keys(self.settings, wanted)[1]
        settings = live_settings(self.settings, wanted)
        if link:
            # Whole, so that a server of any version can tell what differs for it.
            values = settings.model_dump(mode="json")
            if reason := link.tell("reload", settings=values, needs_restart=needs_restart):
                return f"the server could not be told: {reason}; try again", []
            self._asked.append(_Asked(self.settings, needs_restart))
        self.settings = settings
        return None if link else ("", needs_restart)

    def applied(self, error: str) -> tuple[str, list[str]]:
        """A server has answered; what to say of that reload, as `ask`."""
        if not self._asked:
            return error, []
        asked = self._asked.popleft()
        if error and not self._asked:
            self.settings = asked.before
        return error, [] if error else asked.needs_restart

    def server_ended(self) -> list[tuple[str, list[str]]]:
        """The next one has it all from its start: what to say of those without an answer."""
        answers = [("", asked.needs_restart) for asked in self._asked]
        self._asked.clear()
        return answers
