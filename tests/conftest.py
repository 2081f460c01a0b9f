"""Fixtures of all tests: a real server, and the exactness of its numbers after each test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from support import ServerProcess, udp_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator


@pytest.fixture
def start_server() -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers by ServerProcess(**settings); each is checked and stopped at the end."""
    started: list[ServerProcess] = []

    def start(**settings: object) -> ServerProcess:
        started.append(ServerProcess(**settings))
        return started[-1]

    with ExitStack() as stack:
        stack.callback(lambda: [server.stop() for server in started])
        yield start
        for server in started:
            server.check_identities()


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with the default settings on loopback."""
    return start_server()


@pytest.fixture
def udp() -> Iterator[Callable[..., socket.socket]]:
    """Makes UDP sockets by support.udp_socket, and closes them."""
    with ExitStack() as stack:
        yield lambda host="127.0.0.1", **options: stack.enter_context(udp_socket(host, **options))
