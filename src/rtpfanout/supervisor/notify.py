"""What systemd is told, and the sockets it gives (sd_notify(3), sd_listen_fds(3))."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

from rtpfanout.errors import StartError

FIRST_LISTEN_FD = 3
KEPT_NAME = "ingress-"


class Notifier:
    """Talks to $NOTIFY_SOCKET, or to nobody without one.

    `watchdog_seconds` is how often at least `alive` has to be called, 0: never.
    """

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        microseconds = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = (
            int(microseconds) / 1e6 if mine and microseconds.isdigit() and self._address else 0.0
        )

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._send("STOPPING=1\nSTATUS=draining")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def keep(self, descriptors: list[int]) -> None:
        """Hands the ingress sockets over for safekeeping (FileDescriptorStoreMax=)."""
        for number, descriptor in enumerate(descriptors):
            if self._address:
                message = f"FDSTORE=1\nFDNAME={KEPT_NAME}{number}".encode()
                with contextlib.suppress(OSError), self._socket() as sock:
                    socket.send_fds(sock, [message], [descriptor])

    def give_up(self, names: Iterable[str]) -> None:
        """Those that it keeps by these names are not wanted any more."""
        for name in names:
            self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, message: str) -> None:
        if self._address:
            with contextlib.suppress(OSError), self._socket() as sock:
                sock.send(message.encode())

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.connect(self._address)
        except OSError:
            sock.close()
            raise
        return sock


@dataclass(frozen=True)
class Given:
    """UDP sockets that systemd passed; `names` if an earlier run let systemd keep them."""

    descriptors: list[int]
    names: list[str]


def given_sockets() -> Given:
    """In order; the variables that say so are removed.

    Those that were kept come in the order they had. Raises StartError if one of them is something
    else.
    """
    count, pid = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdigit() or pid != str(os.getpid()):
        return Given([], [])
    descriptors = list(range(FIRST_LISTEN_FD, FIRST_LISTEN_FD + int(count)))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
            if sock.type == socket.SOCK_DGRAM and sock.family in (socket.AF_INET, socket.AF_INET6):
                continue
        raise StartError(
            f"file descriptor {descriptor} of LISTEN_FDS is no UDP socket; use ListenDatagram=",
            field="bind_address",
        )
    kept = {
        int(name.removeprefix(KEPT_NAME)): descriptor
        for name, descriptor in zip(names, descriptors, strict=False)
        if name.startswith(KEPT_NAME) and name.removeprefix(KEPT_NAME).isdigit()
    }
    if not kept:
        return Given(descriptors, [])
    order = sorted(kept)
    return Given([kept[number] for number in order], [f"{KEPT_NAME}{n}" for n in order])
