"""The server: the packet path, the control API and the HTTP side, begun in this order.

Packets flow before gRPC and the web server are even imported. On the way out the order
is reversed, after whoever watches our health has been told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from rtpfanout import _fastpath, descriptors, log
from rtpfanout.assembly import (
    address_policy_of,
    control_server,
    hook_of,
    http_server,
    limits_of,
    open_engine,
    rtsp_door,
    side_ports_of,
    store_path,
)
from rtpfanout.config import changed_keys, live_settings
from rtpfanout.doorman import Doorman
from rtpfanout.groups import Kernel, Memberships
from rtpfanout.housekeeping import housekeep
from rtpfanout.ingest_ports import IngestPorts
from rtpfanout.listening import listener
from rtpfanout.model import Address, parse_ip
from rtpfanout.netif import LocalAddresses
from rtpfanout.reach import Reach
from rtpfanout.sessions import APART_SECONDS, SessionManager
from rtpfanout.store import Store
from rtpfanout.workers import Workers, cpus_of

if TYPE_CHECKING:
    import socket

    from rtpfanout.assembly import Start
    from rtpfanout.auth import Access
    from rtpfanout.config import Settings
    from rtpfanout.hooks import Hook
    from rtpfanout.http import HttpServer
    from rtpfanout.policy import AddressPolicy
    from rtpfanout.rtsp import Door
    from rtpfanout.service import ControlServer

RESUME_SECONDS = 5.0
"""In which the store must be free again after a hand-over that came to nothing."""
CALL_GRACE_SECONDS = 0.25
"""What is left to running calls at the end; the whole of `stop` has to fit in a second."""
_log = structlog.stdlib.get_logger(__name__)


class Server:
    """One server in the running event loop: `start` it once, then `stop` it once.

    `ingress_address`, `grpc_address`, `metrics_address` and `rtsp_address` (None without) are what
    is really bound, once `start` has returned. `finished` is set when a packet loop ends
    by itself, which `failed` tells; a signal handler may set it too. `requests` counts calls by
    (method, status code), `ended` connections that were sent away, by why.
    """

    ingress_address: Address
    grpc_address: Address
    metrics_address: Address | None = None
    rtsp_address: Address | None = None
    engine: _fastpath.Engine
    manager: SessionManager
    memberships: Memberships
    store: Store | None = None
    _local: LocalAddresses | None = None
    access: Access
    _reach: Reach | None = None

    def __init__(self, start: Start) -> None:
        self.settings = start.settings
        self._start = start
        self._listener: socket.socket | None = None
        self.finished = asyncio.Event()
        self._is_ready = False
        self.requests: Counter[tuple[str, str]] = Counter()
        self.ended = Counter(http_crowded=0, http_late=0, api_crowded=0)
        self._workers: Workers | None = None
        self.doorman: Doorman | None = None
        self.hook: Hook | None = None
        self._control: ControlServer | None = None
        self.rtsp: Door | None = None
        self._http: HttpServer | None = None
        self._http_task: asyncio.Task[None] | None = None
        self._housekeeping: asyncio.Task[None] | None = None

    @property
    def is_alive(self) -> bool:
        """All packet loops run."""
        return self._workers is not None and self._workers.are_alive

    @property
    def _has_page(self) -> bool:
        return self.settings.enable_metrics and self.settings.enable_page

    @property
    def failed(self) -> bool:
        """A packet loop ended by itself."""
        return self._workers is not None and self._workers.failed

    def worker_can_run(self, index: int) -> bool:
        """See Workers.can_run."""
        return self._workers is not None and self._workers.can_run(index)

    @property
    def is_ready(self) -> bool:
        """Packets and calls are taken: not while starting, stopping, or without a packet loop."""
        return self._is_ready and self.is_alive

    async def start(
        self,
        on_packets: Callable[[], object] = lambda: None,
        our_turn: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Returns when packets and calls are taken. Raises StartError, everything undone.

        `on_packets` is called as soon as packets flow. Who waits for another server to end gives
        `our_turn`: it is awaited when all that can be done beside that one has been done.
        """
        try:
            self.prepare()
            if our_turn:
                self.catch_up()
                await our_turn()
            self.start_packets()
            on_packets()
            if not our_turn:  # packets first
                self.catch_up()
            await self.start_serving()
        except BaseException:
            await self.stop()
            raise

    def prepare(self) -> None:
        """Everything up to the first packet. Raises StartError."""
        descriptors.raise_limit()
        settings = self.settings
        self.engine = open_engine(self._start)
        self.ingress_address = self.engine.bound
        self._local = LocalAddresses()
        if self._local.fault:
            _log.warning("this host's addresses can't be read", reason=self._local.fault)
        start = self._start
        self.store = Store(store_path(settings), trusts=start.trusts_store, on_trial=start.waits)
        self.manager = SessionManager(
            self.engine,
            self._policy(),
            self.store,
            limits=limits_of(settings),
            ports=IngestPorts(
                self.engine, self._start.kept, settings.ingest_ports, settings.buffer_size
            ),
        )
        self.manager.restore_packets(self._local.interfaces)
        self.memberships = Memberships(self.engine, settings.ingest_groups, Kernel())
        self.memberships.look()
        self._show_local_addresses()

    def start_packets(self) -> None:
        """From here on packets are forwarded."""
        loop = asyncio.get_running_loop()

        def on_end() -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(self.finished.set)

        cpus = cpus_of(self.settings.workers, self.settings.worker_cpus)
        self._workers = Workers(
            self.engine,
            self.engine.workers,
            cpus,
            on_end,
            may_leave=not self.settings.worker_cpus,
        )
        self._workers.start()

    def catch_up(self) -> None:
        """What calls and control datagrams need and packets don't, once after `prepare`.

        The addresses of the API and of metrics are ours then; nobody is answered yet. Raises
        StartError.
        """
        restored = self.manager.restore()
        if restored.sessions:
            _log.info(
                "restored",
                store=self.store.path if self.store else None,
                sessions=restored.sessions,
                subscribers=restored.subscribers,
                expired_subscribers=restored.expired_subscribers,
            )
        self._bind_serving()

    def _bind_serving(self) -> None:
        from rtpfanout.auth import Access

        self.doorman = Doorman(
            self.engine, self.manager.signals, consent_secs=self.settings.consent.timeout_secs
        )
        self.access = Access.of(self.settings)
        self.hook = self.hook or hook_of(self)
        self._control, self.grpc_address = control_server(self)
        if self.settings.rtsp_bind_address:
            self.rtsp, self.rtsp_address = rtsp_door(self, self.settings.rtsp_bind_address)
        if self.settings.enable_metrics:
            self._bind_http()

    async def start_serving(self) -> None:
        """After `catch_up`: from here on calls are taken. Raises StartError."""
        assert self._workers
        if self.store:
            await asyncio.to_thread(self.store.settle)
        if self.doorman:
            self.doorman.attach(asyncio.get_running_loop())
        if self._control:
            await self._control.start()
        if self.rtsp:
            self.rtsp.start()
        if self._listener:
            self._start_http(self._listener)
        if self.hook:
            self.hook.start()
        self._begin_to_listen()
        self._housekeeping = asyncio.create_task(
            housekeep(
                self.engine,
                self.manager.housekeeping,
                self.memberships,
                self._workers.look_at_cpus,
                self.manager.reaching.look,
                self._show_local_addresses,
                lambda: self.settings.session_timeout_secs,
                [(self.manager.overview.history.look, APART_SECONDS)] if self._has_page else [],
            )
        )
        self._is_ready = True
        # The keys of the configuration, so that a reader of the log can find the ports.
        _log.info(
            "ready",
            bind_address=str(self.ingress_address),
            grpc_bind_address=str(self.grpc_address),
            metrics_bind_address=str(self.metrics_address) if self.metrics_address else None,
            **({"rtsp_bind_address": str(self.rtsp_address)} if self.rtsp_address else {}),
            pid=os.getpid(),
            workers=self.engine.workers,
            receiving_workers=self.engine.sockets.receiving_workers,
            gso=self.engine.sockets.gso,
            gro=self.engine.sockets.gro,
            packets_recovered=self.engine.stats()["packets_recovered"],
        )

    async def drain(self) -> None:
        """Tells those who watch our health, then goes on with packets for `drain_secs`."""
        self._is_ready = False
        if self._control:
            await self._control.drain()
        await asyncio.sleep(self.settings.drain_secs)

    async def reconfigure(
        self, settings: Settings, needs_restart: Sequence[str] | None = None
    ) -> Sequence[str]:
        """Applies what can change while running; the keys that differ and need a restart.

        `needs_restart`: who sends `settings` knows them already, and has left them out. When it
        returns no more packets leave to subscribers that the address policy refuses now.
        """
        live, others = changed_keys(self.settings, settings)
        needs_restart = others if needs_restart is None else needs_restart
        self.settings = live_settings(self.settings, settings)
        log.configure(self.settings.log.level, self.settings.log.format)
        policy = self._policy()
        await asyncio.to_thread(self.manager.reconfigure, policy, limits_of(self.settings))
        await asyncio.to_thread(self.memberships.reconfigure, self.settings.ingest_groups)
        refused = 0
        if any(key.startswith(("address_policy.", "limits.")) for key in live):
            refused = await asyncio.to_thread(self.manager.housekeeping.judge_policy)
            if self.rtsp:
                await self.rtsp.look()
        _log.info(
            "configuration reloaded",
            changed=live,
            needs_restart=needs_restart,
            refused_subscribers=refused,
        )
        return needs_restart

    async def stop_serving(self) -> None:
        """Takes no more calls, changes nothing any more, and lets go of the store.

        Running calls get CALL_GRACE_SECONDS; packets go on.
        """
        self._is_ready = False
        was_serving = self._housekeeping is not None
        if self._housekeeping:
            self._housekeeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._housekeeping
            self._housekeeping = None
        if self._control:
            await self._control.drain()
            await self._control.stop(CALL_GRACE_SECONDS)
            self._control = None
        if self._reach:
            self.manager.reaching.reach = None
            self._reach.close()
            self._reach = None
        if self.rtsp:
            await self.rtsp.stop()
            self.rtsp = None
        if self.doorman:
            self.doorman.detach()
            await asyncio.to_thread(self.doorman.stop)
            self.doorman = None
        await self._stop_http()
        if self.hook and was_serving:
            await asyncio.to_thread(self.hook.stop, CALL_GRACE_SECONDS / 2)
        if self.store:
            if was_serving:
                await asyncio.to_thread(self.manager.housekeeping.keep_consents)
            await asyncio.to_thread(self.store.close)

    async def resume_serving(self) -> None:
        """Takes back what `stop_serving` gave up. Raises StartError."""
        found = {"grpc_bind_address": self.grpc_address}  # where any free port is good
        if self.metrics_address:
            found["metrics_bind_address"] = self.metrics_address
        if self.rtsp_address:
            found["rtsp_bind_address"] = self.rtsp_address
        self.settings = self.settings.model_copy(update=found)
        if self.store:
            await asyncio.to_thread(self.store.reopen, RESUME_SECONDS)
        self._bind_serving()
        await self.start_serving()

    async def stop_packets(self, *, leaves_queue: bool = False) -> None:
        """What was received before leaves; with `leaves_queue` it stays in the sockets."""
        if self._workers:
            await asyncio.to_thread(self._workers.stop, leaves_queue=leaves_queue)

    async def stop(self) -> None:
        """Those who watch our health are told first; what was received before leaves."""
        await self.stop_serving()
        await self.stop_packets()
        if self._local:
            self._local.close()

    def _begin_to_listen(self) -> None:
        """To what is said of copies."""
        ports = side_ports_of(self.settings, self.ingress_address)
        reach = Reach((self.ingress_address.port, *ports))
        if reach.deafness:
            _log.info("ICMP errors are not heard", reason=reach.deafness)
        self.manager.reaching.reach = self._reach = reach
        text = self.settings.egress_address
        self.manager.reaching.source = parse_ip(text) if text else None

    def _policy(self) -> AddressPolicy:
        assert self._local
        return address_policy_of(self.engine, self.settings, self._local.is_local)

    def _bind_http(self) -> None:
        self._listener = listener(self.settings.metrics_bind_address, "metrics_bind_address")
        self.metrics_address = Address(
            self.settings.metrics_bind_address.ip, self._listener.getsockname()[1]
        )

    def _start_http(self, listener: socket.socket) -> None:
        self._http = http_server(self)
        self._http_task = asyncio.create_task(self._http.serve_on(listener))

    async def _stop_http(self) -> None:
        if self._http and self._http_task:
            self._http.should_exit = True
            await self._http_task
            self._http = None
        if self._listener:
            self._listener.close()
            self._listener = None

    def _show_local_addresses(self) -> None:
        """Costs one system call while they are what they were."""
        assert self._local
        self.manager.housekeeping.on_local_addresses(self._local.addresses(), self._local.changes)
        if self._is_ready:  # calls can change sessions
            self.manager.housekeeping.on_interfaces(self._local.interfaces)
