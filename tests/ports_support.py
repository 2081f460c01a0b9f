"""Free UDP ports in a row, and those of others."""

from __future__ import annotations

import random
import socket

from rtpfanout.portrange import PortRange


def taken(port: int) -> socket.socket:
    """A socket that has it on 127.0.0.1. Raises OSError: somebody has it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.bind(("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


def free_range(pairs: int) -> PortRange:
    """That is free now, and that nobody gets who asks for any free port (ip_local_port_range)."""
    while True:
        port = random.randrange(10_000, 30_000, 2)
        found = []
        try:
            for number in range(port, port + 2 * pairs):
                found.append(taken(number))
        except OSError:
            continue
        else:
            return PortRange(port, port + 2 * pairs - 1)
        finally:
            for sock in found:
                sock.close()
