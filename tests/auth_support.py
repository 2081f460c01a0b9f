"""What the tests of `auth` share: a caller who is refused, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rtpfanout.errors import UnauthenticatedError

if TYPE_CHECKING:
    from rtpfanout.auth import Access, Caller


def refused(access: Access, caller: Caller) -> str:
    """The reason that was counted."""
    before = access.failures.copy()
    with pytest.raises(UnauthenticatedError):
        access.identify(caller)
    (reason,) = access.failures - before
    return reason
