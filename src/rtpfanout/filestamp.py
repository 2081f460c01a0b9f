"""Whether a file is the one that was read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def stamp_of(path: Path) -> tuple[int, ...] | None:
    """Differs when it was written, replaced or touched; None where it can't be looked at.

    To be asked before the file is read: what is written meanwhile is news.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
