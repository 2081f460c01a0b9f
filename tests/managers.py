"""A SessionManager over a real engine and store; the clock is the test's, and the store's disk."""

from __future__ import annotations

import dataclasses
import ipaddress
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rtpfanout import netif
from rtpfanout._fastpath import Engine
from rtpfanout.errors import UnavailableError
from rtpfanout.model import Address
from rtpfanout.policy import AddressPolicy
from rtpfanout.sessions import Limits, SessionManager
from rtpfanout.store import MEMORY, Store
from rtpfanout.traffic import rtp

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from rtpfanout.ingest_ports import IngestPorts

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
        ingress=engine.bound,
        sends_ipv4=engine.sockets.sends_ipv4,
        sends_ipv6=engine.sockets.sends_ipv6,
        allow=(),
        deny=(),
        loopback_allowed=True,
        is_local=netif.address_is_local,
    )


def manager_of(
    engine: Engine,
    clock: Clock,
    store: Store | None = None,
    ports: IngestPorts | None = None,
    **limits: Any,
) -> SessionManager:
    """Of the limits of conftest's engine, unless told otherwise."""
    values = {"sessions": 50, "fanout": 3, "session_timeout_ns": 30 * SECOND} | limits
    return SessionManager(
        engine,
        policy_of(engine),
        store or Store(MEMORY),
        limits=Limits(**values),
        ports=ports,
        monotonic_ns=clock,
        utc_now=lambda: MOMENT + timedelta(microseconds=(clock.now - START) // 1000),
    )


def deny(manager: SessionManager, network: str) -> None:
    """The address policy denies this network from now on, and nothing else."""
    rules = manager._rules
    policy = dataclasses.replace(rules.policy, deny=(ipaddress.ip_network(network),))
    manager.reconfigure(policy, rules.limits)


def subscribers(manager: SessionManager, session_id: str) -> list[str]:
    """Their addresses."""
    return [str(view.address) for view in manager.list_subscribers(session_id)[0]]


def send(
    source: socket.socket, engine: Engine, ssrc: int, *, count: int = 1, payload: bytes = b"x"
) -> None:
    """Packets to the engine."""
    for number in range(count):
        packet = rtp.build(payload, ssrc=ssrc, sequence=number, timestamp=number)
        source.sendto(packet, (str(engine.bound.ip), engine.bound.port))


class Gate(Store):
    """A real store that holds back what is submitted, or refuses it, when told to."""

    def __init__(self, path: str = MEMORY) -> None:
        super().__init__(path)
        self.is_open = threading.Event()
        self.is_open.set()
        self.refuses = False
        self.refuses_next = False
        self.entered = threading.Semaphore(0)

    def submit(self, changes: Any, revision: int = 0) -> Future[int]:
        done: Future[int] = Future()
        if self.refuses:
            done.set_exception(UnavailableError("the disk is full"))
            return done
        is_refused, self.refuses_next = self.refuses_next, False
        inner = None if is_refused else super().submit(changes, revision)
        self.entered.release()
        if inner is not None and self.is_open.is_set():
            return inner

        def finish() -> None:
            assert self.is_open.wait(30)
            if inner is None:
                done.set_exception(UnavailableError("the disk is full"))
            else:
                done.set_result(inner.result(30))

        threading.Thread(target=finish).start()
        return done


@contextmanager
def engine_of(sessions: int = 50, fanout: int = 3) -> Iterator[Engine]:
    """Without a packet loop: nothing waits for one."""
    yield Engine(
        Address.parse("127.0.0.1:0"),
        max_sessions=sessions,
        max_subscribers=fanout,
        receive_queue_packets=64,
    )
