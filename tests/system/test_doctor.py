"""`rtpfanout doctor` beside a server, and inside a network namespace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import run_json
from netns import hosts, inside
from support import ServerProcess, requires, requires_root

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("runtime_directory")


def examined(**settings: str) -> dict[str, dict[str, Any]]:
    free = dict.fromkeys(("BIND_ADDRESS", "GRPC_BIND_ADDRESS"), "127.0.0.1:0")
    environment = {f"RTP_FANOUT__{key}": text for key, text in (free | settings).items()}
    return {each["subject"]: each for each in run_json("doctor", **environment)["findings"]}


def test_it_tells_of_the_server_that_runs_here(tmp_path: Path) -> None:
    server = ServerProcess(store__path=str(tmp_path / "store.db"))
    try:
        found = examined(METRICS_BIND_ADDRESS=str(server.metrics_address))
    finally:
        server.stop()
    said = found[f"server {server.pid}"]["text"]
    assert said.startswith(f"at {server.ingest}")
    if os.geteuid() == 0:
        assert "CAP_NET_" in said
    assert "0 packets dropped" in found["its receive queue"]["text"]
    assert found["metrics_bind_address"]["level"] == "ok", "it is the server's own"
    assert "its store" not in found


def test_in_a_network_namespace_nothing_is_none() -> None:
    """As a container has it: sysctls of the host can't be read."""
    requires_root()
    requires("ip")
    with hosts("doc") as names, inside(names["doc"]):
        found = examined(METRICS_BIND_ADDRESS="127.0.0.1:0")
    assert found["running server"]["text"].startswith("none")
    assert not [each for each in found.values() if "None" in each["text"]]
