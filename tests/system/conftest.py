"""Servers under supervisors that tell of themselves, and one that reads a configuration file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the servers of the test tell of themselves, and of no others."""
    directory = tmp_path / "run"
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory))
    return directory


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The file that `configured` reads; it may be changed while that runs."""
    path = tmp_path / "server.toml"
    path.write_text("")
    return path


@pytest.fixture
def configured(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ServerProcess]:
    """A server with a configuration file."""
    with monkeypatch.context() as patch:
        patch.setattr(ServerProcess, "command", [*ServerProcess.command, "--config", str(config)])
        server = ServerProcess(store__path=str(tmp_path / "store.db"))
    yield server
    server.stop()
