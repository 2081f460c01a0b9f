"""The server that runs here: what it really has, which need not be what this user would get."""

from __future__ import annotations

import http.client
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.doctor.finding import Finding, Level, ok, warn

if TYPE_CHECKING:
    from rtpfanout.config import Settings
    from rtpfanout.host import Host
    from rtpfanout.model import Address

SUBJECT = "running server"
_PATIENCE_SECS = 3.0
_LARGEST_PAGE = 4 << 20
_CAP_NET_ADMIN, _CAP_NET_RAW = 12, 13  # linux/capability.h
_WITHOUT_ADMIN = "buffers are what net.core.rmem_max and wmem_max allow"
_WITHOUT_RAW = "ICMP errors are not heard, so no subscriber is port_closed"

Samples = Mapping[str, Mapping[str, float]]
"""Of a page of metrics: by name, and by the first label's value ("" without)."""


class Running(NamedTuple):
    """A server that tells of itself. `needs_restart`: keys that it has not got yet."""

    pid: int
    server_pid: int
    bind_address: str
    needs_restart: Sequence[str] = ()


def check_running(settings: Settings, host: Host, running: Sequence[Running]) -> Iterator[Finding]:
    """Of each its process; of the one with these settings also what its metrics say."""
    for each in running:
        yield from _process(host, each)
    samples = _asked(settings.metrics_bind_address) if settings.enable_metrics else None
    if samples:
        yield from check_metrics(samples)
    elif running:
        yield ok(SUBJECT, "its metrics are not to be had at metrics_bind_address")
    else:
        yield ok(SUBJECT, "none: no file tells of one, nor do metrics at metrics_bind_address")


def _process(host: Host, server: Running) -> Iterator[Finding]:
    subject = f"server {server.server_pid}"
    status = host.text(f"proc/{server.server_pid}/status") or ""
    words = dict(line.partition(":")[::2] for line in status.splitlines())
    try:
        effective = int(words["CapEff"], 16)
    except (KeyError, ValueError):
        yield ok(subject, f"at {server.bind_address}; its capabilities cannot be read here")
    else:
        lacks = [
            f"no {name}: {what}"
            for name, bit, what in (
                ("CAP_NET_ADMIN", _CAP_NET_ADMIN, _WITHOUT_ADMIN),
                ("CAP_NET_RAW", _CAP_NET_RAW, _WITHOUT_RAW),
            )
            if not effective >> bit & 1
        ]
        has = "; ".join(lacks) or "with CAP_NET_ADMIN and CAP_NET_RAW"
        yield ok(subject, f"at {server.bind_address}, {has}")
    if server.needs_restart:
        keys = ", ".join(server.needs_restart)
        yield warn(subject, f"{keys}: changed, and not in force before a restart or an upgrade")


def check_metrics(samples: Samples) -> Iterator[Finding]:
    """Of its page: what it lost, what it lacks."""

    def of(name: str, label: str = "") -> int:
        return int(samples.get(name, {}).get(label, 0))

    yield _receive_queue(
        of("rtpfanout_receive_buffer_bytes") // 2,  # socket(7): the kernel doubles it
        of("rtpfanout_kernel_receive_drops_total"),
        of("rtp_packets_received_total"),
    )
    lanes = of("rtpfanout_egress_lanes")
    send = of("rtpfanout_send_buffer_bytes") // 2
    full = of("rtpfanout_send_failures_total", "would_block")
    text = f"{send} bytes, {lanes} of them; {full} copies found one full since its start"
    yield (warn if full else ok)("its send buffer", text)
    workers, receiving = of("rtpfanout_workers"), of("rtpfanout_receiving_workers")
    text = f"{workers}, of which {receiving} receive"
    yield (warn if receiving < workers else ok)("its workers", text)
    yield from _troubles(samples)


def _receive_queue(size: int, dropped: int, received: int) -> Finding:
    text = f"{size} bytes; {dropped} packets dropped for want of room since its start"
    if not dropped:
        return ok("its receive queue", text)
    share = dropped / (dropped + received)
    return warn("its receive queue", f"{text} ({share:.2%}): raise buffer_size, or it lacks CPU")


def _troubles(samples: Samples) -> Iterator[Finding]:
    passed = [mark for mark, on in samples.get("rtpfanout_overload_mark_passed", {}).items() if on]
    if passed:
        yield warn("its overload", f"marks are passed: {', '.join(passed)}; it takes nobody new")
    groups = samples.get("rtpfanout_ingest_group_joined", {})
    if missing := [group for group, joined in groups.items() if not joined]:
        yield warn("its multicast", f"not joined: {', '.join(missing)}; its log says why")
    if any(samples.get("rtpfanout_store_failing", {}).values()):
        yield Finding(Level.FAIL, "its store", "changes can't be written; its log says why")
    if lost := int(sum(samples.get("rtpfanout_log_lines_lost_total", {}).values())):
        yield warn("its log", f"{lost} lines found no reader")


def _asked(address: Address) -> Samples | None:
    """What its page says; None: there is none of rtpfanout's."""
    host = str(address.ip)
    if address.ip.is_unspecified:
        host = "::1" if address.ip.version == 6 else "127.0.0.1"
    if not address.port:
        return None
    connection = http.client.HTTPConnection(host, address.port, timeout=_PATIENCE_SECS)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read(_LARGEST_PAGE).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return parse(text) if response.status == http.client.OK else None


def parse(text: str) -> Samples | None:
    """None: it is no page of rtpfanout's."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, dict[str, float]] = defaultdict(dict)
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                label = next(iter(sample.labels.values()), "")
                found[sample.name][label] = sample.value
    except (ValueError, KeyError, IndexError):
        return None
    return found if "rtpfanout_build_info" in found else None
