"""Fixtures of all tests: a real server, and the exactness of its numbers after each test."""

from __future__ import annotations

import os
import resource
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from lending import Lender
from selection import (  # noqa: F401  # hooks of pytest
    pytest_addoption,
    pytest_cmdline_main,
    pytest_collection_modifyitems,
    pytest_itemcollected,
    pytest_terminal_summary,
    pytest_testnodedown,
)
from support import ServerProcess, udp_socket

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

# Hundreds of servers are started: that each of them compiled all our modules took half of the time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes is the machine's affair.
settings.register_profile(
    "untimed",
    settings.default,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def lender() -> Iterator[Lender]:
    """The servers that tests marked `lent_servers` have one after the other."""
    lender = Lender()
    yield lender
    lender.close()


@pytest.fixture
def start_server(
    request: pytest.FixtureRequest, lender: Lender
) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers by ServerProcess(**settings); each is checked and stopped at the end.

    Where the test is marked `lent_servers` it may be one that ran before, and it runs on.
    """
    mark = request.node.get_closest_marker("lent_servers")
    is_lent = mark is not None and mark.args != (False,)
    started: list[tuple[dict[str, object], ServerProcess]] = []

    def start(**settings: object) -> ServerProcess:
        server = lender.lend(settings) if is_lent else ServerProcess(**settings)
        started.append((settings, server))
        return server

    try:
        yield start
        for _settings, server in started:
            server.check_identities()
        if is_lent:
            while started:
                lender.give_back(*started.pop())
    finally:
        for _settings, server in started:
            server.stop()


@pytest.fixture
def server(start_server: Callable[..., ServerProcess]) -> ServerProcess:
    """A server with the default settings on loopback."""
    return start_server()


@pytest.fixture
def udp() -> Iterator[Callable[..., socket.socket]]:
    """Makes UDP sockets by support.udp_socket, and closes them."""
    with ExitStack() as stack:

        def make(host: str = "127.0.0.1", **options: int) -> socket.socket:
            return stack.enter_context(udp_socket(host, **options))

        yield make


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many open files as this user may have, for a test with a thousand sockets."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] < 2000:
        pytest.skip(f"no more than {before[1]} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
