"""What a URL of a request asks for: a path of sessions, or one of them as a track."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from rtpfanout.model import SESSION_ID
from rtpfanout.rtsp.wire import RefusedRequest

_URL = re.compile(r"((?i:rtspu?|rtsps)://)(?:[^/?#@]*@)?([^/?#]*)(/[^?#]*)?(?:\?([^#]*))?")
_TRACK = "trackID="
_MOST_FIELDS = 8


@dataclass(frozen=True, slots=True)
class Target:
    """`base` is the URL of the path, which ends with "/", and has neither user nor query."""

    base: str
    path: str
    track: str = ""
    """The id of one session, as `control_of` named it; "": all of the path."""
    token: str = ""

    @classmethod
    def of(cls, url: str) -> Target:
        """Raises RefusedRequest."""
        match = _URL.fullmatch(url)
        if match is None:
            raise RefusedRequest(400, "the URL is not rtsp://HOST/NAME")
        scheme, host, raw, query = match.groups(default="")
        parts = [part for part in raw.split("/") if part]
        track = ""
        if parts and unquote(parts[-1]).startswith(_TRACK):
            track = unquote(parts.pop()).removeprefix(_TRACK).lower()
            if not SESSION_ID.fullmatch(track):
                raise RefusedRequest(404, "there is no such track")
        base = "/".join([scheme + host, *parts, ""])
        return cls(base, unquote("/".join(parts)), track, _token(query))


def control_of(session_id: str) -> str:
    """The name of a session's track, relative to the URL of its path."""
    return _TRACK + session_id


def _token(query: str) -> str:
    try:
        fields = dict(parse_qsl(query.rstrip("/"), max_num_fields=_MOST_FIELDS))
    except ValueError:
        raise RefusedRequest(400, f"the URL has more than {_MOST_FIELDS} parameters") from None
    return fields.get("token", "")
