"""One POST, and what became of it.

By the standard library: it follows no redirect and asks no proxy, so that what is posted goes to
the configured host and nowhere else.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from rtpfanout import __version__

SECONDS = 10.0
"""For all of it, so that no receiver holds us by answering slowly."""
LONGEST_WAIT_SECONDS = 300.0
"""That a receiver may ask for."""
_REFUSALS = (400, 413, 415, 422)
"""Answers about what was posted. Others are about the URL or the receiver, and may change."""


class Outcome(NamedTuple):
    """`reason` is empty where it was taken."""

    reason: str = ""
    is_refused: bool = False
    """It will never be taken: the receiver says that something is wrong with it."""
    wait_seconds: float = 0.0
    """That the receiver asks for, at least."""


_LATE = Outcome(f"no answer in {SECONDS:g} s")


class Poster:
    """Posts to one URL, of `http` or `https`. `cancel` may be called from another thread."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        self._is_tls = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._connection: http.client.HTTPConnection | None = None
        self._tls: ssl.SSLContext | None = None
        self._is_over = False

    @property
    def host(self) -> str:
        """For the log: the rest of a URL may be a secret."""
        return self._host

    def post(self, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Takes SECONDS at most, and the time to look up the host's name."""
        self._connection = connection = self._connect()
        self._is_over = False
        timer = threading.Timer(SECONDS, self.cancel)
        timer.daemon = True
        timer.start()
        try:
            connection.request(
                "POST",
                self._path,
                body,
                {
                    "Content-Type": "application/json",
                    "User-Agent": f"rtpfanout/{__version__}",
                    **headers,
                },
            )
            outcome = _outcome(connection.getresponse())
            # Cut off in the middle an answer looks whole.
            return _LATE if self._is_over else outcome
        except (OSError, http.client.HTTPException, ValueError) as error:
            if self._is_over:
                return _LATE
            return Outcome(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        finally:
            timer.cancel()
            self._connection = None
            connection.close()

    def cancel(self) -> None:
        """Ends a post that is under way."""
        self._is_over = True
        connection = self._connection
        sock = connection.sock if connection else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> http.client.HTTPConnection:
        if not self._is_tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=SECONDS)
        self._tls = self._tls or ssl.create_default_context()
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=SECONDS, context=self._tls
        )


def _outcome(response: http.client.HTTPResponse) -> Outcome:
    """Of the body nothing is read."""
    status = response.status
    if 200 <= status < 300:
        return Outcome()
    reason = f"it answers {status}"
    if 300 <= status < 400:
        return Outcome(f"{reason}; give the URL that it leads to")
    asked = response.getheader("retry-after", "")
    wait = float(asked) if asked.isascii() and asked.isdigit() and len(asked) < 9 else 0.0
    return Outcome(reason, status in _REFUSALS, min(wait, LONGEST_WAIT_SECONDS))
