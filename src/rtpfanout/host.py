"""What the kernel says about this host: sysctls, interfaces, offloads, clock, ports.

Nothing here judges; `doctor` does. What cannot be read (another network namespace, an
old kernel, no permission) is None.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

# <linux/sockios.h>, <linux/ethtool.h>, <linux/timex.h>
_SIOCETHTOOL = 0x8946
_GRINGPARAM = 0x10
_GSTRINGS = 0x1B
_GSSET_INFO = 0x37
_GFEATURES = 0x3A
_SS_FEATURES = 4
_STRING_BYTES = 32
_STA_UNSYNC = 0x40
_TIMEX = struct.Struct("@Illlli")  # modes, offset, freq, maxerror, esterror, status


@dataclass(frozen=True, slots=True)
class Feature:
    """One offload of an interface, by its name in ``ethtool -k``'s kernel spelling."""

    active: bool
    changeable: bool


@dataclass(frozen=True, slots=True)
class Ring:
    """Receive descriptors: how many are in use, and how many the device has."""

    current: int
    maximum: int


@dataclass(frozen=True, slots=True)
class PortOwner:
    """Who has a port."""

    pid: int
    command: str


@dataclass(frozen=True, slots=True)
class Softnet:
    """Sums over all cores of /proc/net/softnet_stat, since the host started."""

    processed: int
    dropped: int
    squeezed: int


class Host:
    """Reads below `root`, which is another directory in tests."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def text(self, path: str) -> str | None:
        """A file's content without the white space around it."""
        try:
            return (self.root / path).read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """A file that holds one whole number."""
        text = self.text(path)
        try:
            return int(text) if text is not None else None
        except ValueError:
            return None

    def sysctl(self, name: str) -> int | None:
        """A sysctl by its dotted name; dots inside an interface's name are not supported."""
        return self.number(f"proc/sys/{name.replace('.', '/')}")

    def interfaces(self) -> list[str]:
        """Interfaces that are up, without loopback."""
        found = []
        for path in sorted((self.root / "sys/class/net").glob("*")):
            flags = self.text(f"sys/class/net/{path.name}/flags")
            value = int(flags, 16) if flags else 0
            if value & 0x1 and not value & 0x8:  # IFF_UP, IFF_LOOPBACK
                found.append(path.name)
        return found

    def mtu(self, interface: str) -> int | None:
        """Bytes of the longest IP packet."""
        return self.number(f"sys/class/net/{interface}/mtu")

    def missed(self, interface: str) -> int | None:
        """Packets the receive ring had no room for, since the interface exists."""
        return self.number(f"sys/class/net/{interface}/statistics/rx_missed_errors")

    def features(self, interface: str) -> dict[str, Feature] | None:
        """The interface's offloads by the kernel's names, such as ``tx-udp-segmentation``."""
        try:
            count = _feature_count(interface)
            blocks = (count + 31) // 32
            names = _ethtool(
                interface, struct.pack("=III", _GSTRINGS, _SS_FEATURES, count), count * 32
            )
            bits = _ethtool(interface, struct.pack("=II", _GFEATURES, blocks), blocks * 16)
        except OSError:
            return None
        found = {}
        for i in range(count):
            name = names[12 + i * _STRING_BYTES : 12 + (i + 1) * _STRING_BYTES]
            available, _requested, active, never = struct.unpack_from("=4I", bits, 8 + i // 32 * 16)
            bit = 1 << i % 32
            found[name.partition(b"\0")[0].decode("ascii", "replace")] = Feature(
                active=bool(active & bit), changeable=bool(available & ~never & bit)
            )
        return found

    def receive_ring(self, interface: str) -> Ring | None:
        """None where the device has no ring, or does not tell."""
        try:
            answer = _ethtool(interface, struct.pack("=I", _GRINGPARAM), 32)
        except OSError:
            return None
        maximum, *_, current, _, _, _ = struct.unpack_from("=8I", answer, 4)
        return Ring(current, maximum) if maximum else None

    def governors(self) -> set[str]:
        """The scaling governors in use; empty where the host does not scale, or tell."""
        paths = (self.root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
        texts = (self.text(str(path.relative_to(self.root))) for path in paths)
        return {text for text in texts if text}

    def cpu_quota(self) -> float | None:
        """Cores that the control group of this process may use; None: all."""
        quota, _, period = (self.text("sys/fs/cgroup/cpu.max") or "max").partition(" ")
        return None if quota == "max" or not period else int(quota) / int(period)

    def softnet(self) -> Softnet | None:
        """What became of packets between the driver and the protocols."""
        lines = (self.text("proc/net/softnet_stat") or "").splitlines()
        rows = [[int(column, 16) for column in line.split()[:3]] for line in lines]
        return Softnet(*(sum(column) for column in zip(*rows, strict=True))) if rows else None

    def clock_synchronised(self) -> bool | None:
        """Whether somebody (NTP, PTP) keeps CLOCK_REALTIME right (adjtimex(2))."""
        clock = ctypes.create_string_buffer(512)  # struct timex and more; modes 0: change nothing
        if ctypes.CDLL(None, use_errno=True).adjtimex(clock) < 0:
            return None
        *_, status = _TIMEX.unpack_from(clock)
        return not status & _STA_UNSYNC

    def port_owner(self, protocol: str, port: int) -> PortOwner | None:
        """Who has a local port of "udp" or "tcp" (listening); other users' need root."""
        inodes = {
            f"socket:[{row[9]}]"
            for table in (protocol, f"{protocol}6")
            for line in (self.text(f"proc/net/{table}") or "").splitlines()[1:]
            if (row := line.split())
            and int(row[1].rpartition(":")[2], 16) == port
            and (protocol == "udp" or row[3] == "0A")  # TCP_LISTEN
        }
        for directory in (self.root / "proc").glob("[0-9]*/fd"):
            if inodes & _links(directory):
                pid = int(directory.parent.name)
                command = (self.text(f"proc/{pid}/cmdline") or "").replace("\0", " ").strip()
                return PortOwner(pid, command)
        return None


def _links(directory: Path) -> set[str]:
    """What the links in `directory` point to; nothing if it is another user's, or gone."""
    found = set()
    with contextlib.suppress(OSError):
        for link in directory.iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                found.add(str(link.readlink()))
    return found


def _ethtool(interface: str, request: bytes, room: int) -> bytes:
    """An ethtool ioctl (<linux/ethtool.h>): the request with the answer written over it."""
    buffer = ctypes.create_string_buffer(request, len(request) + room)
    ifreq = struct.pack("@16sP16x", interface.encode()[:15], ctypes.addressof(buffer))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCETHTOOL, ifreq)
    return buffer.raw


def _feature_count(interface: str) -> int:
    request = struct.pack("=IIQ", _GSSET_INFO, 0, 1 << _SS_FEATURES)
    return int(struct.unpack_from("=I", _ethtool(interface, request, 4), 16)[0])
