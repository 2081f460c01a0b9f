"""RTSP on hosts with several addresses, over IPv6, over restarts and reloads."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING

import pytest
from rtsp_client import RtspClient
from rtsp_scene import Scene, Source, ports, scene_of
from supervisor_scene import all_logged, command, connected
from support import ServerProcess, eventually

from rtpfanout.model import Address, parse_ip

if TYPE_CHECKING:
    from pathlib import Path

SSRCS = count(1)
TCP = "RTP/AVP/TCP;unicast;interleaved=0-1"
DOOR_ANYWHERE = 'rtsp_bind_address = "127.0.0.1:0"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Of a server that has a door, for `configured`."""
    path = tmp_path / "server.toml"
    path.write_text(DOOR_ANYWHERE)
    return path


def at(scene: Scene, host: str) -> Address:
    """The door by that address of ours."""
    return replace(scene.door, ip=parse_ip(host))


def over_the_connection(scene: Scene, door: Address, source: Source) -> str:
    """It plays; the address of the relay."""
    with RtspClient(door) as client:
        assert client.set_up(source.session_id, TCP).status == 200
        assert client.ask("PLAY", source.session_id).status == 200
        sent = source.send(5)
        assert [client.frame()[1] for _ in sent] == sent
        (subscriber,) = scene.subscribers(source.session_id)
        assert client.ask("TEARDOWN", source.session_id).status == 200
    return str(Address.parse(subscriber.subscriber_address).ip)


def by_udp(door: Address, source: Source, host: str) -> tuple[str, str]:
    """It plays; the address that packets come from, and the Transport that told so."""
    with RtspClient(door, host=host) as client, ports(host) as here:
        answer = client.set_up(source.session_id, here.transport)
        assert client.ask("PLAY", source.session_id).status == 200
        (sent,) = source.send(1)
        data, sender = here.rtp.recvfrom(2048)
        assert data == sent
        here.rtcp.settimeout(0.1)

        def reported_from() -> str:
            source.sender_report()  # one soon after another waits for a packet
            source.send(1)
            try:
                return str(here.rtcp.recvfrom(2048)[1][0])
            except TimeoutError:
                return ""

        assert eventually(reported_from, bool, "a report") == sender[0]
        assert client.ask("TEARDOWN", source.session_id).status == 200
    return sender[0], answer.headers["transport"]


def test_packets_come_from_the_address_that_was_spoken_to() -> None:
    everywhere = {"bind_address": "0.0.0.0:0", "rtsp_bind_address": "0.0.0.0:0"}
    with scene_of(insecure=True, **everywhere) as scene:
        source = Source(scene, "here/mic", next(SSRCS))
        source.feed()
        for host in ("127.0.0.1", "127.0.0.9"):
            sender, transport = by_udp(at(scene, host), source, "127.0.0.1")
            assert sender == host
            assert "source=" not in transport
            assert over_the_connection(scene, at(scene, host), source) == "127.0.0.1"


def test_both_families() -> None:
    everywhere = {"bind_address": "[::]:0", "rtsp_bind_address": "[::]:0"}
    with scene_of(insecure=True, **everywhere) as scene:
        source = Source(scene, "here/mic", next(SSRCS), "::1")
        source.feed()
        for host in ("127.0.0.1", "::1"):
            assert by_udp(at(scene, host), source, host)[0] == host
            with RtspClient(at(scene, host)) as client:
                family = "IN IP6 ::" if host == "::1" else "IN IP4 0.0.0.0"
                assert f"c={family}\r\n" in client.ask("DESCRIBE", "here/mic").body
            assert over_the_connection(scene, at(scene, host), source) == "127.0.0.1"


@pytest.mark.parametrize("host", ["127.0.0.3", "::1"])
def test_a_server_of_one_address(host: str) -> None:
    bind = str(Address(parse_ip(host), 0))
    with scene_of(bind_address=bind, rtsp_bind_address=bind) as scene:
        source = Source(scene, "here/mic", next(SSRCS), host)
        source.feed()
        assert over_the_connection(scene, scene.door, source) == host
        assert by_udp(scene.door, source, host)[0] == host


def test_where_the_door_is_at_another_address_that_is_told() -> None:
    with scene_of(bind_address="127.0.0.3:0") as scene:
        source = Source(scene, "here/mic", next(SSRCS))
        source.feed()
        sender, transport = by_udp(scene.door, source, "127.0.0.1")
        assert sender == "127.0.0.3"
        assert ";source=127.0.0.3;" in transport


def test_after_a_crash_nobody_plays_and_the_door_is_where_it_was(tmp_path: Path) -> None:
    with (
        scene_of(store__path=str(tmp_path / "store.db")) as scene,
        RtspClient(scene.door) as client,
        RtspClient(scene.door) as other,
        ports() as here,
    ):
        source = Source(scene, "here/mic", next(SSRCS))
        source.feed()
        client.set_up(source.session_id, TCP)
        client.ask("PLAY", source.session_id)
        other.set_up(source.session_id, here.transport)
        other.ask("PLAY", source.session_id)
        scene.server.add(source.session_id, "127.0.0.1:6000")
        assert len(scene.subscribers(source.session_id)) == 3
        os.kill(scene.server.pid, signal.SIGKILL)
        assert client.is_closed()
        assert other.is_closed()

        def again() -> str:
            try:
                return RtspClient(scene.door).ask("DESCRIBE", "here/mic").reason
            except (OSError, AssertionError):
                return ""

        eventually(again, bool, "the door is open again")
        left = [each.subscriber_address for each in scene.await_subscribers(source.session_id, 1)]
        assert left == ["127.0.0.1:6000"]
        scene.server.remove(source.session_id, "127.0.0.1:6000")
        source.feed()


@pytest.mark.usefixtures("runtime_directory")
@pytest.mark.parametrize("is_refused", [False, True], ids=["done", "refused"])
def test_after_an_upgrade_the_door_is_where_it_was(
    configured: ServerProcess, config: Path, *, is_refused: bool
) -> None:
    server = configured
    scene = Scene(server)
    source = Source(scene, "here/mic", next(SSRCS))
    source.feed()
    with RtspClient(scene.door) as client, ports() as here:
        client.set_up(source.session_id, here.transport)
        client.ask("PLAY", source.session_id)
        ready = len(all_logged(server, "ready"))
        config.write_text(DOOR_ANYWHERE + ("worker_cpus = [1023]\n" if is_refused else ""))
        done = command("upgrade")
        assert done.returncode == is_refused, done.stderr
        eventually(lambda: len(all_logged(server, "ready")), lambda n: n > ready, "calls again")
        connected(server)
        assert client.is_closed()
    scene.await_subscribers(source.session_id, 0)
    with RtspClient(scene.door) as client:
        assert over_the_connection(scene, scene.door, source) == "127.0.0.1"
    assert all_logged(server, "ready")[-1]["rtsp_bind_address"] == str(scene.door)


def test_a_reload_that_denies_a_viewer_ends_its_playing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "server.toml"
    config.write_text("")
    command = [*ServerProcess.command, "--config", str(config)]
    monkeypatch.setattr(ServerProcess, "command", command)
    with (
        scene_of() as scene,
        RtspClient(scene.door, host="127.0.0.5") as denied,
        RtspClient(scene.door) as client,
    ):
        source = Source(scene, "here/mic", next(SSRCS))
        source.feed()
        for each in (denied, client):
            each.set_up(source.session_id, TCP)
            each.ask("PLAY", source.session_id)
        config.write_text('address_policy.deny = ["127.0.0.5/32", "198.51.100.0/24"]\n')
        scene.server.send_signal(signal.SIGHUP)
        # Who is here can be sent to in any case over its connection: it asked, and is no victim.
        scene.server.logged("configuration reloaded")
        sent = source.send(2)
        for each in (denied, client):
            assert [each.frame()[1] for _ in sent] == sent
        with ports("127.0.0.5") as here:
            denied.ask("TEARDOWN", source.session_id)
            denied.session = ""
            denied.set_up(source.session_id, here.transport)
            refused = denied.ask("PLAY", source.session_id)
            assert refused.status == 403
            assert "address_policy.deny" in refused.reason
