"""The whole API against a model: any order of calls, with packets and kill -9 between them.

One machine drives a real server over gRPC and real sockets. After every step that sends a packet,
exactly those sockets have it that the model says; every list agrees with the model.
"""

from __future__ import annotations

import os
import signal
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from procs import children
from support import ServerProcess, address_of, eventually, queued, receive, rtp_packet, udp_socket

from rtpfanout.api import session_pb2 as pb

SSRCS = (0, 0x1234, 0xFFFFFFFF)
NAMES = ("rover-7/front", "rover-7/rear", "a")
LARGEST = 4  # sessions, and subscribers of one
EXAMPLES = int(os.environ.get("RTPFANOUT_MODEL_EXAMPLES", "6"))


@dataclass
class Modelled:
    """A session as it ought to be; sources and subscribers by number of their socket."""

    ssrc: int
    source: int
    policy: str
    labels: dict[str, str]
    name: str = ""
    paused: bool = False
    subscribers: set[int] = field(default_factory=set)
    received: int = 0

    def admits(self, ssrc: int, source: int) -> bool:
        return (
            ssrc == self.ssrc and not self.paused and (self.policy == "ip" or source == self.source)
        )

    def clashes(self, ssrc: int, source: int, policy: str) -> bool:
        return (ssrc, policy) == (self.ssrc, self.policy) and (
            policy == "ip" or source == self.source
        )


def refusal(call: Any, request: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        call(request)
    code: grpc.StatusCode = caught.value.code()
    return code


class ServerModel(RuleBasedStateMachine):
    """Rules are calls, packets and restarts."""

    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.sources = [udp_socket() for _ in range(3)]
        self.receivers = [udp_socket() for _ in range(LARGEST + 1)]
        self.model: dict[str, Modelled] = {}
        self.sequence = 0
        self.ingest = "127.0.0.1:0"

    @initialize()
    def start(self) -> None:
        self.server = ServerProcess(
            bind_address=self.ingest,
            max_sessions=LARGEST,
            max_fanout_per_session=LARGEST,
            workers=2,
            store__path=Path(self.directory.name, "state.db"),
        )
        self.ingest = str(self.server.ingest)
        self.stub = self.server.stub

    def teardown(self) -> None:
        self.server.check_identities()
        assert self.server.stop() == 0
        for sock in [*self.sources, *self.receivers]:
            sock.close()
        self.directory.cleanup()

    def address(self, source: int) -> str:
        return address_of(self.sources[source])

    def said(self, session: str) -> str:
        """By its name where it has one, which is as good."""
        return self.model[session].name or session

    @rule(
        target=sessions,
        ssrc=st.sampled_from(SSRCS),
        source=st.integers(0, 2),
        policy=st.sampled_from(["exact", "exact", "ip"]),
        site=st.sampled_from(["north", "south"]),
        name=st.sampled_from(["", "", *NAMES]),
        if_exists=st.sampled_from(["", "return"]),
    )
    def create(
        self, ssrc: int, source: int, policy: str, site: str, name: str, if_exists: str
    ) -> Any:
        text = self.address(source) if policy == "exact" else "127.0.0.1"
        request = pb.CreateSessionRequest(
            source_address=text,
            ssrc=ssrc,
            media_type="video",
            source_policy=policy,
            labels={"site": site},
            name=name,
            if_exists=if_exists,
        )
        named = [key for key, s in self.model.items() if name and s.name == name]
        there = named or [key for key, s in self.model.items() if s.clashes(ssrc, source, policy)]
        if there:
            modelled = self.model[there[0]]
            is_same = modelled.clashes(ssrc, source, policy) and (name, {"site": site}) == (
                modelled.name,
                modelled.labels,
            )
            if if_exists and is_same:
                assert self.stub.CreateSession(request).session_id == there[0]
            else:
                code = refusal(self.stub.CreateSession, request)
                assert code is grpc.StatusCode.ALREADY_EXISTS
            return multiple()
        if len(self.model) == LARGEST:
            assert refusal(self.stub.CreateSession, request) is grpc.StatusCode.RESOURCE_EXHAUSTED
            return multiple()
        session = self.stub.CreateSession(request)
        assert (session.source_address, session.name) == (text, name)
        self.model[session.session_id] = Modelled(ssrc, source, policy, {"site": site}, name)
        return session.session_id

    @rule(session=consumes(sessions))
    def delete(self, session: str) -> None:
        name = self.model[session].name
        self.server.delete(self.said(session))
        del self.model[session]
        request = pb.DeleteSessionRequest(session_id=session)
        assert refusal(self.stub.DeleteSession, request) is grpc.StatusCode.NOT_FOUND
        if name:
            request = pb.DeleteSessionRequest(session_id=name)
            assert refusal(self.stub.DeleteSession, request) is grpc.StatusCode.INVALID_ARGUMENT

    @rule(session=sessions, receiver=st.integers(0, LARGEST), ttl=st.sampled_from([0, 3600]))
    def add(self, session: str, receiver: int, ttl: float) -> None:
        there = self.model[session].subscribers
        request = pb.AddSubscriberRequest(
            session_id=self.said(session),
            subscriber_address=address_of(self.receivers[receiver]),
            ttl_secs=ttl,
        )
        if receiver not in there and len(there) == LARGEST:
            code = refusal(self.stub.AddSubscriber, request)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            return
        self.stub.AddSubscriber(request)
        there.add(receiver)

    @rule(session=sessions, receiver=st.integers(0, LARGEST))
    def remove(self, session: str, receiver: int) -> None:
        request = pb.RemoveSubscriberRequest(
            session_id=self.said(session), subscriber_address=address_of(self.receivers[receiver])
        )
        if receiver in self.model[session].subscribers:
            self.stub.RemoveSubscriber(request)
            self.model[session].subscribers.discard(receiver)
        else:
            assert refusal(self.stub.RemoveSubscriber, request) is grpc.StatusCode.NOT_FOUND

    @rule(session=sessions, receivers=st.sets(st.integers(0, LARGEST), min_size=1))
    def add_batch(self, session: str, receivers: set[int]) -> None:
        there = self.model[session].subscribers
        request = pb.BatchAddSubscribersRequest(
            session_id=self.said(session),
            subscriber_addresses=[address_of(self.receivers[i]) for i in receivers],
        )
        if len(there | receivers) > LARGEST:
            code = refusal(self.stub.BatchAddSubscribers, request)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            return
        answer = self.stub.BatchAddSubscribers(request)
        assert (answer.added, answer.already_present) == (
            len(receivers - there),
            len(receivers & there),
        )
        there |= receivers

    @rule(session=sessions, receivers=st.sets(st.integers(0, LARGEST), min_size=1))
    def remove_batch(self, session: str, receivers: set[int]) -> None:
        there = self.model[session].subscribers
        answer = self.stub.BatchRemoveSubscribers(
            pb.BatchRemoveSubscribersRequest(
                session_id=self.said(session),
                subscriber_addresses=[address_of(self.receivers[i]) for i in receivers],
            )
        )
        assert answer.removed == len(receivers & there)
        assert set(answer.not_found) == {address_of(self.receivers[i]) for i in receivers - there}
        there -= receivers

    @rule(session=sessions, paused=st.booleans())
    def pause(self, session: str, paused: bool) -> None:
        answer = self.stub.UpdateSession(
            pb.UpdateSessionRequest(session_id=self.said(session), paused=paused)
        )
        assert (answer.status == "paused") == paused
        self.model[session].paused = paused

    @rule(session=sessions, name=st.sampled_from(["", *NAMES]))
    def rename(self, session: str, name: str) -> None:
        request = pb.UpdateSessionRequest(session_id=self.said(session), name=name)
        others = {s.name for key, s in self.model.items() if key != session} - {""}
        if name in others:
            code = refusal(self.stub.UpdateSession, request)
            assert code is grpc.StatusCode.ALREADY_EXISTS
            return
        assert self.stub.UpdateSession(request).name == name
        self.model[session].name = name

    @rule(session=sessions, site=st.sampled_from(["north", "south", ""]))
    def label(self, session: str, site: str) -> None:
        answer = self.stub.UpdateSession(
            pb.UpdateSessionRequest(session_id=self.said(session), labels={"site": site})
        )
        self.model[session].labels = {"site": site} if site else {}
        assert dict(answer.labels) == self.model[session].labels

    @rule(session=sessions, source=st.integers(0, 2))
    def move(self, session: str, source: int) -> None:
        moved = self.model[session]
        if moved.policy != "exact":
            return
        request = pb.UpdateSessionRequest(
            session_id=self.said(session), source_address=self.address(source)
        )
        others = [s for name, s in self.model.items() if name != session]
        if any(s.clashes(moved.ssrc, source, "exact") for s in others):
            assert refusal(self.stub.UpdateSession, request) is grpc.StatusCode.ALREADY_EXISTS
            return
        assert self.stub.UpdateSession(request).source_address == self.address(source)
        moved.source = source

    @rule(ssrc=st.sampled_from(SSRCS), source=st.integers(0, 2))
    def send(self, ssrc: int, source: int) -> None:
        self.sequence += 1
        packet = rtp_packet(ssrc, self.sequence % 65536)
        before = self.server.metrics()["rtp_packets_received_total"]
        self.sources[source].sendto(packet, self.server.ingest_target)
        self.server.settled(int(before) + 1)
        admitting = [s for s in self.model.values() if s.admits(ssrc, source)]
        # One packet feeds one session: the one with the exact source before one of a network.
        exact = [s for s in self.model.values() if s.clashes(ssrc, source, "exact")]
        wanted = (exact or admitting)[:1]
        session = wanted[0] if wanted and wanted[0].admits(ssrc, source) else None
        there = session.subscribers if session else set()
        for number in there:
            assert receive(self.receivers[number], 1) == [packet]
        assert [queued(receiver) for receiver in self.receivers] == [[]] * len(self.receivers)
        if session:
            session.received += 1

    @precondition(lambda self: self.model)
    @rule(gently=st.booleans())
    def restart(self, gently: bool) -> None:
        """Everything that was answered is there afterwards; counters begin anew."""
        if gently:
            assert self.server.stop() == 0
        else:
            kill_all(self.server)
        self.start()
        for session in self.model.values():
            session.received = 0

    @invariant()
    def lists_agree(self) -> None:
        for selector in ("", "site=north"):
            answer = self.stub.ListSessions(pb.ListSessionsRequest(label_selector=selector))
            assert {
                s.session_id: (s.name, s.ssrc, s.subscriber_count) for s in answer.sessions
            } == {
                name: (s.name, s.ssrc, len(s.subscribers))
                for name, s in self.model.items()
                if not selector or s.labels.get("site") == "north"
            }
        for name, session in self.model.items():
            which = self.said(name)
            answer = self.stub.ListSubscribers(pb.ListSubscribersRequest(session_id=which))
            assert {s.subscriber_address for s in answer.subscribers} == {
                address_of(self.receivers[i]) for i in session.subscribers
            }
            assert self.server.stats(name).packets_received == session.received


def kill_all(server: ServerProcess) -> None:
    """SIGKILL to the process and to its children, so that nothing is said at the end."""
    for pid in [server.process.pid, *children(server.process.pid)]:
        os.kill(pid, signal.SIGKILL)
    server.process.wait()
    eventually(lambda: port_is_free(server), bool, "the ingest port is free again")
    server.stop()


def port_is_free(server: ServerProcess) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(server.ingest_target)
        except OSError:
            return False
    return True


ServerModel.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking restarts many servers
    suppress_health_check=list(HealthCheck),
    derandomize=os.environ.get("CI") == "true",
)
TestServerModel = pytest.mark.timeout(900)(ServerModel.TestCase)
