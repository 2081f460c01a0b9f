"""`rtpfanout subscriber` against a server of the first version, which knows no batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cli_support import run
from google.protobuf import empty_pb2

from rtpfanout.api import session_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator


class FirstVersion(session_pb2_grpc.SessionServiceServicer):
    """Knows subscribers 1 by 1; what it lacks is UNIMPLEMENTED by gRPC's own doing."""

    def __init__(self) -> None:
        self.subscribers: list[str] = []

    def AddSubscriber(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802, ARG002
        self.subscribers.append(request.subscriber_address)
        return empty_pb2.Empty()

    def RemoveSubscriber(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802
        if request.subscriber_address not in self.subscribers:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such subscriber")
        self.subscribers.remove(request.subscriber_address)
        return empty_pb2.Empty()


@pytest.fixture
def old() -> Iterator[tuple[FirstVersion, str]]:
    """The service and its address."""
    service = FirstVersion()
    server = grpc.server(ThreadPoolExecutor(2))
    session_pb2_grpc.add_SessionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_several_are_added_and_removed_one_by_one(old: tuple[FirstVersion, str]) -> None:
    service, target = old
    added = run("subscriber", "add", "id", "a", "b", "c", "-s", target)
    assert (added.returncode, added.stdout, added.stderr) == (0, "added a\nadded b\nadded c\n", "")
    assert service.subscribers == ["a", "b", "c"]
    removed = run("subscriber", "rm", "id", "a", "x", "c", "-s", target)
    assert removed.returncode == 3
    assert removed.stdout == "removed a\n"
    assert removed.stderr == "error: no such subscriber\n"
    assert service.subscribers == ["b", "c"]


def test_a_list_needs_a_newer_server_and_says_so(old: tuple[FirstVersion, str]) -> None:
    done = run("subscriber", "list", "id", "-s", old[1])
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the server at {old[1]} is older")
