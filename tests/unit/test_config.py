"""Where settings come from, in which order, and what a mistake in them is answered with."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from rtpfanout.config import (
    LoadedSettings,
    Settings,
    annotated_toml,
    example_toml,
    load,
    load_settings,
    plain_values,
    settings_to_toml,
)
from rtpfanout.errors import ConfigError
from rtpfanout.model import Address

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FILES = load.DEFAULT_FILES

# The contract: names and defaults. A change here breaks somebody's deployment.
DEFAULTS = {
    "bind_address": "0.0.0.0:5004",
    "max_sessions": 10000,
    "max_fanout_per_session": 1000,
    "buffer_size": 65536,
    "workers": 0,
    "worker_cpus": [],
    "split_threshold": 256,
    "busy_poll_us": 0,
    "session_timeout_secs": 300,
    "check_padding": True,
    "segmentation": True,
    "ingest_groups": [],
    "path_mtu_discovery": False,
    "egress_address": "",
    "enable_metrics": True,
    "metrics_bind_address": "0.0.0.0:9090",
    "grpc_bind_address": "127.0.0.1:50051",
    "grpc_unix_socket": "",
    "insecure": False,
    "enable_supervisor": True,
    "drain_secs": 0,
    "tls.certificate": "",
    "tls.key": "",
    "tls.client_ca": "",
    "auth.jwt_keys": "",
    "auth.issuer": "",
    "auth.audience": "",
    "auth.certificate_roles": [],
    "address_policy.allow": [],
    "address_policy.deny": [],
    "consent.timeout_secs": 30,
    "limits.max_subscribers": 10_000_000,
    "limits.max_subscribers_per_ip": 0,
    "store.path": "auto",
    "overload.busy": 0.95,
    "overload.kernel_drops": 1,
    "overload.memory_mib": 0,
    "overload.shed": True,
    "log.level": "info",
    "log.format": "auto",
}
# Another good value of each key: as the environment has it, as TOML has it.
OTHERS: dict[str, tuple[str, Any]] = {
    "bind_address": ("[::]:5006", "[::]:5006"),
    "ingest_groups": (
        "239.1.2.3, 192.0.2.7@232.1.2.3%eth0",
        ["239.1.2.3", "192.0.2.7@232.1.2.3%eth0"],
    ),
    "max_sessions": ("5", 5),
    "max_fanout_per_session": ("6", 6),
    "buffer_size": ("128", 128),
    "workers": ("64", 64),
    "worker_cpus": ("2, 0", [2, 0]),
    "split_threshold": ("2", 2),
    "busy_poll_us": ("50", 50),
    "session_timeout_secs": ("0.5", 0.5),
    "check_padding": ("false", False),
    "segmentation": ("false", False),
    "path_mtu_discovery": ("true", True),
    "egress_address": ("192.0.2.5", "192.0.2.5"),
    "enable_metrics": ("0", False),
    "metrics_bind_address": ("127.0.0.1:0", "127.0.0.1:0"),
    "grpc_bind_address": ("[::1]:0", "[::1]:0"),
    "grpc_unix_socket": ("/run/rtp/api", "/run/rtp/api"),
    "insecure": ("true", True),
    "enable_supervisor": ("false", False),
    "drain_secs": ("1.5", 1.5),
    "tls.certificate": ("cert.pem", "cert.pem"),
    "tls.key": ("key.pem", "key.pem"),
    "tls.client_ca": ("ca.pem", "ca.pem"),
    "auth.jwt_keys": ("keys.json", "keys.json"),
    "auth.issuer": ("us", "us"),
    "auth.audience": ("here", "here"),
    "auth.certificate_roles": ("a viewer site=north, * admin", ["a viewer site=north", "* admin"]),
    "address_policy.allow": ("10.0.0.0/8, 2001:db8::/32", ["10.0.0.0/8", "2001:db8::/32"]),
    "address_policy.deny": ('["192.0.2.1/32"]', ["192.0.2.1/32"]),
    "consent.timeout_secs": ("12.5", 12.5),
    "limits.max_subscribers": ("7", 7),
    "limits.max_subscribers_per_ip": ("8", 8),
    "store.path": ("/srv/rtp.db", "/srv/rtp.db"),
    "overload.busy": ("0.5", 0.5),
    "overload.kernel_drops": ("10", 10),
    "overload.memory_mib": ("512", 512),
    "overload.shed": ("false", False),
    "log.level": ("WARNING", "warning"),
    "log.format": ("json", "json"),
}


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a configuration file it did not write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(load, "DEFAULT_FILES", (Path("config/server.toml"),))


def variable(key: str) -> str:
    return "RTP_FANOUT__" + key.upper().replace(".", "__")


def written(text: str, name: str = "server.toml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def loaded(
    text: str = "", environ: dict[str, str] | None = None, **overrides: Any
) -> LoadedSettings:
    return load_settings(written(text) if text else None, overrides, environ or {})


def problems(text: str = "", environ: dict[str, str] | None = None, **overrides: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(text, environ, **overrides)
    return caught.value.message.splitlines()


def test_defaults() -> None:
    result = load_settings(environ={})
    assert plain_values(result.settings) == DEFAULTS
    assert result.config_file is None
    assert set(result.origins.values()) == {"default"}
    assert result.warnings == ()
    assert isinstance(result.settings.bind_address, Address)
    assert OTHERS.keys() == DEFAULTS.keys()


# What a key can't be without, as a file.
BESIDE = {
    "tls.certificate": {"tls.key": "k"},
    "tls.key": {"tls.certificate": "c"},
    "tls.client_ca": {"tls.certificate": "c", "tls.key": "k"},
}


@pytest.mark.parametrize("key", OTHERS)
def test_every_key_from_every_place(key: str) -> None:
    text, value = OTHERS[key]
    if beside := BESIDE.get(key):
        lines = [f"{other} = {json.dumps(word)}\n" for other, word in beside.items()]
        for result in (
            loaded("".join(lines) + f"{key} = {json.dumps(value)}"),
            loaded("".join(lines), {variable(key): text}),
            load_settings(written("".join(lines)), {key: value}, {}),
            load_settings(written("".join(lines)), {}, {}, assigned=[f"{key}={text}"]),
        ):
            assert plain_values(result.settings) == DEFAULTS | beside | {key: value}
        return
    from_file = loaded(f"{key} = {json.dumps(value)}")
    from_environment = loaded(environ={variable(key): text})
    from_flag = load_settings(overrides={key: value}, environ={})
    assigned = load_settings(environ={}, assigned=[f"{key}={text}"])
    flag = "flag --" + key.replace(".", "-").replace("_", "-")
    for result, origin in (
        (from_file, "server.toml"),
        (from_environment, f"environment variable {variable(key)}"),
        (from_flag, flag),
        (assigned, "flag --set"),
    ):
        assert plain_values(result.settings) == DEFAULTS | {key: value}
        assert result.origins[key] == origin


def test_flags_win_over_environment_over_file_over_defaults() -> None:
    text = "max_sessions = 1\nmax_fanout_per_session = 1\nbuffer_size = 100\n"
    environ = {"RTP_FANOUT__MAX_SESSIONS": "2", "RTP_FANOUT__MAX_FANOUT_PER_SESSION": "2"}
    settings = loaded(text, environ, max_sessions=3).settings
    assert (settings.max_sessions, settings.max_fanout_per_session) == (3, 2)
    assert (settings.buffer_size, settings.session_timeout_secs) == (100, 300)


def test_layers_meet_inside_a_table() -> None:
    text = '[log]\nlevel = "debug"\n[address_policy]\nallow = ["10.0.0.0/8"]\n'
    environ = {"RTP_FANOUT__LOG__FORMAT": "json"}
    settings = loaded(text, environ, address_policy={"deny": ["10.1.0.0/16"]}).settings
    assert (settings.log.level, settings.log.format) == ("debug", "json")
    assert plain_values(settings)["address_policy.allow"] == ["10.0.0.0/8"]
    assert plain_values(settings)["address_policy.deny"] == ["10.1.0.0/16"]


def test_flags_that_were_not_given_change_nothing() -> None:
    result = loaded("max_sessions = 7", max_sessions=None, log={"level": None})
    assert plain_values(result.settings) == DEFAULTS | {"max_sessions": 7}


def test_environment_names_have_no_case() -> None:
    environ = {"rtp_fanout__max_sessions": "8", "Rtp_Fanout__Log__Level": "error"}
    result = loaded(environ=environ)
    assert (result.settings.max_sessions, result.settings.log.level) == (8, "error")
    assert result.origins["max_sessions"] == "environment variable rtp_fanout__max_sessions"
    both = {"RTP_FANOUT__MAX_SESSIONS": "9", "rtp_fanout__max_sessions": "8"}
    assert loaded(environ=both).settings.max_sessions == 9


@pytest.mark.parametrize("text", ["", "[]", " , "])
def test_an_empty_list_in_the_environment(text: str) -> None:
    environ = {"RTP_FANOUT__ADDRESS_POLICY__ALLOW": text}
    assert (
        loaded('address_policy.allow = ["10.0.0.0/8"]', environ).settings.address_policy.allow == ()
    )


def test_a_table_as_json_in_the_environment() -> None:
    environ = {
        "rtp_fanout__address_policy__allow": "10.0.0.0/8",
        "RTP_FANOUT__ADDRESS_POLICY": '{"allow": [], "deny": ["10.1.0.0/16"]}',
    }
    values = plain_values(loaded(environ=environ).settings)
    assert values["address_policy.allow"] == ["10.0.0.0/8"]
    assert values["address_policy.deny"] == ["10.1.0.0/16"]


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTP_FANOUT__MAX_SESSIONS", "4")
    assert load_settings().settings.max_sessions == 4
    assert Settings().max_sessions == 10000, "a constructor reads nothing from around it"


def test_order_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [str(path) for path in DEFAULT_FILES] == [
        "config/server.toml",
        "/etc/rtp-fanout/config.toml",
        "/etc/rtp-fanout/server.toml",
    ]
    monkeypatch.setattr(load, "DEFAULT_FILES", (Path("config/server.toml"), Path("etc/a.toml")))
    written("max_sessions = 1", "etc/a.toml")
    assert load_settings(environ={}).config_file == Path("etc/a.toml")
    written("max_sessions = 2", "config/server.toml")
    assert load_settings(environ={}).config_file == Path("config/server.toml")
    environ = {"RTP_FANOUT_CONFIG": str(written("max_sessions = 3", "named.toml"))}
    assert load_settings(environ=environ).settings.max_sessions == 3
    flag = written("max_sessions = 4", "flag.toml")
    assert load_settings(flag, environ=environ).settings.max_sessions == 4
    assert load_settings(environ={"RTP_FANOUT_CONFIG": ""}).settings.max_sessions == 2


def test_a_named_file_must_exist() -> None:
    written("max_sessions = 2", "config/server.toml")
    with pytest.raises(ConfigError, match=r"flag --config: absent\.toml: no such file"):
        load_settings(Path("absent.toml"), environ={})
    with pytest.raises(ConfigError, match=r"RTP_FANOUT_CONFIG: absent\.toml: no such file"):
        load_settings(environ={"RTP_FANOUT_CONFIG": "absent.toml"})


def test_a_file_that_cannot_be_read() -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load_settings(Path(), environ={})
    Path("config").mkdir()
    Path("config/server.toml").symlink_to("nowhere.toml")
    with pytest.raises(ConfigError, match=r"config/server\.toml: cannot be read"):
        load_settings(environ={})


def test_a_file_may_be_a_pipe() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"max_sessions = 11\n")
    os.close(write_end)
    try:
        assert load_settings(Path(f"/dev/fd/{read_end}"), environ={}).settings.max_sessions == 11
    finally:
        os.close(read_end)


def test_toml_syntax_names_file_and_line() -> None:
    assert problems("max_sessions = 1\n\nbuffer_size 3\n") == [
        "server.toml: not valid TOML: Expected '=' after a key in a key/value pair "
        "(at line 3, column 13)"
    ]
    Path("latin.toml").write_bytes(b'bind_address = "\xe4"')
    with pytest.raises(ConfigError, match=r"latin\.toml: not UTF-8 text \(byte 16\)"):
        load_settings(Path("latin.toml"), environ={})


def test_a_byte_order_mark_is_no_mistake() -> None:
    Path("bom.toml").write_bytes(b"\xef\xbb\xbfmax_sessions = 3\r\n")
    assert load_settings(Path("bom.toml"), environ={}).settings.max_sessions == 3


WHOLE = "expected a whole number from "


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("max_sessions = 0", f"max_sessions = 0: {WHOLE}1 to 1000000"),
        ("max_sessions = 1000001", f"max_sessions = 1000001: {WHOLE}1 to 1000000"),
        ("max_sessions = 1.5", f"max_sessions = 1.5: {WHOLE}1 to 1000000"),
        ('max_sessions = "many"', f'max_sessions = "many": {WHOLE}1 to 1000000'),
        ("max_sessions = true", f"max_sessions = true: not a number, {WHOLE}1 to 1000000"),
        ("max_fanout_per_session = 100001", f"{WHOLE}1 to 100000"),
        ("buffer_size = 63", f"{WHOLE}64 to 16777216"),
        ("buffer_size = 16777217", f"{WHOLE}64 to 16777216"),
        ("workers = 65", f"workers = 65: {WHOLE}0 to 64"),
        ("split_threshold = 1", f"{WHOLE}2 to 1000000"),
        ("busy_poll_us = 1000001", f"{WHOLE}0 to 1000000"),
        ("ingest_groups = 1", "ingest_groups = 1: not a list, expected a list of multicast groups"),
        ("ingest_groups = [1]", "1 is not a group"),
        (
            'ingest_groups = ["239.1.2.3", "10.0.0.1"]',
            "'10.0.0.1': 10.0.0.1 is not a multicast group",
        ),
        ('ingest_groups = ["239.1.2"]', "'239.1.2': '239.1.2' is not an IPv4 or IPv6 address"),
        ('ingest_groups = ["239.1.2.3%"]', "'' is not the name of an interface"),
        (
            'ingest_groups = ["ff02::7"]',
            "'ff02::7' has link scope: name the interface, as in 'ff02::7%eth0'",
        ),
        ('ingest_groups = ["::1@232.1.2.3"]', "::1 can't be a source of 232.1.2.3"),
        ("worker_cpus = 1", "worker_cpus = 1: not a list, expected a list of CPU numbers"),
        ("worker_cpus = [0, -1]", "-1 is not the number of a CPU"),
        ("worker_cpus = [true]", "True is not the number of a CPU"),
        ('worker_cpus = ["a"]', "'a' is not the number of a CPU"),
        ("session_timeout_secs = -1", "expected a number from 0 to 2592000"),
        ("session_timeout_secs = 2592001", "expected a number from 0 to 2592000"),
        ("session_timeout_secs = inf", "expected a number from 0 to 2592000"),
        ("session_timeout_secs = nan", "expected a number from 0 to 2592000"),
        ("session_timeout_secs = true", "expected a number from 0 to 2592000"),
        ('check_padding = "perhaps"', 'check_padding = "perhaps": expected true or false'),
        ('bind_address = "localhost:5004"', "'localhost' is not an IPv4 or IPv6 address"),
        ('bind_address = "0.0.0.0"', "'0.0.0.0' is not ip:port or [ipv6]:port"),
        ("bind_address = 5004", "expected ip:port or [ipv6]:port"),
        ('metrics_bind_address = "[::]:99999"', "port '99999' is not a number from 0 to 65535"),
        ('log.level = "loud"', 'log.level = "loud": expected debug, info, warning or error'),
        ('log.format = "xml"', 'log.format = "xml": expected auto, console or json'),
        ("log = 3", "log = 3: expected a table of keys"),
        ('address_policy.allow = ["10.0.0.1/8"]', "host bits set, did you mean '10.0.0.0/8'?"),
        ('address_policy.deny = ["a", "10.0.0.0/8", 7]', "'a' is not a network, 7 is not"),
        ('address_policy.deny = ["fe80::1%2/128"]', "'fe80::1%2/128' is not a network"),
        ("address_policy.deny = 7", "address_policy.deny = 7: not a list, expected a list of net"),
    ],
)
def test_bad_values_in_a_file(line: str, answer: str) -> None:
    (problem,) = problems(line)
    assert problem.startswith(f"server.toml: {line.partition(' ')[0]} = ")
    assert answer in problem


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("max_sessions", ""),
        ("max_sessions", "1e9"),
        ("insecure", "maybe"),
        ("grpc_bind_address", "50051"),
        ("address_policy.deny", '["10.0.0.0/8"'),
        ("address_policy.allow", "10.0.0.0/33"),
        ("log.level", ""),
    ],
)
def test_bad_values_in_the_environment(key: str, text: str) -> None:
    (problem,) = problems(environ={variable(key): text})
    assert problem.startswith(f"environment variable {variable(key)}: {key} = ")
    assert ": expected " in problem or ", expected " in problem


def test_a_table_in_the_environment_that_is_not_json() -> None:
    assert problems(environ={"RTP_FANOUT__LOG": "debug"}) == [
        'environment variable RTP_FANOUT__LOG = "debug": expected a JSON object of keys'
    ]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("max_sesions = 3", "unknown key max_sesions, did you mean max_sessions?"),
        ("MAX_SESSIONS = 3", "unknown key MAX_SESSIONS, did you mean max_sessions?"),
        ('level = "debug"', "unknown key level, did you mean log.level?"),
        ('log.levl = "debug"', "unknown key log.levl, did you mean log.level?"),
        ("[server]\nzzz = 1", "unknown key server; the keys are bind_address, max_sessions,"),
    ],
)
def test_unknown_keys_in_a_file(line: str, answer: str) -> None:
    (problem,) = problems(line)
    assert problem.startswith(f"server.toml: {answer}")


def test_unknown_flags() -> None:
    assert problems(max_sesions=3) == [
        "flag --max-sesions: unknown key max_sesions, did you mean max_sessions?"
    ]


def test_every_problem_is_reported_at_once() -> None:
    environ = {"RTP_FANOUT__BUFFER_SIZE": "lots", "RTP_FANOUT__LOG": "3"}
    found = problems("max_sessions = 0\nwidth = 3\nlog.level = 3", environ, insecure="so so")
    origins = [problem.partition(": ")[0] for problem in found]
    assert sorted(origins) == [
        "environment variable RTP_FANOUT__BUFFER_SIZE",
        "environment variable RTP_FANOUT__LOG",
        "flag --insecure",
        "server.toml",
        "server.toml",
        "server.toml",
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("RTP_FANOUT__MAX_SESIONS", "RTP_FANOUT__MAX_SESSIONS"),
        ("RTP_FANOUT__LOG_LEVEL", "RTP_FANOUT__LOG__LEVEL"),
        ("rtp_fanout__log__levl", "RTP_FANOUT__LOG__LEVEL"),
        ("RTP_FANOUT__CONFIG", "RTP_FANOUT_CONFIG"),
        ("RTP_FANOUT_BIND_ADDRESS", "RTP_FANOUT__BIND_ADDRESS"),
    ],
)
def test_a_misspelt_variable_is_a_warning(name: str, meant: str) -> None:
    result = loaded(environ={name: "1"})
    assert plain_values(result.settings) == DEFAULTS
    assert result.warnings == (
        f"environment variable {name} is not a setting and is ignored, did you mean {meant}?",
    )


def test_a_variable_like_nothing_we_know() -> None:
    (warning,) = loaded(environ={"RTP_FANOUT__ZZZ": "1"}).warnings
    assert "RTP_FANOUT__ZZZ is not a setting and is ignored; `rtpfanout config example`" in warning


@pytest.mark.parametrize(
    "name",
    # The second and third are what Kubernetes sets beside a service called rtp-fanout.
    ["RTP_FANOUT_CONFIG", "RTP_FANOUT_PORT", "RTP_FANOUT_SERVICE_HOST", "RTP_FANOUT_SERVER"],
)
def test_variables_of_others_are_left_alone(name: str) -> None:
    environ = {name: "" if name == "RTP_FANOUT_CONFIG" else "tcp://192.0.2.1:50051"}
    assert loaded(environ=environ).warnings == ()


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
    ],
)
def test_files_of_tls_come_together(lines: str, missing: str) -> None:
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


def test_settings_cannot_be_changed_or_extended() -> None:
    with pytest.raises(ValidationError):
        Settings().max_sessions = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Settings(max_sesions=3)  # type: ignore[call-arg]


def test_the_example_is_the_committed_file() -> None:
    committed = (ROOT / "config/server.toml").read_text()
    assert committed == example_toml(), (
        "write it anew: rtpfanout config example > config/server.toml"
    )


def test_the_example_has_every_key_explained_and_loads_to_the_defaults() -> None:
    text = example_toml()
    result = loaded(text)
    assert result.settings == Settings()
    assert set(result.origins.values()) == {"server.toml"}
    for key in DEFAULTS:
        assert f"# Environment: {variable(key)}\n" in text
    assert text.count("# Expected: ") == len(DEFAULTS)
    assert max(map(len, text.splitlines())) <= 100


def test_toml_text_loads_to_the_same_settings() -> None:
    settings = load_settings(overrides={k: v for k, (_, v) in OTHERS.items()}, environ={}).settings
    assert loaded(settings_to_toml(settings)).settings == settings
    notes = dict.fromkeys(DEFAULTS, "a note")
    assert loaded(annotated_toml(settings, notes)).settings == settings
    assert tomllib.loads(settings_to_toml(settings))["session_timeout_secs"] == 0.5
