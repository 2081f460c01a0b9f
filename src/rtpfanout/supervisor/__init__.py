"""The server under a supervisor: crashes, upgrades and reloads that packets don't notice.

`parent` is the supervisor, `child` the server process; `link` is what they say to each other.
`servers` has those that there are: forked here (`process`) or, in an upgrade, started from what is
installed (`succession`). `upgrade` and `reloads` decide, without I/O; the last step of an upgrade
is the `replacement` of the supervisor's program. `signals` are what it acts on. `ingress` has the
sockets, `preload` what is imported before a fork; `watching` ends a server with a packet loop that
is stuck, `restarts` says how soon another server follows a dead one, `terminal` what SIGHUP means;
`notify` is for systemd, `statefile` for the commands that look for a server.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from rtpfanout import log, stderr
from rtpfanout.supervisor import child
from rtpfanout.supervisor.parent import Supervisor
from rtpfanout.supervisor.preload import Preload
from rtpfanout.supervisor.replacement import Replacement
from rtpfanout.supervisor.succession import CHECK_VARIABLE, Succession, succeed

if TYPE_CHECKING:
    from rtpfanout.config import Settings


def run(settings: Settings, reload: Callable[[], Settings]) -> int:
    """Serve until SIGTERM or SIGINT, without a supervisor if the settings want none.

    The exit code. Raises StartError.
    """
    if told := Succession.take():
        succeed(settings, told)
    if CHECK_VARIABLE in os.environ:  # a supervisor of an older version tries this one
        Preload().finish()
        return 0
    left = Replacement.take() if settings.enable_supervisor else None
    stderr.start(left.stderr if left else ())
    log.configure(settings.log.level, settings.log.format)
    if not settings.enable_supervisor:
        return child.alone(settings)
    return Supervisor(settings, reload).run(left)
