"""TLS, client certificates and tokens of both clients, against a real gRPC server."""

from __future__ import annotations

import asyncio
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cli_support import run
from client_support import Event, Script, session_event
from support import requires

from rtpfanout import errors
from rtpfanout.api import session_pb2_grpc
from rtpfanout.client import NO_RETRIES, AsyncSessionClient, Credentials, SessionClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Doorkeeper(Script):
    """Remembers the token of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str | None] = []

    def _note(self, name: str, request: Any, context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        self.tokens.append(metadata.get("authorization"))
        super()._note(name, request, context)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an authority (ca), and a server and a client that it vouches for."""
    requires("openssl")
    place = tmp_path_factory.mktemp("pki")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=place, check=True, capture_output=True)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    for name in ("ca", "stranger"):
        openssl(
            "req", "-x509", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.pem",
            "-subj", f"/CN={name}", "-days", "2",
        )  # fmt: skip
    (place / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    for name in ("server", "client"):
        openssl(
            "req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}",
        )  # fmt: skip
        openssl(
            "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key",
            "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", "san",
        )  # fmt: skip
    return place


@contextmanager
def serving(script: Script, pki: Path | None = None) -> Iterator[str]:
    """Plainly or, with `pki`, by TLS and for those with a certificate only."""
    server = grpc.server(ThreadPoolExecutor(2))
    session_pb2_grpc.add_SessionServiceServicer_to_server(script, server)
    if pki is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        pair = ((pki / "server.key").read_bytes(), (pki / "server.pem").read_bytes())
        ca = (pki / "ca.pem").read_bytes()
        tls = grpc.ssl_server_credentials([pair], ca, require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", tls)
    server.start()
    yield f"127.0.0.1:{port}"
    script.release.set()
    server.stop(None).wait()


def blocking(target: str, credentials: Credentials, count: int = 1) -> None:
    with SessionClient(target, credentials=credentials, retries=NO_RETRIES) as client:
        for _ in range(count):
            client.get_session("id")


def asynchronous(target: str, credentials: Credentials, count: int = 1) -> None:
    async def call() -> None:
        async with AsyncSessionClient(
            target, credentials=credentials, retries=NO_RETRIES
        ) as client:
            for _ in range(count):
                await client.get_session("id")

    asyncio.run(call())


both_clients = pytest.mark.parametrize("perform", [blocking, asynchronous])


@both_clients
def test_a_client_with_a_certificate_gets_in(perform: Callable[..., None], pki: Path) -> None:
    script = Doorkeeper()
    own = {"cert_file": pki / "client.pem", "key_file": pki / "client.key"}
    with serving(script, pki) as target:
        perform(target, Credentials(ca_file=pki / "ca.pem", **own))
        for wrong in (
            Credentials(ca_file=pki / "ca.pem"),  # no certificate
            Credentials(ca_file=pki / "stranger.pem", **own),  # another authority
            Credentials(tls=True),  # the system's authorities
            Credentials(),  # no TLS
        ):
            with pytest.raises(errors.UnreachableError):
                perform(target, wrong)
    assert len(script.requests) == 1


@both_clients
def test_a_token_goes_with_each_call(
    perform: Callable[..., None], tmp_path: Path, pki: Path
) -> None:
    script = Doorkeeper()
    file = tmp_path / "token"
    file.write_text("from-file\n")
    with serving(script) as target:
        perform(target, Credentials())
        perform(target, Credentials(token="given"))  # noqa: S106
        perform(target, Credentials(token_file=file), 2)
    with serving(script, pki) as target:
        names = {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key"}
        files = {name: pki / file for name, file in names.items()}
        perform(target, Credentials(**files, token="by-tls"))  # noqa: S106
    assert script.tokens == [
        None, "Bearer given", "Bearer from-file", "Bearer from-file", "Bearer by-tls",
    ]  # fmt: skip


def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    script = Doorkeeper()
    file = tmp_path / "token"
    file.write_text("first")
    with (
        serving(script) as target,
        SessionClient(target, credentials=Credentials(token_file=file)) as client,
    ):
        client.get_session("id")
        (tmp_path / "new").write_text("second")
        (tmp_path / "new").replace(file)  # as one that rotates it does
        script.streams = [[session_event(Event.CREATED, "a", 1)], [None]]
        client.get_session("id")
        with client.watch_sessions() as watch:
            next(watch)
        file.unlink()
        with pytest.raises(errors.ConfigError, match="token") as caught:
            client.get_session("id")
    assert caught.value.field == "token_file"
    assert script.tokens == ["Bearer first", "Bearer second", "Bearer second"]


@pytest.mark.parametrize("content", [b"", b"two words", b"a\nb", b"\xff\xfe"])
def test_a_file_without_a_token_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with (
        SessionClient("127.0.0.1:1", credentials=Credentials(token_file=file)) as client,
        pytest.raises(errors.ConfigError, match="not one line with a token"),
    ):
        client.get_session("id")


def test_what_makes_no_sense_is_told(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="both cert_file and key_file"):
        Credentials(cert_file="a")
    with pytest.raises(errors.ConfigError, match="not both"):
        Credentials(token="a", token_file="b")  # noqa: S106
    with pytest.raises(errors.ConfigError, match="No such file") as caught:
        SessionClient("127.0.0.1:1", credentials=Credentials(ca_file=tmp_path / "none"))
    assert caught.value.field == "ca_file"


def test_commands_take_them_from_the_environment(tmp_path: Path, pki: Path) -> None:
    script = Doorkeeper()
    file = tmp_path / "token"
    file.write_text("of-the-shell")
    environment = {
        "RTP_FANOUT_CA_FILE": str(pki / "ca.pem"),
        "RTP_FANOUT_CERT_FILE": str(pki / "client.pem"),
        "RTP_FANOUT_KEY_FILE": str(pki / "client.key"),
        "RTP_FANOUT_TOKEN_FILE": str(file),
    }
    with serving(script, pki) as target:
        done = run("session", "rm", "id", "-s", target, **environment)
        assert (done.returncode, done.stdout) == (0, "deleted id\n")
        missing = run(
            "session", "rm", "id", "-s", target, **environment | {"RTP_FANOUT_CA_FILE": "x"}
        )
    assert script.tokens == ["Bearer of-the-shell"]
    assert missing.returncode == 2
    assert missing.stderr == "error: ca_file: x: No such file or directory\n"
