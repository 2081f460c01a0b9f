"""Who may look: whoever is on this host, or shows a token."""

from __future__ import annotations

import ipaddress
import re
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

from rtpfanout.auth import ANYBODY, Access, Caller, Identity, confine
from rtpfanout.errors import PermissionDeniedError

if TYPE_CHECKING:
    from starlette.requests import Request

ELSEWHERE = (
    "this page is for browsers on the server's own host: open it through `ssh -L {port}:127.0.0.1:"
    "{port}`, or set auth.jwt_keys to log in with a token"
)
MISLED = (
    "a page on this host is shown by its address or as localhost, not as {host}: else any site "
    "could make your browser read it"
)

_HOST = re.compile(r"(.*?)(?::\d{0,5})?", re.ASCII | re.DOTALL)
"""What stands before a port."""


class Viewers:
    """Judges requests, as /metrics/sessions does, and by roles and labels.

    At a loopback address everybody may look, and where the API asks for nothing beyond loopback,
    too. Elsewhere it takes a token of auth.jwt_keys, and without such keys a browser on this host.
    """

    def __init__(self, access: Access, *, is_local: bool, is_insecure: bool) -> None:
        self._access = access
        self._is_local = is_local
        self._is_insecure = is_insecure

    def admit(self, request: Request, method: str) -> Identity:
        """Who asks, if he may make this call of the API.

        Raises UnauthenticatedError, PermissionDeniedError.
        """
        identity = self._identify(request)
        confine(identity, method, SimpleNamespace(label_selector=""))
        return identity

    def _identify(self, request: Request) -> Identity:
        if not self._is_local:
            if not self._access.is_open:
                return self._access.identify(
                    Caller("http", request.headers.get("authorization", ""))
                )
            if self._is_insecure:
                return ANYBODY
            if not _is_loopback(request.client.host if request.client else ""):
                raise PermissionDeniedError(ELSEWHERE.format(port=request.url.port or 80))
        # As it came: what is no host becomes the address of this one in request.url.
        match = _HOST.fullmatch(request.headers.get("host", "127.0.0.1").lower())
        host = match[1] if match else ""
        if not (_is_address(host) or host in ("localhost", socket.gethostname().lower())):
            # DNS rebinding: a name of the attacker's, that has become this host's.
            raise PermissionDeniedError(MISLED.format(host=host[:80]))
        return ANYBODY


def may(identity: Identity, method: str) -> bool:
    """Whether he may make this call of the API."""
    try:
        confine(identity, method, SimpleNamespace(label_selector=""))
    except PermissionDeniedError:
        return False
    return True


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback
