"""Network namespaces with veth between them: several hosts on one machine. Needs root."""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from support import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str) -> str:
    """What it prints. Without what is preloaded into us: sanitizers find faults of iproute2's."""
    environment = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


@contextmanager
def hosts(*names: str) -> Iterator[dict[str, str]]:
    """Namespaces by short name; removed at the end, with all that is in them."""
    full = {name: f"rf{os.getpid() % 100000}{name}" for name in names}
    made = []
    try:
        for namespace in full.values():
            run("ip", "netns", "add", namespace)
            made.append(namespace)
            run("ip", "-n", namespace, "link", "set", "lo", "up")
        yield full
    finally:
        for namespace in made:
            run("ip", "netns", "del", namespace)


def link(a: str, a_cidr: str, b: str, b_cidr: str, mtu: int = 1500) -> None:
    """A veth between two namespaces; its ends are called `to-<other namespace>`, cut to 15."""
    a_name, b_name = f"to-{b}"[:15], f"to-{a}"[:15]
    run("ip", "-n", a, "link", "add", a_name, "type", "veth", "peer", "name", b_name, "netns", b)
    for namespace, name, cidr in ((a, a_name, a_cidr), (b, b_name, b_cidr)):
        run("ip", "-n", namespace, "address", "add", cidr, "dev", name, "nodad")
        run("ip", "-n", namespace, "link", "set", name, "mtu", str(mtu), "up")


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """This thread's new sockets belong to the namespace; those it has stay where they are."""
    home = Path(f"/proc/self/task/{threading.get_native_id()}/ns/net")
    back = os.open(home, os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(back)
        os.close(there)
        os.close(back)


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def server_in(namespace: str, directory: Path) -> type[ServerProcess]:
    """A server of that host, which takes calls at a Unix socket in `directory`.

    All channels of this process share gRPC's threads, and connect from the namespace that these
    were made in: by TCP another test's channel would keep them out of this one.
    """
    path = directory / "calls"

    class There(ServerProcess):
        command: ClassVar[list[str]] = ["ip", "netns", "exec", namespace, *ServerProcess.command]

        def __init__(self, **settings: object) -> None:
            super().__init__(grpc_unix_socket=path, **settings)

        @property
        def calls_target(self) -> str:
            return f"unix:{path}"

    return There
