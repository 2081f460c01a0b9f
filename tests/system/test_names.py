"""Names over gRPC: calls, errors, tokens, watches, lists and series of a real server; restarts."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from support import ServerProcess, address_of, eventually, receive, rtp_packet

from rtpfanout.api import session_pb2 as pb
from rtpfanout.client import AsyncSessionClient, SessionClient
from rtpfanout.errors import AlreadyExistsError, UnknownNameError
from rtpfanout.model import Address
from rtpfanout.receiver import Receiver

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

Event = pb.SessionEvent
NAME = "rover-7/front"


@pytest.fixture
def client(server: ServerProcess) -> Iterator[SessionClient]:
    with SessionClient(server.calls_target) as client:
        yield client


@pytest.mark.lent_servers
def test_packets_of_a_session_that_only_its_name_is_known_of(
    server: ServerProcess, client: SessionClient, udp: Callable[..., socket.socket]
) -> None:
    source, subscriber = udp(), udp()
    created = client.ensure_session(address_of(source), 7, "video", name=NAME)
    client.add_subscriber(NAME, address_of(subscriber))
    token = client.issue_join_token(NAME).token
    packet = rtp_packet(7, 1)
    with Receiver(server.ingest, token, bind=Address.parse("127.0.0.1:0")) as receiver:
        receiver.join(20)
        source.sendto(packet, server.ingest_target)
        assert receive(subscriber, 1) == [packet]
        assert receiver.receive(20) == packet
    assert [s.name for s in client.iter_sessions(name_prefix="rover-7/")] == [NAME]
    assert list(client.iter_sessions(name_prefix="rover-8")) == []
    (found,) = client.iter_sessions(id_prefix=created.session_id[:20])
    assert found.name == NAME
    labels = server.http("/metrics/sessions").text.splitlines()
    assert any(f'session_id="{created.session_id}"' in x and f'name="{NAME}"' in x for x in labels)
    again = client.ensure_session(address_of(source), 7, "video", name=NAME)
    assert (again.session_id, again.subscriber_count) == (created.session_id, 1)
    client.delete_session(NAME)
    with pytest.raises(UnknownNameError):
        client.get_session(NAME)


@pytest.mark.lent_servers
def test_what_an_error_tells(server: ServerProcess, client: SessionClient) -> None:
    """To a client of the first version what it ever did of a text that is no UUID."""
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.GetSession(pb.GetSessionRequest(session_id=NAME))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status: Any = rpc_status.from_call(caught.value)
    bad_request = error_details_pb2.BadRequest()
    (detail,) = status.details
    assert detail.Unpack(bad_request)
    (violation,) = bad_request.field_violations
    assert (violation.field, violation.reason) == ("session_id", "UNKNOWN_NAME")

    there = client.create_session("192.0.2.1:5000", 1, "video", name=NAME)
    with pytest.raises(AlreadyExistsError) as taken:
        client.create_session("192.0.2.1:5000", 2, "video", name=NAME)
    assert (taken.value.field, taken.value.session_id) == ("name", there.session_id)
    with pytest.raises(AlreadyExistsError) as other:
        client.ensure_session("192.0.2.1:5000", 2, "video", name=NAME)
    assert (other.value.field, other.value.session_id) == ("ssrc", there.session_id)
    assert f"session {there.session_id} ({NAME}) is there with ssrc 1 and not 2" in str(other.value)
    entry = server.logged("audit")
    assert (entry["call"], entry["name"]) == ("CreateSession", NAME)


SERVICE = pb.DESCRIPTOR.services_by_name["SessionService"]
ABOUT_ONE = [each for each in SERVICE.methods if "session_id" in each.input_type.fields_by_name]
SAID = {"subscriber_address": "127.0.0.1:6000", "subscriber_addresses": ["127.0.0.1:6000"]}


@pytest.mark.lent_servers
@pytest.mark.parametrize("method", ABOUT_ONE, ids=lambda method: str(method.name))
def test_each_call_about_a_session_takes_its_name(
    server: ServerProcess, client: SessionClient, method: Any
) -> None:
    """Also one that is new."""
    client.create_session("192.0.2.1:5000", 1, "video", name=NAME)

    def reasons(name: str) -> list[str]:
        said = {key: SAID[key] for key in SAID.keys() & method.input_type.fields_by_name.keys()}
        request = getattr(pb, method.input_type.name)(session_id=name, **said)
        try:
            getattr(server.stub, method.name)(request)
        except grpc.RpcError as error:
            bad_request = error_details_pb2.BadRequest()
            details = rpc_status.from_call(error).details  # type: ignore[arg-type, union-attr]
            any(detail.Unpack(bad_request) for detail in details)
            return [violation.reason for violation in bad_request.field_violations]
        return []

    assert reasons("no/such") == ["UNKNOWN_NAME"]
    assert "UNKNOWN_NAME" not in reasons(NAME)


@pytest.mark.lent_servers
def test_a_watch_tells_another_name(client: SessionClient) -> None:
    with client.watch_sessions() as watch:
        assert [next(watch).type for _ in range(2)] == [
            pb.SessionEvent.RESET,
            pb.SessionEvent.SYNCED,
        ]
        client.create_session("192.0.2.1:5000", 1, "video", name=NAME)
        client.update_session(NAME, name="rover-7/rear")
        client.update_session("rover-7/rear", idle_timeout_secs=0)
        events = [next(watch).session for _ in range(3)]
    assert [each.name for each in events] == [NAME, "rover-7/rear", "rover-7/rear"]
    assert [each.HasField("idle_timeout_secs") for each in events] == [False, False, True]


@pytest.mark.lent_servers
def test_many_clients_that_start_at_once_have_one_session(server: ServerProcess) -> None:
    async def run() -> set[str]:
        async with AsyncSessionClient(server.calls_target) as client:
            found = await asyncio.gather(
                *(client.ensure_session("192.0.2.1:5000", 1, "video", name=NAME) for _ in range(40))
            )
        return {each.session_id for each in found}

    assert len(asyncio.run(run())) == 1


def test_one_with_a_name_stays_and_one_without_ends(
    start_server: Callable[..., ServerProcess],
) -> None:
    server = start_server(session_timeout_secs=0.2)
    with SessionClient(server.calls_target) as client:
        client.create_session("192.0.2.1:5000", 1, "video", name=NAME)
        client.create_session("192.0.2.1:5000", 2, "video")
        client.create_session("192.0.2.1:5000", 3, "video", idle_timeout_secs=0)
        client.create_session("192.0.2.1:5000", 4, "video", name="short", idle_timeout_secs=0.1)
        ended = eventually(
            lambda: {e["ssrc"]: e for e in server.log if e["event"] == "session expired"},
            lambda ended: len(ended) == 2,
            "two are over, and said to be",
        )
        assert [each.ssrc for each in client.iter_sessions()] == [1, 3]
        assert ended["0x00000002"]["session_timeout_secs"] == 0.2
        assert "name" not in ended["0x00000002"]
        assert ended["0x00000004"]["idle_timeout_secs"] == 0.1
        assert ended["0x00000004"]["name"] == "short"


def test_names_outlive_a_kill(
    start_server: Callable[..., ServerProcess], tmp_path: Path, udp: Callable[..., socket.socket]
) -> None:
    source, subscriber = udp(), udp()
    path = tmp_path / "state.db"
    first = start_server(store__path=path, enable_supervisor=False)
    with SessionClient(first.calls_target) as client:
        before = client.create_session(address_of(source), 7, "video", name=NAME)
        client.add_subscriber(NAME, address_of(subscriber))
        client.update_session(NAME, name="rover-7/rear", idle_timeout_secs=3600)
    first.stop(signal.SIGKILL)
    second = start_server(store__path=path)
    with SessionClient(second.calls_target) as client:
        after = client.get_session("rover-7/rear")
        assert (after.session_id, after.idle_timeout_secs) == (before.session_id, 3600)
        assert [each.name for each in client.iter_sessions()] == ["rover-7/rear"]
        packet = rtp_packet(7, 1)
        source.sendto(packet, second.ingest_target)
        assert receive(subscriber, 1) == [packet]
