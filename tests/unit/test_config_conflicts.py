"""Settings that are right one by one, and can't be had together."""

from __future__ import annotations

import pytest
from config_support import loaded, problems

from rtpfanout.config import plain_values

pytestmark = pytest.mark.usefixtures("empty_directory")


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:50051"])
def test_grpc_beyond_loopback_needs_the_switch(address: str) -> None:
    line = f'grpc_bind_address = "{address}"'
    (problem,) = problems(line)
    assert problem.startswith(f"server.toml: {line} is beyond loopback")
    assert "insecure = true" in problem
    assert str(loaded(f"{line}\ninsecure = true").settings.grpc_bind_address) == address


TLS = 'tls.certificate = "c"\ntls.key = "k"\n'


@pytest.mark.parametrize("closing", ['tls.client_ca = "ca"', 'auth.jwt_keys = "keys"'])
def test_grpc_beyond_loopback_with_tls_and_credentials_needs_no_switch(closing: str) -> None:
    line = 'grpc_bind_address = "0.0.0.0:50051"'
    assert loaded(f"{line}\n{TLS}{closing}").settings.insecure is False
    for half in (TLS, 'auth.jwt_keys = "keys"'):
        (problem,) = problems(f"{line}\n{half}")
        assert "tls.certificate together with tls.client_ca or auth.jwt_keys" in problem


@pytest.mark.parametrize(
    ("lines", "missing"),
    [
        ('tls.key = "k"', "tls.certificate is missing beside tls.key"),
        ('tls.certificate = "c"', "tls.key is missing beside tls.certificate"),
        ('tls.client_ca = "ca"', "tls.certificate is missing beside tls.client_ca"),
        ('events.webhook_secret = "x"', "events.webhook is missing beside events.webhook_secret"),
    ],
)
def test_some_keys_come_together(lines: str, missing: str) -> None:
    (problem,) = problems(lines)
    assert missing in problem


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.7.7.7:1", "[::1]:1", "[::ffff:127.0.0.1]:1"]
)
def test_grpc_on_loopback_needs_none(address: str) -> None:
    assert loaded(f'grpc_bind_address = "{address}"').settings.insecure is False


@pytest.mark.parametrize(
    ("grpc", "metrics", "clash"),
    [
        ("127.0.0.1:9090", "0.0.0.0:9090", True),
        ("127.0.0.1:9090", "127.0.0.1:9090", True),
        ("127.0.0.1:9090", "[::]:9090", True),
        ("[::1]:9090", "[::]:9090", True),
        ("[::1]:9090", "0.0.0.0:9090", False),
        ("127.0.0.1:9090", "127.0.0.2:9090", False),
        ("127.0.0.1:9090", "127.0.0.1:9091", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_two_listeners_on_one_port(grpc: str, metrics: str, clash: bool) -> None:
    addresses = {"grpc_bind_address": grpc, "metrics_bind_address": metrics}
    if clash:
        (problem,) = problems(**addresses)
        assert "flag --metrics-bind-address: metrics_bind_address" in problem
        assert f"is in use for grpc_bind_address = {grpc}" in problem
    else:
        loaded(**addresses)
    loaded(enable_metrics=False, **addresses)


@pytest.mark.parametrize(
    ("rtsp", "others", "expected"),
    [
        ("127.0.0.1:8554", "", ""),
        ("0.0.0.0:8554", "", "is beyond loopback"),
        ("192.0.2.1:8554", TLS, "is beyond loopback"),
        ("0.0.0.0:8554", 'auth.jwt_keys = "keys"', ""),
        ("0.0.0.0:8554", f'{TLS}tls.client_ca = "ca"', ""),
        ("0.0.0.0:8554", "insecure = true", ""),
        ("127.0.0.1:50051", "", "is in use for grpc_bind_address"),
        ("127.0.0.1:9090", "", "is in use for metrics_bind_address"),
        ("127.0.0.1:9090", "enable_metrics = false", ""),
        ("", "", ""),
    ],
)
def test_where_the_rtsp_door_can_be(rtsp: str, others: str, expected: str) -> None:
    text = f'rtsp_bind_address = "{rtsp}"\n{others}'
    if expected:
        (problem,) = problems(text)
        assert problem.startswith(f'server.toml: rtsp_bind_address = "{rtsp}" {expected}')
        assert ": expected " in problem
    else:
        assert plain_values(loaded(text).settings)["rtsp_bind_address"] == rtsp


@pytest.mark.parametrize(
    ("bind", "group", "comes"),
    [
        ("0.0.0.0:1", "239.1.2.3", True),
        ("[::]:1", "239.1.2.3", True),
        ("[::]:1", "ff15::7", True),
        ("239.1.2.3:1", "239.1.2.3", True),
        ("0.0.0.0:1", "ff15::7", False),
        ("10.0.0.1:1", "239.1.2.3", False),
        ("[2001:db8::1]:1", "ff15::7", False),
    ],
)
def test_groups_that_cannot_come(bind: str, group: str, comes: bool) -> None:
    text = f'bind_address = "{bind}"\ningest_groups = ["{group}"]\n'
    if comes:
        assert plain_values(loaded(text).settings)["ingest_groups"] == [group]
        return
    (problem,) = problems(text)
    assert problem.startswith(f"server.toml: ingest_groups: {group} can't come to bind_address")
    assert bind in problem


def test_the_listener_that_was_set_is_blamed() -> None:
    (problem,) = problems('grpc_bind_address = "127.0.0.1:9090"')
    assert problem.startswith('server.toml: grpc_bind_address = "127.0.0.1:9090" is in use')
    (problem,) = problems('metrics_bind_address = "127.0.0.1:50051"')
    assert problem.startswith('server.toml: metrics_bind_address = "127.0.0.1:50051" is in use')


@pytest.mark.parametrize(
    ("lines", "clash"),
    [
        ('ingest_ports = "5000-5100"', "5004, which is for bind_address"),
        ('ingest_ports = "5005-5100"', "5005, which is for bind_address"),
        ('ingest_ports = "5005-5100"\nenable_rtcp_port = false', ""),
        ('ingest_ports = "5000-5004"', ""),  # the last one has no other behind it
        ('ingest_ports = "4000-5003"', ""),
        ('ingest_ports = "1-65535"\nbind_address = "0.0.0.0:0"', ""),
    ],
)
def test_ports_of_sessions_are_not_the_main_one(lines: str, clash: str) -> None:
    if not clash:
        assert loaded(lines).settings.ingest_ports
        return
    (problem,) = problems(lines)
    assert "ingest_ports = " in problem
    assert clash in problem


def test_the_last_port_has_none_behind_it() -> None:
    line = 'bind_address = "0.0.0.0:65535"'
    (problem,) = problems(line)
    assert "no port behind it" in problem
    assert loaded(f"{line}\nenable_rtcp_port = false").settings.bind_address.port == 65535
