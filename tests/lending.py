"""Servers that go from test to test: a start takes longer than most tests do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support import ServerProcess

from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = tuple["Mapping[str, object]", list[str]]
MOST_IDLE = 3
"""Of different kinds; the one that waited longest is stopped for the next."""


class Lender:
    """Running servers without sessions, by their program and settings."""

    def __init__(self) -> None:
        self._idle: list[tuple[Kind, ServerProcess]] = []

    def lend(self, settings: Mapping[str, object]) -> ServerProcess:
        """A server with these settings and no session, whose counters and log begin anew."""
        for entry in self._idle:
            if entry[0] == _kind(settings):
                self._idle.remove(entry)
                entry[1].begin_anew()
                return entry[1]
        return ServerProcess(**settings)

    def give_back(self, settings: Mapping[str, object], server: ServerProcess) -> None:
        """It was checked by its test; one that the test has ended stays so."""
        if server.process.poll() is not None:
            server.stop()
            return
        without_sessions(server)
        server.rest()
        self._idle.append((_kind(settings), server))
        if len(self._idle) > MOST_IDLE:
            self._idle.pop(0)[1].stop()

    def close(self) -> None:
        """Stops them all."""
        for _kind_of_it, server in self._idle:
            server.stop()


def _kind(settings: Mapping[str, object]) -> Kind:
    return settings, ServerProcess.command


def without_sessions(server: ServerProcess) -> None:
    """Deletes all that it has."""
    while page := server.stub.ListSessions(session_pb2.ListSessionsRequest()).sessions:
        for session in page:
            server.delete(session.session_id)
