"""The server under a supervisor: crashes, upgrades and reloads that packets don't notice.

`parent` is the supervisor, `child` the server process that it forks, `link` what they say to
each other; `notify` is for systemd, `statefile` for the commands that look for a server.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from rtpfanout import log
from rtpfanout.supervisor.parent import CHECK_VARIABLE, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout.config import Settings


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises StartError."""
    log.configure(settings.log.level, settings.log.format)
    if CHECK_VARIABLE in os.environ:
        importlib.import_module("rtpfanout.service")
        importlib.import_module("rtpfanout.http")
        return 0
    return Supervisor(settings, reload).run()
