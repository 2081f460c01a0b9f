"""What systemd sees of the server, and the sockets it may give, without systemd itself."""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import (
    SETTLE_SECONDS,
    ServerProcess,
    address_of,
    eventually,
    receive,
    rtp_packet,
    udp_socket,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    MakeSocket = Callable[..., socket.socket]
    StartServer = Callable[..., ServerProcess]

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "docker/systemd"


class Manager:
    """The receiving end of sd_notify(3): `texts` as they came, `kept` the sockets in them."""

    def __init__(self, path: Path) -> None:
        self.texts: list[str] = []
        self.kept: dict[str, int] = {}
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._sock.setblocking(False)

    def read(self) -> list[str]:
        """All so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                data, descriptors, _flags, _address = socket.recv_fds(self._sock, 4096, 9)
                text = data.decode()
                self.texts.append(text)
                if descriptors:
                    (descriptor,) = descriptors
                    self.kept[text.rpartition("FDNAME=")[2]] = descriptor
                elif text.startswith("FDSTOREREMOVE=1\n"):
                    os.close(self.kept.pop(text.rpartition("FDNAME=")[2]))
        return self.texts

    def wait(self, line: str, times: int = 1) -> str:
        """The last message with that line, once it came so often."""

        def found() -> list[str]:
            return [text for text in self.read() if line in text.splitlines()]

        return eventually(found, lambda texts: len(texts) >= times, f"{line} from the server")[-1]

    def close(self) -> None:
        self._sock.close()
        for descriptor in self.kept.values():
            os.close(descriptor)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    with contextlib.closing(Manager(path)) as manager:
        yield manager


def test_the_life_of_a_service(
    manager: Manager, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    server = start_server(drain_secs=0.5)
    ready = manager.wait("READY=1")
    assert f"MAINPID={server.process.pid}" in ready
    assert f"STATUS=forwarding from {server.ingest}" in ready
    manager.wait("WATCHDOG=1", 3)
    server.send_signal(signal.SIGHUP)
    stamp = manager.wait("RELOADING=1").partition("MONOTONIC_USEC=")[2]
    assert 0 <= time.monotonic_ns() // 1000 - int(stamp) < 60_000_000
    manager.wait("READY=1", 2)
    server.send_signal(signal.SIGTERM)
    manager.wait("STOPPING=1")
    assert server.process.wait(SETTLE_SECONDS) == 0


def test_the_watchdog_is_fed_only_while_packets_are(
    manager: Manager, start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000000")
    server = start_server()
    manager.wait("READY=1")
    os.kill(server.process.pid, signal.SIGSTOP)
    manager.read()
    before = len(manager.texts)
    time.sleep(1)
    assert len(manager.read()) == before
    os.kill(server.process.pid, signal.SIGCONT)


def test_kept_sockets_come_back_in_order(
    manager: Manager, start_server: StartServer, udp: MakeSocket
) -> None:
    """After the end of everything the port is the same, and what came meanwhile is queued."""
    server = start_server(workers=2)
    manager.wait("READY=1")
    names = sorted(manager.kept)
    assert names == ["ingress-0", "ingress-1", "ingress-2"], "the last counts broadcasts only"
    assert server.stop() == 0
    source, viewer = udp(), udp()
    packets = [rtp_packet(1, number) for number in range(100)]
    for packet in packets:
        source.sendto(packet, (str(server.ingest.ip), server.ingest.port))
    descriptors = [manager.kept[name] for name in reversed(names)]
    with activated(descriptors, reversed(names), workers=2) as again:
        assert again.ingest == server.ingest
        assert again.metrics()["rtp_packets_received_total"] == len(packets)
        again.create(address_of(source), 1, address_of(viewer))
        source.sendto(packets[0], again.ingest_target)
        assert receive(viewer, 1) == [packets[0]]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"bind_address": "127.0.0.2:{port}"}, "bind_address is 127.0.0.2:{port} now"),
        ({"workers": 2}, "2 workers are wanted now, and they are 1"),
    ],
)
def test_kept_sockets_that_do_not_fit_any_more_are_given_up(
    manager: Manager, start_server: StartServer, changed: dict[str, object], reason: str
) -> None:
    """The configuration counts. systemd lets go of them when it has read that, not before."""
    first = start_server(workers=1)
    manager.wait("READY=1")
    port = first.ingest.port
    assert first.stop() == 0
    wanted = {"bind_address": f"127.0.0.1:{port}", "workers": 1} | {
        key: str(value).format(port=port) for key, value in changed.items()
    }
    given = {name: os.dup(descriptor) for name, descriptor in manager.kept.items()}
    reader = threading.Thread(target=manager.wait, args=("FDSTOREREMOVE=1",))
    reader.start()
    words = list(given.values())
    closing = threading.Timer(0.5, lambda: [os.close(descriptor) for descriptor in words])
    closing.start()
    with activated(words, given, **wanted) as again:
        warning = again.logged("kept ingress sockets are given up, and what is in them")
        assert warning["level"] == "warning"
        assert reason.format(port=port) in str(warning["reason"])
        assert str(again.ingest) == wanted["bind_address"]
        assert again.metrics()["rtpfanout_receiving_workers"] == int(str(wanted["workers"]))
        reader.join()
        closing.join()
        manager.wait("READY=1", 2)
        workers = int(str(wanted["workers"]))
        assert len(manager.kept) == workers + (workers > 1), "the new ones, and a deaf one"


def test_kept_sockets_get_the_buffer_that_is_wanted_now(
    manager: Manager, start_server: StartServer
) -> None:
    name = "rtpfanout_receive_buffer_bytes"
    server = start_server(workers=1, buffer_size=128)
    small = server.metrics()[name]
    manager.wait("READY=1")
    assert server.stop() == 0
    for size, relation in ((1024, 8), (64, 0.5)):
        with activated(
            list(manager.kept.values()), manager.kept, workers=1, buffer_size=size
        ) as again:
            assert again.ingest == server.ingest
            assert again.metrics()[name] == small * relation


@pytest.mark.usefixtures("manager")
def test_a_socket_unit_that_is_elsewhere_is_a_warning() -> None:
    with udp_socket("127.0.0.1") as given:
        host, port = given.getsockname()
        with activated([given.fileno()], ["rtp"], bind_address=f"127.0.0.2:{port}") as server:
            assert str(server.ingest) == f"{host}:{port}"
            entry = server.logged("bind_address is not where the ingress sockets are, which stay")
            assert entry["bind_address"] == f"127.0.0.2:{port}"


def test_what_kept_sockets_drop_is_counted(
    manager: Manager, start_server: StartServer, udp: MakeSocket
) -> None:
    """While no server is there at all; the next one counts it, once."""
    server = start_server(workers=2, buffer_size=64)
    manager.wait("READY=1")
    names = sorted(manager.kept)
    assert server.stop() == 0
    source = udp()
    for number in range(1000):
        source.sendto(rtp_packet(1, number, bytes(1188)), server.ingest_target)
    descriptors = [manager.kept[name] for name in names]
    with activated(descriptors, names, workers=2) as again:
        metrics = again.settled(64)
        drops = metrics["rtpfanout_kernel_receive_drops_total"]
        assert metrics["rtp_packets_received_total"] + drops == 1000
        assert drops > 0
    with activated(descriptors, names, workers=2) as third:
        assert third.metrics()["rtpfanout_kernel_receive_drops_total"] == 0


def test_a_socket_from_systemd_is_used(udp: MakeSocket, manager: Manager) -> None:
    source, viewer = udp(), udp()
    with (
        udp_socket("127.0.0.1") as given,
        activated([given.fileno()], ["rtp"], workers=2) as server,
    ):
        host, port = given.getsockname()
        assert (str(server.ingest.ip), server.ingest.port) == (host, port)
        server.create(address_of(source), 1, address_of(viewer))
        source.sendto(rtp_packet(1), (host, port))
        assert receive(viewer, 1) == [rtp_packet(1)]
    manager.read()
    assert manager.kept == {}, "systemd has it already"


LAUNCHER = """
import fcntl, os, sys
names, count = sys.argv[1], int(sys.argv[2])
given = [int(fd) for fd in sys.argv[3:3 + count]]
high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for fd in given]  # none of which is given
for fd in given:
    os.close(fd)
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i)
    os.close(fd)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}
command = sys.argv[3 + count:]
os.execv(command[0], command)
"""


@contextlib.contextmanager
def activated(
    descriptors: Sequence[int], names: Iterable[str], **settings: object
) -> Iterator[ServerProcess]:
    """A server that is started as systemd would, with sockets from descriptor 3 on."""
    words = [":".join(names), str(len(descriptors)), *map(str, descriptors)]

    class Activated(ServerProcess):
        command = [sys.executable, "-c", LAUNCHER, *words, *ServerProcess.command]  # noqa: RUF012
        pass_fds = tuple(descriptors)

    server = Activated(**settings)
    try:
        yield server
    finally:
        server.stop()


def unit(name: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((UNITS / name).read_text())
    return parser


def test_the_unit_fits_the_server() -> None:
    service = unit("rtpfanout.service")["Service"]
    assert service["Type"] == "notify"
    assert service["NotifyAccess"] == "main"
    assert int(service["FileDescriptorStoreMax"]) >= 65, "as many as workers, and one"
    assert unit("rtpfanout.service")["Unit"]["StartLimitIntervalSec"] == "0", "never given up"
    assert service["Restart"] == "always"
    assert service["KillMode"] == "mixed", "the supervisor tells the server"
    assert service["ExecStart"].split()[-1] == "serve"
    assert service["RuntimeDirectory"] == service["StateDirectory"] == "rtpfanout"
    socket_unit = unit("rtpfanout.socket")["Socket"]
    assert "ListenStream" not in socket_unit
    for name in ("NoNewPrivileges", "PrivateTmp", "ProtectHome", "MemoryDenyWriteExecute"):
        assert service[name] == "yes"


def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for path in UNITS.iterdir():
        text = path.read_text().replace("/opt/rtpfanout/bin/rtpfanout", sys.executable)
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "rtpfanout.service")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "rtpfanout" not in done.stderr, done.stderr
