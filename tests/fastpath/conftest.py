"""What the tests of the extension need of the machine."""

from __future__ import annotations

import os
import socket

import pytest


@pytest.fixture
def ipv6() -> None:
    """Skips, or fails when everything must be there, where loopback has no IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        if os.environ.get("RTPFANOUT_REQUIRE_ALL") == "1":
            pytest.fail(f"needs IPv6 on loopback: {error}")
        pytest.skip(f"needs IPv6 on loopback: {error}")
