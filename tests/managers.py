"""A SessionManager over a real engine, whose clock is the test's."""

from __future__ import annotations

import dataclasses
import ipaddress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rtpfanout import netif, rtp
from rtpfanout.policy import AddressPolicy
from rtpfanout.sessions import Limits, SessionManager
from rtpfanout.store import MEMORY, Store

if TYPE_CHECKING:
    import socket

    from rtpfanout._fastpath import Engine

SECOND = 1_000_000_000
SOURCE = "192.0.2.1:5000"
SUBSCRIBER = "127.0.0.1:6000"
START = 1000 * SECOND
MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""What the wall clock says when the monotonic one is at START."""


class Clock:
    """Monotonic nanoseconds that move when told to."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


def policy_of(engine: Engine) -> AddressPolicy:
    """Nothing configured, loopback allowed."""
    return AddressPolicy(
        ingest=engine.bound,
        sends_ipv4=engine.sends_ipv4,
        sends_ipv6=engine.sends_ipv6,
        allow=(),
        deny=(),
        loopback_allowed=True,
        is_local=netif.address_is_local,
    )


def manager_of(
    engine: Engine, clock: Clock, store: Store | None = None, **limits: Any
) -> SessionManager:
    """Of the limits of conftest's engine, unless told otherwise."""
    values = {"sessions": 50, "fanout": 3, "session_timeout_ns": 30 * SECOND} | limits
    return SessionManager(
        engine,
        policy_of(engine),
        store or Store(MEMORY),
        limits=Limits(**values),
        monotonic_ns=clock,
        utc_now=lambda: MOMENT + timedelta(microseconds=(clock.now - START) // 1000),
    )


def deny(manager: SessionManager, network: str) -> None:
    """The address policy denies this network from now on, and nothing else."""
    registry = manager._registry
    policy = dataclasses.replace(registry.policy, deny=(ipaddress.ip_network(network),))
    manager.reconfigure(policy, registry.limits)


def send(
    source: socket.socket, engine: Engine, ssrc: int, *, count: int = 1, payload: bytes = b"x"
) -> None:
    """Packets to the engine."""
    for number in range(count):
        packet = rtp.build(payload, ssrc=ssrc, sequence=number, timestamp=number)
        source.sendto(packet, (str(engine.bound.ip), engine.bound.port))
