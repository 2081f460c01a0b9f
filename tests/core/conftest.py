"""What several tests of the core take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from core import build
from replay import Replay
from support import unmet

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replay]:
    """One for all; a test begins with `new`."""
    reason = build.missing("plain")
    if reason:
        unmet(reason)
    made = Replay(tmp_path_factory.mktemp("replay"))
    yield made
    made.close()
