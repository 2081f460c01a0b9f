"""Programs that send or play RTP, and their ports."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

from support import udp_socket


def ffmpeg(*arguments: str, **options: Any) -> subprocess.Popen[Any]:
    """Running; `options` are Popen's."""
    return subprocess.Popen(
        ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", *arguments],
        stdin=subprocess.DEVNULL,
        **options,
    )


def bound(port: int) -> bool:
    """Whether some socket has the UDP port, from /proc/net (proc(5))."""
    text = "".join(Path(f"/proc/net/{table}").read_text() for table in ("udp", "udp6"))
    return f":{port:04X} " in text


def free_pair() -> int:
    """An even port that is free, and the next one (RTCP) too."""
    while True:
        with udp_socket() as rtp:
            port = int(rtp.getsockname()[1])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp:
                if port % 2 == 0:
                    try:
                        rtcp.bind(("127.0.0.1", port + 1))
                    except OSError:
                        continue
                    return port
