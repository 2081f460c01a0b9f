"""Contenders without a process: the kernel copies the packets by itself, as it is told by rules.

Each has a link of its own from the generator, whose receiving runs in a kernel thread of its own
(threaded NAPI), on the contender's CPU: that thread's CPU time, and what it leaves to ksoftirqd
there, is the contender's.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from contenders import BIN, HERE, Contender
from lab import UDP_IPV4_HEADERS, LabError, NamespaceLab, free_port, listed, run

if TYPE_CHECKING:
    from lab import Lab

NAPI_WEIGHT = 64  # packets that one poll takes, all copies of which wait for the next softirq
BACKLOG = Path("/proc/sys/net/core/netdev_max_backlog")


class InKernel(Contender):
    """Copies each packet, with its destination rewritten, straight to the egress interface."""

    takes_gso = False  # no socket asks for UDP_GRO, so a NIC hands packets over one by one
    programs: ClassVar[tuple[str, ...]] = ()
    _links = 0

    def __init__(self, lab: Lab, cpus: str, control_cpus: str, workers: int = 1) -> None:
        super().__init__(lab, cpus, control_cpus, workers)
        InKernel._links += 1
        self._number = InKernel._links
        self._link = f"k{self._number}"
        self._backlog: str | None = None

    @classmethod
    def missing(cls) -> str | None:
        if os.geteuid() != 0:
            return "it needs network namespaces, hence root"
        absent = [program for program in cls.programs if shutil.which(program) is None]
        return f"{', '.join(absent)} is not installed" if absent else None

    def start(self, *, first_ssrc: int, sessions: int, subscribers: int, queue: int) -> None:  # noqa: ARG002
        if not isinstance(self.lab, NamespaceLab):
            raise LabError(f"{self.name} needs network namespaces")
        if sessions != 1:
            raise LabError(f"{self.name} looks nothing up: one session only")
        self.subscribers = subscribers
        address = self.lab.add_ingress(self._link, self._number)
        self.port = free_port()
        self.ingress = f"{address}:{self.port}"
        self._own_thread()
        # All copies of one poll wait in the subscribers' backlog until the poll is over.
        self._backlog = BACKLOG.read_text()
        BACKLOG.write_text(str(max(int(self._backlog), 2 * NAPI_WEIGHT * 64 * subscribers)))
        self.install()

    def install(self) -> None:
        """Have the packets that arrive on the link copied."""
        raise NotImplementedError

    def _own_thread(self) -> None:
        """Let a kernel thread receive on the link, on the contender's CPU."""
        assert isinstance(self.lab, NamespaceLab)
        # veth uses NAPI for what GRO could merge, and for what comes from a sender without TSO.
        set_offload = ["ethtool", "-K", self._link]
        run(*self.lab.command("generator", [*set_offload, "tso", "off"]))
        merging = "on" if self.takes_gso else "off"
        merge = ["gro", "on", "rx-udp-gro-forwarding", merging]
        run(*self.lab.command("server", [*set_offload, *merge]))
        self.lab.write_sysfs("server", f"class/net/{self._link}/threaded", "1")
        self._threads = [
            int(comm.parent.name)
            for comm in Path("/proc").glob("[0-9]*/comm")
            if _text(comm).startswith(f"napi/{self._link}-")
        ]
        if not self._threads:
            raise LabError("this kernel has no threaded NAPI for veth")
        for pid in self._threads:
            run("taskset", "-pc", self.cpus, str(pid))
        names = {f"ksoftirqd/{cpu}\n" for cpu in listed(self.cpus)}
        self._threads += [
            int(comm.parent.name)
            for comm in Path("/proc").glob("[0-9]*/comm")
            if _text(comm) in names
        ]

    def counters(self) -> dict[str, int]:
        """As received: what the link handed over. Each rule copies without condition: whether
        the copies got there, the count at the subscribers' interface says."""
        listing = ["ip", "-j", "-s", "link", "show", self._link]
        (link,) = json.loads(run(*self.lab.command("server", listing)))
        arrived = link["stats64"]["rx"]  # with NAPI, veth counts bytes without the Ethernet header
        payload = arrived["bytes"] - UDP_IPV4_HEADERS * arrived["packets"]
        received = payload // self.packet_size
        return {"received": received, "sent": received * self.subscribers, "failed": 0}

    def cpu_seconds(self) -> float:
        nanoseconds = 0
        for pid in self._threads:
            nanoseconds += int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def stop(self) -> None:
        if self._backlog is not None:
            BACKLOG.write_text(self._backlog)
        if isinstance(self.lab, NamespaceLab):
            self.lab.remove_ingress(self._link)

    def _egress(self) -> tuple[str, str, int]:
        """MAC addresses of the way out (of the next hop, of ours) and its interface's index."""
        assert isinstance(self.lab, NamespaceLab)
        listing = ["ip", "-j", "link", "show"]
        (ours,) = json.loads(run(*self.lab.command("server", [*listing, "egress"])))
        (theirs,) = json.loads(run(*self.lab.command("subscribers", [*listing, "eth0"])))
        return theirs["address"], ours["address"], ours["ifindex"]


class NftDup(InKernel):
    """nftables at the netdev ingress hook: a rule per subscriber sets the port (or address) and
    duplicates to the egress interface."""

    name = "nftdup"
    programs = ("nft",)

    def install(self) -> None:
        to, ours, _ = self._egress()
        assert isinstance(self.lab, NamespaceLab)
        first, *_ = addresses = self.lab.addresses.subscribers(self.subscribers)
        ip, port = first.rsplit(":", 1)
        each = (
            f"ip daddr set {address.rsplit(':', 1)[0]}"
            if self.lab.addresses.by_address
            else f"udp dport set {address.rsplit(':', 1)[1]}"
            for address in addresses
        )
        alike = f"udp dport set {port}" if self.lab.addresses.by_address else f"ip daddr set {ip}"
        copies = "\n".join(f'{change} dup to "egress"' for change in each)
        rules = f"""table netdev {self.name}{self._number} {{
            chain copies {{
                ether daddr set {to} ether saddr set {ours}
                ip saddr set {self.lab.egress_address} udp sport set {self.port}
                {alike}
                {copies}
                drop
            }}
            chain arriving {{
                type filter hook ingress device "{self._link}" priority 0; policy accept;
                udp dport {self.port} goto copies
            }}
        }}"""
        run(*self.lab.command("server", ["nft", "-f", "-"]), stdin=rules)


class TcClone(InKernel):
    """A BPF program at clsact ingress: bpf_clone_redirect for each subscriber (tcclone.c)."""

    name = "tcclone"
    programs = ("clang", "tc")

    def install(self) -> None:
        to, ours, interface = self._egress()
        assert isinstance(self.lab, NamespaceLab)
        ip, port = self.lab.addresses.first_subscriber.rsplit(":", 1)
        macs = ",".join(f"0x{byte}" for mac in (to, ours) for byte in mac.split(":"))
        defined = {
            "INGRESS_PORT": self.port,
            "EGRESS": interface,
            "COUNT": self.subscribers,
            "FIRST_ADDRESS": int(ipaddress.ip_address(ip)),
            "SOURCE_ADDRESS": int(ipaddress.ip_address(self.lab.egress_address)),
            "FIRST_PORT": port,
            "MACS": macs,
            **({"BY_ADDRESS": 1} if self.lab.addresses.by_address else {}),
        }
        program = BIN / f"tcclone-{os.getpid()}-{self._number}.o"
        multiarch = run("cc", "-print-multiarch").strip()
        run(
            *("clang", "-O2", "-g", "-target", "bpf", f"-I/usr/include/{multiarch}"),
            *(f"-D{name}={value}" for name, value in defined.items()),
            *("-c", str(HERE / "tools" / "tcclone.c"), "-o", str(program)),
        )
        try:
            run(*self.lab.command("server", ["tc", "qdisc", "add", "dev", self._link, "clsact"]))
            load = ["tc", "filter", "add", "dev", self._link, "ingress", "bpf", "direct-action"]
            run(*self.lab.command("server", [*load, "object-file", str(program), "section", "tc"]))
        finally:
            program.unlink(missing_ok=True)


class NftDupGro(NftDup):
    """With bursts merged beforehand, as by a NIC with `rx-udp-gro-forwarding on`."""

    name = "nftdup-gro"
    takes_gso = True


class TcCloneGro(TcClone):
    """The same for tcclone."""

    name = "tcclone-gro"
    takes_gso = True


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


IN_KERNEL: dict[str, type[Contender]] = {
    kind.name: kind for kind in (NftDup, TcClone, NftDupGro, TcCloneGro)
}
