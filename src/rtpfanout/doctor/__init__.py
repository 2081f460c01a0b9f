"""Is this host fit for the load the configuration allows? Reads, judges, changes nothing.

`examine` runs every check; `finding` is what each yields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtpfanout.doctor import interfaces, kernel, sockets
from rtpfanout.doctor.finding import Finding, Level, sysctl_lines

if TYPE_CHECKING:
    from rtpfanout.config import Settings
    from rtpfanout.host import Host

__all__ = ["Finding", "Level", "examine", "sysctl_lines"]


def examine(settings: Settings, host: Host) -> list[Finding]:
    """Everything there is to say, in the order in which a packet meets it."""
    return [
        *sockets.check_ports(settings, host),
        *sockets.check_buffers(settings, host),
        *interfaces.check_interfaces(host),
        *kernel.check_kernel(settings, host),
    ]
