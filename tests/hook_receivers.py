"""HTTP receivers of hooks: what they were sent, and answers as a test wants them."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, NamedTuple

from support import eventually

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator


class Posted(NamedTuple):
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.raw)
        return found

    @property
    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.body["events"]]


class Receiver:
    """Answers with the next of `answers`, else 204: a status, with headers, or what it does."""

    def __init__(self, port: int) -> None:
        self.posts: list[Posted] = []
        self.answers: list[Any] = []
        self.released = threading.Event()
        """Of those who hang."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.posts.append(Posted(self.path, headers, raw))
                answer = receiver.answers.pop(0) if receiver.answers else 204
                if callable(answer):
                    answer(self)
                    return
                status, more = answer if isinstance(answer, tuple) else (answer, {})
                self.send_response(status)
                for name, value in more.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])

    def hang(self, _handler: Any) -> None:
        """No answer, for as long as the test runs."""
        self.released.wait(60)

    def drip(self, handler: Any) -> None:
        """An answer that never ends, a byte at a time."""
        handler.connection.sendall(b"HTTP/1.1 204 No Content\r\nx: ")
        while not self.released.wait(0.05):
            try:
                handler.connection.sendall(b"y")
            except OSError:
                return

    def close(self, handler: Any) -> None:
        handler.close_connection = True
        handler.connection.close()

    def until(self, is_enough: Callable[[list[Posted]], bool]) -> list[Posted]:
        return eventually(lambda: list(self.posts), is_enough, "posts")

    def kinds(self) -> list[str]:
        return [kind for post in list(self.posts) for kind in post.kinds]


@contextmanager
def receiving(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on this port of 127.0.0.1."""
    receiver = Receiver(port)
    if tls:
        receiver.server.socket = tls.wrap_socket(receiver.server.socket, server_side=True)
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()
