"""An address that comes to be ours later: its subscribers would loop, so they get nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import grpc
import pytest
from netns import hosts, run
from support import ServerProcess, eventually, requires, requires_root

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def namespace() -> Iterator[str]:
    requires("ip")
    requires_root()
    with hosts("own") as names:
        yield names["own"]


def test_subscribers_that_become_our_own_ingest_get_nothing_meanwhile(namespace: str) -> None:
    run(
        "ip",
        "link",
        "add",
        "rf-own0",
        "type",
        "veth",
        "peer",
        "name",
        "rf-own1",
        "netns",
        namespace,
    )
    run("ip", "address", "add", "10.213.0.1/24", "dev", "rf-own0")
    run("ip", "link", "set", "rf-own0", "up")
    run("ip", "-n", namespace, "address", "add", "10.213.0.2/24", "dev", "rf-own1")
    run("ip", "-n", namespace, "link", "set", "rf-own1", "up")

    class Inside(ServerProcess):
        command: ClassVar[list[str]] = ["ip", "netns", "exec", namespace, *ServerProcess.command]

    server = Inside(
        bind_address="0.0.0.0:5004",
        grpc_bind_address="10.213.0.2:50051",
        metrics_bind_address="10.213.0.2:9090",
        insecure="true",
        store__path=":memory:",
    )
    try:
        session_id = server.create("10.213.0.1:5000", 1, "10.213.0.9:5004", "10.213.0.9:5005")
        with pytest.raises(grpc.RpcError) as error:
            server.add(session_id, "10.213.0.2:5004")
        assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED
        run("ip", "-n", namespace, "address", "add", "10.213.0.9/24", "dev", "rf-own1")

        def states() -> dict[str, str]:
            request = pb.ListSubscribersRequest(session_id=session_id)
            found = server.stub.ListSubscribers(request).subscribers
            return {s.subscriber_address: s.state for s in found}

        loop, other = "10.213.0.9:5004", "10.213.0.9:5005"
        eventually(states, lambda s: s == {loop: "refused", other: "sending"}, "no loop")
        assert server.metrics()["rtpfanout_loops_withheld_total"] == 1
        assert server.metrics()["rtpfanout_refused_subscribers"] == 1
        logged = server.logged("subscribers withheld: they are refused now, and kept")
        assert "own ingest" in logged["first_reason"]
        run("ip", "-n", namespace, "address", "del", "10.213.0.9/24", "dev", "rf-own1")
        eventually(states, lambda s: s == dict.fromkeys((loop, other), "sending"), "both again")
        assert server.metrics()["rtpfanout_readmitted_total"] == 1
    finally:
        server.stop()
        run("ip", "link", "del", "rf-own0")
