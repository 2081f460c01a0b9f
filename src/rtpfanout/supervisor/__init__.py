"""The server under a supervisor: crashes, upgrades and reloads that packets don't notice.

`parent` is the supervisor, `child` the server that it forks (`process`), `link` what they say to
each other, `ingress` the sockets; `watching` ends a server with a packet loop that is stuck,
`restarts` says how soon another server follows a dead one,
`handover` what an upgrade leaves to the next program; `notify` is for systemd, `statefile` for the
commands that look for a server.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from rtpfanout import log
from rtpfanout.supervisor.child import HEAVY
from rtpfanout.supervisor.parent import Supervisor
from rtpfanout.supervisor.process import CHECK_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout.config import Settings


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises StartError."""
    if CHECK_VARIABLE in os.environ:
        for name in HEAVY:
            importlib.import_module(name)
        return 0
    log.configure(settings.log.level, settings.log.format)
    return Supervisor(settings, reload).run()
