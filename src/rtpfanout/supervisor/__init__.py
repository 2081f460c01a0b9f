"""The server under a supervisor: crashes, upgrades and reloads that packets don't notice.

`parent` is the supervisor, `child` the server that it forks (`process`) or, in an upgrade, starts
from what is installed (`succession`), `link` what they say to each other. `upgrade` and `reloads`
decide, without I/O; `handover` is what an upgrade leaves to the next program. `ingress` has the
sockets, `preload` what is imported before a fork; `watching` ends a server with a packet loop that
is stuck, `restarts` says how soon another server follows a dead one, `terminal` what SIGHUP means;
`notify` is for systemd, `statefile` for the commands that look for a server.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rtpfanout import log, stderr
from rtpfanout.supervisor.handover import Handover
from rtpfanout.supervisor.parent import Supervisor
from rtpfanout.supervisor.preload import Preload
from rtpfanout.supervisor.succession import CHECK_VARIABLE, Succession, succeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from rtpfanout.config import Settings


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises StartError."""
    if told := Succession.take():
        succeed(settings, told)
    if CHECK_VARIABLE in os.environ:  # a supervisor of an older version tries this one
        Preload().finish()
        return 0
    handed = Handover.take()
    stderr.start(handed.stderr if handed else ())
    log.configure(settings.log.level, settings.log.format)
    return Supervisor(settings, reload).run(handed)


def is_wanted(settings: Settings) -> bool:
    """By the settings, or because a supervisor has started this program."""
    return settings.enable_supervisor or Succession.is_told()
