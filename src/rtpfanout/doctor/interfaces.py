"""Offloads, MTU and receive ring of each interface that is up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rtpfanout.doctor.finding import ok, warn

if TYPE_CHECKING:
    from rtpfanout.doctor.finding import Finding
    from rtpfanout.host import Feature, Host

SMALLEST_MTU = 1280
"""IPv6's, and room for RTP packets of 1200 bytes. A packet above the MTU leaves in fragments."""
SMALLEST_RING = 1024

CHECKSUMS = ("tx-checksum-ip-generic", "tx-checksum-ipv4")


def check_interfaces(host: Host) -> Iterator[Finding]:
    """Everything about each interface; loopback is left out."""
    for name in host.interfaces():
        features = host.features(name)
        if features is None:
            yield ok(name, "does not tell its offloads")
        else:
            yield from _offloads(name, features)
        yield _mtu(host, name)
        yield from _ring(host, name)


def _offloads(name: str, features: Mapping[str, Feature]) -> Iterator[Finding]:
    yield _segmentation(name, features)
    checksums = [features[key] for key in CHECKSUMS if key in features]
    if any(feature.active for feature in checksums):
        yield ok(f"{name} checksums", "by the device")
    else:
        yield warn(
            f"{name} checksums",
            "not by the device: the kernel adds up every byte, and older kernels refuse "
            "segmented sends (EIO)",
            *(
                (f"ethtool -K {name} tx on",)
                if any(feature.changeable for feature in checksums)
                else ()
            ),
        )
    yield _receive_offload(name, features)


def _segmentation(name: str, features: Mapping[str, Feature]) -> Finding:
    subject, feature = f"{name} tx-udp-segmentation", features.get("tx-udp-segmentation")
    if feature and feature.active:
        return ok(subject, "on: the device cuts a burst into packets")
    if feature and feature.changeable:
        return warn(
            subject,
            "off: the kernel cuts bursts into packets, at several times the cost",
            f"ethtool -K {name} tx-udp-segmentation on",
        )
    return ok(subject, "the device has none: the kernel cuts bursts into packets")


def _receive_offload(name: str, features: Mapping[str, Feature]) -> Finding:
    def is_on(key: str) -> str:
        feature = features.get(key)
        return "none" if feature is None else "on" if feature.active else "off"

    text = ", ".join(
        f"{key} {is_on(key)}" for key in ("rx-gro", "rx-gro-hw", "rx-udp-gro-forwarding")
    )
    if is_on("rx-gro") == "on":
        return ok(f"{name} GRO", text)
    return warn(
        f"{name} GRO", f"{text}: each packet is received on its own", f"ethtool -K {name} gro on"
    )


def _mtu(host: Host, name: str) -> Finding:
    mtu = host.mtu(name)
    if mtu is None:
        return ok(f"{name} MTU", "cannot be read")
    if mtu >= SMALLEST_MTU:
        return ok(f"{name} MTU", f"{mtu} bytes")
    return warn(
        f"{name} MTU",
        f"{mtu} bytes: longer packets leave in fragments, which many networks drop",
        f"ip link set {name} mtu 1500  # if the path allows it",
    )


def _ring(host: Host, name: str) -> Iterator[Finding]:
    ring, missed = host.receive_ring(name), host.missed(name) or 0
    if ring is None:
        return  # virtual devices have none
    text = f"{ring.current} of {ring.maximum}, {missed} packets missed since the start"
    grows = ring.current < ring.maximum
    if grows and (missed or ring.current < SMALLEST_RING):
        yield warn(
            f"{name} receive ring",
            f"{text}: a burst can overflow it",
            f"ethtool -G {name} rx {ring.maximum}",
        )
    else:
        yield (warn if missed else ok)(f"{name} receive ring", text)
