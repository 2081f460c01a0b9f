"""Is this host fit for the load the configuration allows? Reads, judges, changes nothing.

`examine` runs every check; `finding` is what each yields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtpfanout.doctor import interfaces, kernel, running, sockets
from rtpfanout.doctor.finding import Finding, Level, sysctl_lines
from rtpfanout.doctor.running import Running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.config import Settings
    from rtpfanout.host import Host

__all__ = ["Finding", "Level", "Running", "examine", "sysctl_lines"]


def examine(settings: Settings, host: Host, servers: Sequence[Running] = ()) -> list[Finding]:
    """Everything there is to say, in the order in which a packet meets it; then of the servers that
    run here."""
    return [
        *sockets.check_ports(settings, host),
        *sockets.check_buffers(settings, host),
        *interfaces.check_interfaces(host),
        *kernel.check_kernel(settings, host),
        *running.check_running(settings, host, servers),
    ]
