"""A real engine with a packet loop, and a SessionManager over it; a directory without settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from engine_support import running_engine
from managers import Clock, manager_of

from rtpfanout._fastpath import Engine
from rtpfanout.config import load
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.sessions import SessionManager


@pytest.fixture
def clock() -> Clock:
    """Monotonic time of the manager."""
    return Clock()


@pytest.fixture
def engine() -> Iterator[Engine]:
    """For 50 sessions of 3 subscribers; at the end its identities must hold."""
    engine = Engine(
        Address.parse("127.0.0.1:0"), max_sessions=50, max_subscribers=3, receive_queue_packets=256
    )
    with running_engine(engine):
        yield engine


@pytest.fixture
def manager(engine: Engine, clock: Clock) -> SessionManager:
    """Over that engine and clock."""
    return manager_of(engine, clock)


@pytest.fixture
def empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a configuration file it did not write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "DEFAULT_FILES", (Path("config/server.toml"),))
