"""Which session a command means: by its name, its id, or a beginning of that; completion."""

import os
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import typer

from rtpfanout.cli.output import DEFAULT_SERVER
from rtpfanout.model import SESSION_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.client import SessionClient

_BEGINNING = re.compile("[0-9a-fA-F]{1,8}|[0-9a-fA-F]{8}-[0-9a-fA-F-]{0,27}")
"""Of an id."""
_MOST_CANDIDATES = 20
_MOST_COMPLETIONS = 200
_COMPLETION_SECONDS = 1.0


def connect(server: str) -> "SessionClient":
    """A client of the server at this address."""
    from rtpfanout.client import Credentials, SessionClient

    return SessionClient(server, credentials=Credentials.from_environment())


def choose(ctx: typer.Context, value: Any) -> Any:
    """The callback of an argument that is a session, or several: what calls take for them.

    Nothing is asked of the server where all are names or whole ids.
    """
    texts = value if isinstance(value, list) else [value]
    if ctx.resilient_parsing or not any(map(_may_be_beginning, texts)):
        return value
    with connect(ctx.params["server"]) as client:
        chosen = [session_of(client, text) for text in texts]
    return chosen if isinstance(value, list) else chosen[0]


def _may_be_beginning(text: str) -> bool:
    return _BEGINNING.fullmatch(text) is not None and not SESSION_ID.fullmatch(text)


def session_of(client: "SessionClient", text: str) -> str:
    """What calls take for it: `text`, or the one id that begins so.

    A name goes before. Raises InvalidArgumentError: several ids begin so.
    """
    from rtpfanout.errors import InvalidArgumentError

    if not _may_be_beginning(text):
        return text
    try:
        client.get_session(text)
    except InvalidArgumentError:  # no name; and what a server says that knows no names
        pass
    else:
        return text
    found = [
        f"{session.session_id}  {session.name or session.source_address}"
        for session in islice(_beginning(client, text), _MOST_CANDIDATES + 1)
    ]
    if len(found) < 2:
        return found[0].split()[0] if found else text
    if len(found) > _MOST_CANDIDATES:
        found[_MOST_CANDIDATES:] = ["..."]
    said = f"{text!r} is the beginning of several ids; give more of the one you mean"
    raise InvalidArgumentError("\n".join((said, *found)), field="session_id")


def complete_session(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names, and ids: those of sessions without a name, or that begin so. Nothing on any error."""
    server = ctx.params.get("server") or os.environ.get("RTP_FANOUT_SERVER") or DEFAULT_SERVER
    try:
        with connect(server) as client:
            soon = client.within(_COMPLETION_SECONDS)
            if not incomplete:
                return [session.name or session.session_id for session in _all(soon)]
            names = [session.name for session in _all(soon, incomplete)]
            ids = _beginning(soon, incomplete) if _BEGINNING.match(incomplete) else iter(())
            return names + [session.session_id for session in islice(ids, _MOST_COMPLETIONS)]
    except Exception:  # a shell has no use for it
        return []


def _all(client: "SessionClient", name_prefix: str = "") -> "Iterator[Any]":
    found = client.iter_sessions(_MOST_COMPLETIONS, name_prefix=name_prefix)
    return islice((s for s in found if s.name.startswith(name_prefix)), _MOST_COMPLETIONS)


def _beginning(client: "SessionClient", text: str) -> "Iterator[Any]":
    """An older server lists all."""
    found = client.iter_sessions(id_prefix=text)
    return (session for session in found if session.session_id.startswith(text.lower()))
