"""A server whose store is taken from under it: what it acknowledges from then on is kept too."""

from __future__ import annotations

import os
import shutil
import signal
from typing import TYPE_CHECKING

import grpc
import pytest
from support import ServerProcess, eventually

from rtpfanout.api import session_pb2 as pb
from rtpfanout.supervisor import statefile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("what", ["file", "directory"])
def test_what_is_acknowledged_after_the_store_was_removed_is_there_after_a_crash(
    tmp_path: Path, what: str
) -> None:
    path = tmp_path / "rtp" / "store.db"
    server = ServerProcess(store__path=str(path))
    try:
        session_id = server.create("127.0.0.1:5000", 1, "127.0.0.1:6000")
        if what == "file":
            path.unlink()
        else:
            shutil.rmtree(path.parent)
        server.add(session_id, "127.0.0.1:6001")
        assert path.exists()
        assert server.metrics()["rtpfanout_store_lost_total"] == 1
        assert server.metrics()["rtpfanout_store_healed_total"] == 1
        assert server.metrics()["rtpfanout_store_failing"] == 0
        assert server.logged("the store was written anew")["file"] == str(path)
        found = statefile.read(server.process.pid)
        assert found is not None
        os.kill(found.server_pid, signal.SIGKILL)

        def addresses() -> list[str]:
            request = pb.ListSubscribersRequest(session_id=session_id)
            try:
                found = server.stub.ListSubscribers(request, wait_for_ready=True, timeout=30)
            except grpc.RpcError:  # the connection to the one that was killed
                return []
            return sorted(s.subscriber_address for s in found.subscribers)

        eventually(lambda: statefile.read(server.process.pid), lambda s: s != found, "another one")
        assert eventually(addresses, bool, "calls") == ["127.0.0.1:6000", "127.0.0.1:6001"]
    finally:
        server.stop()
