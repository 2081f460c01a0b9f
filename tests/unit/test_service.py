"""What a caller and the log see when something breaks inside, and of calls cut short."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from structlog.testing import capture_logs

from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.auth import Access
from rtpfanout.service import ControlServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rtpfanout.sessions import SessionManager

ID = str(uuid.uuid4())


class BrokenManager:
    """get fails as no code should; delete waits until the test is over."""

    def __init__(self) -> None:
        self.over = threading.Event()

    def get(self, _session_id: str) -> None:
        raise ZeroDivisionError("a secret of the server")

    def delete(self, _session_id: str, **_options: str) -> None:
        self.over.wait(30)


def with_server(
    test: Callable[[session_pb2_grpc.SessionServiceStub], Awaitable[None]],
) -> Counter[tuple[str, str]]:
    """Run `test` against a server of a BrokenManager; how the calls were counted."""
    requests: Counter[tuple[str, str]] = Counter()
    manager = BrokenManager()

    async def run() -> None:
        server = ControlServer(cast("SessionManager", manager), requests, Access(), Counter())
        port = server.listen("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            await test(session_pb2_grpc.SessionServiceStub(channel))
        manager.over.set()
        await server.stop(0)

    asyncio.run(run())
    return +requests


def unused() -> ControlServer:
    return ControlServer(cast("SessionManager", None), Counter(), Access(), Counter())


def test_a_fault_is_internal_logged_and_not_told() -> None:
    async def test(stub: Any) -> None:
        with pytest.raises(grpc.RpcError) as error:
            await stub.GetSession(session_pb2.GetSessionRequest(session_id=ID))
        assert error.value.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in str(error.value.details())
        assert "ZeroDivision" not in str(error.value)

    with capture_logs() as log:
        counted = with_server(test)
    assert counted == {("GetSession", "INTERNAL"): 1}
    (entry,) = log
    assert (entry["event"], entry["method"]) == ("call failed", "GetSession")
    assert entry["exc_info"]


def test_a_call_given_up_is_counted_as_cancelled() -> None:
    async def test(stub: Any) -> None:
        with pytest.raises(grpc.RpcError) as error:
            await stub.DeleteSession(session_pb2.DeleteSessionRequest(session_id=ID), timeout=0.2)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(grpc.RpcError):  # the server takes other calls meanwhile
            await stub.GetSession(session_pb2.GetSessionRequest(session_id=ID))

    counted = with_server(test)
    assert counted == {("DeleteSession", "CANCELLED"): 1, ("GetSession", "INTERNAL"): 1}


def test_a_port_in_use_is_refused() -> None:
    """Not shared by SO_REUSEPORT, which would split the calls between two servers."""

    async def run() -> None:
        one, two = (unused() for _ in range(2))
        port = one.listen("127.0.0.1:0")
        with pytest.raises(RuntimeError):
            two.listen(f"127.0.0.1:{port}")
        await one.start()
        await one.stop(0)

    asyncio.run(run())
