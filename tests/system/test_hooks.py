"""A server with `events.webhook`: what the receiver gets, over a crash; and one that hangs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import subprocess
from typing import TYPE_CHECKING

import pytest
from hook_receivers import receiving
from supervisor_scene import kill
from support import ServerProcess, eventually, server_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hook_receivers import Receiver

SECRET = "a secret of a test, of many bytes"  # noqa: S105


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.mark.usefixtures("runtime_directory")
def test_what_happens_is_posted_also_after_a_crash(
    start_server: Callable[..., ServerProcess], receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    server = start_server(
        store__path=str(tmp_path / "store.db"),
        events__webhook=f"http://127.0.0.1:{receiver.port}/hook",
        events__webhook_secret=str(tmp_path / "secret"),
        events__webhook_kinds="started,created,deleted",
    )
    session_id = server.create("192.0.2.1:5000", 7, "127.0.0.1:6000")
    eventually(receiver.kinds, lambda kinds: "created" in kinds, "it is told")
    figures = eventually(
        lambda: server.http("/metrics").text,
        lambda text: 'rtpfanout_hook_events_total{outcome="sent"} 2.0' in text,
        "it is counted",
    )
    assert 'rtpfanout_hook_events_total{outcome="dropped"} 0.0' in figures
    assert 'rtpfanout_hook_deliveries_total{outcome="failed"} 0.0' in figures
    assert "rtpfanout_hook_waiting_events" in figures
    kill(server)
    eventually(receiver.kinds, lambda kinds: kinds.count("started") == 2, "the next one began")
    server.delete(session_id)
    eventually(receiver.kinds, lambda kinds: "deleted" in kinds, "it is told")
    assert server.stop() == 0
    assert receiver.kinds() == ["started", "created", "started", "deleted"]
    numbers = [e["sequence"] for post in receiver.posts for e in post.body["events"]]
    assert numbers == sorted(set(numbers))
    for post in receiver.posts:
        told = f"{post.headers['webhook-id']}.{post.headers['webhook-timestamp']}.".encode()
        mac = hmac.new(SECRET.encode(), told + post.raw, hashlib.sha256).digest()
        assert post.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
        assert post.body["server"].endswith(f":{server.ingest.port}")


def test_a_receiver_that_hangs_holds_up_nobody(
    start_server: Callable[..., ServerProcess], receiver: Receiver
) -> None:
    receiver.answers = [receiver.hang] * 100
    server = start_server(events__webhook=f"http://127.0.0.1:{receiver.port}/")
    receiver.until(lambda posts: len(posts) > 0)
    for number in range(20):
        server.delete(server.create("192.0.2.1:5000", number))
    assert server.stop() == 0


def test_a_secret_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    settings = {
        "bind_address": "127.0.0.1:0",
        "grpc_bind_address": "127.0.0.1:0",
        "enable_metrics": False,
        "events__webhook": "http://127.0.0.1:1/",
        "events__webhook_secret": str(tmp_path / "none"),
    }
    done = subprocess.run(
        ServerProcess.command,
        env=server_environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "events.webhook_secret: " in done.stderr
    assert "none can't be read: No such file or directory" in done.stderr
