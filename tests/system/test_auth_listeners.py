"""Where a real server listens, and to whom: certificates, TLS, Unix socket, HTTP, descriptors."""

from __future__ import annotations

import socket
import subprocess
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from cli_support import run
from pki import Authority, bearer, token, write_keys, write_server
from secured import DENIED, SECONDS, UNAUTHENTICATED, outcome, request_for, secured
from support import ServerProcess, address_of, eventually, rtp_packet, server_environment, transfer

from rtpfanout.api import session_pb2 as pb
from rtpfanout.api import session_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable

    StartServer = Callable[..., ServerProcess]
    MakeSocket = Callable[..., socket.socket]


def test_certificates_have_roles(tmp_path: Path, start_server: StartServer) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    roles = '["Wall Display 2 viewer vehicle=a", "ops.example operator", "root admin"]'
    server = start_server(
        tls__client_ca=str(tmp_path / "ca.pem"),
        auth__certificate_roles=roles,
        **write_server(tmp_path, authority),
    )
    address = str(server.grpc)

    def code(certificate: tuple[bytes, bytes] | None, method: str) -> grpc.StatusCode:
        with secured(address, authority, certificate) as stub:
            return outcome(stub, method, request_for(method, str(uuid.uuid4())))[0]

    ok = grpc.StatusCode.OK
    assert code(authority.issue("x", "ops.example"), "CreateSession") == ok
    assert code(authority.issue("root"), "ListSessions") == ok
    assert code(authority.issue("Wall Display 2"), "ListSessions") == ok
    assert code(authority.issue("Wall Display 2"), "CreateSession") == DENIED
    assert code(authority.issue("nobody"), "ListSessions") == UNAUTHENTICATED
    unavailable = grpc.StatusCode.UNAVAILABLE
    assert code(None, "ListSessions") == unavailable, "no certificate"
    assert code(Authority().issue("root"), "ListSessions") == unavailable, "of a wrong CA"


def test_a_command_without_the_right_certificate_says_so_in_one_line(
    tmp_path: Path, start_server: StartServer
) -> None:
    authority, other = Authority(), Authority("another authority")
    server = start_server(
        **write_server(tmp_path, authority), auth__jwt_keys=write_keys(tmp_path / "keys.json")
    )
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "other.pem").write_bytes(other.pem)
    environment = {"RTP_FANOUT_TOKEN": token(role="admin")}
    for ca in ("", str(tmp_path / "other.pem")):
        done = run("session", "list", "-s", str(server.grpc), RTP_FANOUT_CA_FILE=ca, **environment)
        assert done.returncode == 4
        assert done.stderr.startswith(f"error: no answer from {server.grpc} (")
        assert "RTP_FANOUT_CA_FILE" in done.stderr
        assert done.stderr.count("\n") == 1
    ca = str(tmp_path / "ca.pem")
    done = run("session", "list", "-s", str(server.grpc), RTP_FANOUT_CA_FILE=ca, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert not server.other_lines


def test_certificates_are_rotated_under_running_calls(
    tmp_path: Path, start_server: StartServer
) -> None:
    old, new = Authority("old"), Authority("new")
    keys = write_keys(tmp_path / "keys.json")
    server = start_server(auth__jwt_keys=keys, **write_server(tmp_path, old))
    address, metadata = str(server.grpc), bearer(role="admin")
    request = pb.ListSessionsRequest()
    with secured(address, old) as before:
        watch = before.WatchSessions(pb.WatchSessionsRequest(), metadata=metadata)
        assert next(watch).type == pb.SessionEvent.RESET
        (tmp_path / "server.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nhalf")
        with secured(address, old) as meanwhile:
            assert outcome(meanwhile, "ListSessions", request, metadata)[0] is grpc.StatusCode.OK
        write_server(tmp_path, new)
        with secured(address, new) as after:
            assert outcome(after, "ListSessions", request, metadata)[0] is grpc.StatusCode.OK
        with secured(address, old) as late:
            assert outcome(late, "ListSessions", request, metadata)[0] is (
                grpc.StatusCode.UNAVAILABLE
            )
        assert outcome(before, "ListSessions", request, metadata)[0] is grpc.StatusCode.OK
        assert next(watch).type == pb.SessionEvent.SYNCED
        watch.cancel()
    assert server.logged("certificates not reloaded")
    assert server.logged("certificates reloaded")


def serve(**settings: object) -> subprocess.CompletedProcess[str]:
    """A server that is expected not to start."""
    defaults = {"bind_address": "127.0.0.1:0", "grpc_bind_address": "127.0.0.1:0"}
    return subprocess.run(
        ServerProcess.command,
        env=server_environment(defaults | {"enable_metrics": False} | settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_beyond_loopback_only_with_tls_and_credentials(
    tmp_path: Path, start_server: StartServer
) -> None:
    keys = {"auth__jwt_keys": write_keys(tmp_path / "keys.json")}
    tls = write_server(tmp_path, Authority())
    for settings in ({}, keys, tls):
        ended = serve(grpc_bind_address="0.0.0.0:0", **settings)
        assert ended.returncode == 2
        assert "is beyond loopback: expected a loopback address, or tls.certificate" in ended.stderr
    server = start_server(grpc_bind_address="0.0.0.0:0", **keys, **tls)
    assert server.grpc.port


@pytest.mark.parametrize("what", ["file", "directory", "link to a file", "socket in use"])
def test_the_unix_socket_takes_nobodys_place(tmp_path: Path, what: str) -> None:
    path, other = tmp_path / "socket", tmp_path / "other"
    other.write_text("precious")
    with ExitStack() as stack:
        if what == "file":
            path.write_text("precious")
        elif what == "directory":
            path.mkdir()
        elif what == "link to a file":
            path.symlink_to(other)
        else:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            listener.listen()
        before = path.lstat()
        ended = serve(grpc_unix_socket=path)
        assert ended.returncode == 2
        assert str(path) in ended.stderr
        assert path.lstat().st_ino == before.st_ino
    assert other.read_text() == "precious"


def test_a_unix_socket_left_behind_is_replaced(tmp_path: Path, start_server: StartServer) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    server = start_server(grpc_unix_socket=path)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        stub = session_pb2_grpc.SessionServiceStub(channel)
        stub.ListSessions(pb.ListSessionsRequest(), timeout=SECONDS)
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"auth__jwt_keys": "absent.json"}, "auth.jwt_keys"),
        ({"tls__certificate": "absent.pem", "tls__key": "absent.key"}, "absent"),
        ({"auth__certificate_roles": "x Viewer"}, "auth.certificate_roles"),
    ],
)
def test_what_cannot_be_used_is_named_at_the_start(settings: Any, named: str) -> None:
    ended = serve(**settings)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_series_per_session_beyond_loopback_need_a_token(
    tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(
        auth__jwt_keys=write_keys(tmp_path / "keys.json"), metrics_bind_address="0.0.0.0:0"
    )
    port = server.metrics_address.port if server.metrics_address else 0
    with httpx.Client(trust_env=False, timeout=SECONDS) as client:

        def status(*claims: dict[str, Any]) -> int:
            headers = {"authorization": f"Bearer {token(**claims[0])}"} if claims else {}
            answer = client.get(f"http://127.0.0.1:{port}/metrics/sessions", headers=headers)
            return answer.status_code

        assert status() == 401
        assert status({"role": "viewer", "labels": {"vehicle": "a"}}) == 403
        assert status({"role": "viewer"}) == 200
        assert client.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
    server.stop()


def descriptors_of(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def test_connections_that_use_up_all_descriptors_cost_no_packet(
    start_server: StartServer, udp: MakeSocket
) -> None:
    server = start_server()
    source, viewer = udp(), udp()
    server.create(address_of(source), 7, address_of(viewer))
    pid = server.pid
    in_use = descriptors_of(pid)
    limit = in_use + 20
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={limit}:{limit}"], check=True)
    packets = [rtp_packet(7, number) for number in range(2000)]
    with ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(socket.socket())
            connection.settimeout(SECONDS)
            connection.connect(("127.0.0.1", server.grpc.port))
        eventually(lambda: descriptors_of(pid), lambda n: n >= limit, "no room")
        assert transfer(source, server.ingest_target, packets, [viewer]) == [packets]
    eventually(lambda: descriptors_of(pid), lambda n: n < limit, "room again")
    assert server.settled(len(packets)).dropped() == {}
    server.stub.ListSessions(pb.ListSessionsRequest(), timeout=SECONDS, wait_for_ready=True)
