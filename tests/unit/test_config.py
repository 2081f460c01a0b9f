"""Where settings come from, in which order, and the example that explains them."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from config_support import DEFAULTS, loaded, problems, variable, written
from pydantic import ValidationError

from rtpfanout.config import (
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

pytestmark = pytest.mark.usefixtures("empty_directory")


ROOT = Path(__file__).resolve().parents[2]
DEFAULT_FILES = load.DEFAULT_FILES
# Another good value of each key: as the environment has it, as TOML has it.
OTHERS: dict[str, tuple[str, Any]] = {
    "bind_address": ("[::]:5006", "[::]:5006"),
    "enable_rtcp_port": ("false", False),
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
    "ingest_ports": ("6000-7999", "6000-7999"),
    "path_mtu_discovery": ("true", True),
    "egress_address": ("192.0.2.5", "192.0.2.5"),
    "enable_metrics": ("0", False),
    "enable_page": ("no", False),
    "metrics_bind_address": ("127.0.0.1:0", "127.0.0.1:0"),
    "metrics_session_labels": ("vehicle, cell/id", ["vehicle", "cell/id"]),
    "grpc_bind_address": ("[::1]:0", "[::1]:0"),
    "grpc_unix_socket": ("/run/rtp/api", "/run/rtp/api"),
    "insecure": ("true", True),
    "rtsp_bind_address": ("127.0.0.1:8554", "127.0.0.1:8554"),
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
    "events.webhook": ("https://pager.example/x?y=z", "https://pager.example/x?y=z"),
    "events.webhook_secret": ("/run/secret", "/run/secret"),
    "events.webhook_kinds": ("silent, back", ["silent", "back"]),
    "log.level": ("WARNING", "warning"),
    "log.format": ("json", "json"),
}


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
    "events.webhook_secret": {"events.webhook": "http://127.0.0.1:1"},
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
