"""Queues and tables of the kernel on the way of packets, and cores and clocks beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rtpfanout.doctor.finding import at_least, ok, warn
from rtpfanout.workers import worker_count

if TYPE_CHECKING:
    from rtpfanout.config import Settings
    from rtpfanout.doctor.finding import Finding
    from rtpfanout.host import Host

ENOUGH_WAITING = 32 << 10
"""Bytes that may wait for one neighbour to be found: a frame or two, not a backlog."""
SQUEEZED_SHARE = 1e-4
_FULL = "with more subscribers on the same link than it holds, sends fail (ENOBUFS)"
_NO_ROOM = "the first frame to a subscriber is lost while its neighbour entry is made"


def check_kernel(settings: Settings, host: Host) -> Iterator[Finding]:
    """Neighbours, connection tracking, softnet queues, cores, clock, reverse path filter."""
    yield from _neighbours(settings, host)
    yield from _conntrack(settings, host)
    yield from _softnet(host)
    yield from _cores(settings, host)
    yield _clock(host)
    yield _reverse_path(host)


def _neighbours(settings: Settings, host: Host) -> Iterator[Finding]:
    wanted = 2 * settings.max_fanout_per_session
    families = ["ipv4", "ipv6"] if settings.bind_address.ip.version == 6 else ["ipv4"]
    for family in families:
        name = f"net.{family}.neigh.default"
        for key, least, why in (
            ("gc_thresh3", wanted, _FULL),
            ("gc_thresh2", wanted // 2, "beyond it entries in use are looked for again and again"),
            ("unres_qlen_bytes", ENOUGH_WAITING, _NO_ROOM),
        ):
            yield at_least(host, f"{name}.{key}", least, why)


def _conntrack(settings: Settings, host: Host) -> Iterator[Finding]:
    count = host.sysctl("net.netfilter.nf_conntrack_count")
    limit = host.sysctl("net.netfilter.nf_conntrack_max")
    if count is None or limit is None:
        yield ok("conntrack", "not loaded")
        return
    port = settings.bind_address.port
    text = f"{count} of {limit} entries"
    if count == 0:
        yield ok("conntrack", f"{text}: it tracks nothing here")
    elif _untracked(port):
        yield ok("conntrack", f"{text}; port {port} is untracked")
    else:
        yield warn(
            "conntrack",
            f"{text}: it looks at every packet and copy, and a full table drops them",
            "nft add table inet rtpfanout",
            "nft 'add chain inet rtpfanout in { type filter hook prerouting priority raw; }'",
            "nft 'add chain inet rtpfanout out { type filter hook output priority raw; }'",
            f"nft add rule inet rtpfanout in udp dport {port} notrack",
            f"nft add rule inet rtpfanout out udp sport {port} notrack",
        )


def _untracked(port: int) -> bool:
    """A notrack rule for our port, in either direction, as far as this user may see rules."""
    for command in (["nft", "list", "ruleset"], ["iptables-save", "-t", "raw"]):
        if shutil.which(command[0]) is None:
            continue
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        for line in done.stdout.splitlines():
            words = line.lower().replace(":", " ").split()
            if str(port) in words and ("notrack" in words or "--notrack" in words):
                return True
    return False


def _softnet(host: Host) -> Iterator[Finding]:
    softnet = host.softnet()
    backlog = host.sysctl("net.core.netdev_max_backlog")
    budget = host.sysctl("net.core.netdev_budget")
    if softnet is None:
        return
    text = f"{softnet.dropped} of {softnet.processed} packets dropped since the start"
    if backlog is None:  # these sysctls are the host's, and no other network namespace has them
        text += "; its sysctls can be read, and set, on the host alone"
        yield (warn if softnet.dropped else ok)("softnet", text)
        return
    subject = "net.core.netdev_max_backlog"
    if softnet.dropped:
        wanted = max(10_000, 2 * backlog)
        yield warn(subject, f"{backlog}, {text}: raise it", sysctls={subject: str(wanted)})
    else:
        yield ok(subject, f"{backlog}, {text}")
    subject = "net.core.netdev_budget"
    text = f"{budget}, used up {softnet.squeezed} times"
    if budget is not None and softnet.squeezed > softnet.processed * SQUEEZED_SHARE:
        yield warn(
            subject,
            f"{text}: packets wait in the ring",
            sysctls={
                subject: str(2 * budget),
                "net.core.netdev_budget_usecs": str(
                    2 * (host.sysctl("net.core.netdev_budget_usecs") or 2000)
                ),
            },
        )
    else:
        yield ok(subject, text)


def _cores(settings: Settings, host: Host) -> Iterator[Finding]:
    cores, quota = len(os.sched_getaffinity(0)), host.cpu_quota()
    workers = worker_count(settings.workers)
    text = f"{workers} workers on {cores} cores"
    if quota is not None and quota < workers:
        yield warn(
            "cores",
            f"{text}, of which the control group allows {quota:g}: workers are stopped when the "
            "quota is used up, for tens of milliseconds",
            f"RTP_FANOUT__WORKERS={max(1, int(quota))}",
        )
    elif workers > cores:
        yield warn("cores", f"{text}: they take turns", f"RTP_FANOUT__WORKERS={cores}")
    else:
        yield ok("cores", text)
    slow = host.governors() - {"performance"}
    if slow:
        yield warn(
            "CPU governor",
            f"{', '.join(sorted(slow))}: the first packets after a pause meet a slow core",
            "cpupower frequency-set -g performance",
        )
    else:
        names = ", ".join(host.governors()) or "none (as on virtual machines)"
        yield ok("CPU governor", names)


def _clock(host: Host) -> Finding:
    synchronised = host.clock_synchronised()
    if synchronised:
        return ok("clock", "synchronised")
    if synchronised is None:
        return ok("clock", "its state cannot be read")
    return warn(
        "clock",
        "not synchronised: log times and latencies between hosts are off; the server's own "
        "latency histogram is not",
        "timedatectl set-ntp true  # or chrony, ptp4l",
    )


def _reverse_path(host: Host) -> Finding:
    everywhere = host.sysctl("net.ipv4.conf.all.rp_filter") or 0
    interfaces = host.interfaces()
    strict = [
        name
        for name in interfaces
        if max(everywhere, host.number(f"proc/sys/net/ipv4/conf/{name}/rp_filter") or 0) == 1
    ]
    if strict and len(interfaces) > 1:
        return warn(
            "reverse path filter",
            f"strict on {', '.join(strict)}: packets of a source whose way back is another "
            "interface vanish uncounted",
            sysctls={f"net.ipv4.conf.{name}.rp_filter": "2" for name in strict}
            | ({"net.ipv4.conf.all.rp_filter": "2"} if everywhere == 1 else {}),
        )
    return ok("reverse path filter", "strict, one interface" if strict else "not strict")
