"""What a mistake in one setting is answered with: a value, a key, a flag, a variable."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_support import DEFAULTS, loaded, problems, variable

from rtpfanout.config import load_settings, plain_values

pytestmark = pytest.mark.usefixtures("empty_directory")


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
        ("events.webhook = 1", "1: not a text, expected an http:// or https:// URL, or nothing"),
        ('events.webhook = "pager"', "no http:// or https:// with a host"),
        ('events.webhook = "ftp://pager/x"', "no http:// or https:// with a host"),
        ('events.webhook = "http:///x"', "no http:// or https:// with a host"),
        ('events.webhook = "http://pager:70000/"', "Port out of range"),
        ('events.webhook = "http://pager:0/"', "0 is no port"),
        ('events.webhook = "http://me:pw@pager/"', "neither user names nor fragments are sent"),
        ('events.webhook = "http://pager/a b"', "it has spaces"),
        ('events.webhook_kinds = ["slient"]', "'slient' is no kind of event; there are started,"),
        ('check_padding = "perhaps"', 'check_padding = "perhaps": expected true or false'),
        ('bind_address = "localhost:5004"', "'localhost' is not an IPv4 or IPv6 address"),
        ('bind_address = "0.0.0.0"', "'0.0.0.0' is not ip:port or [ipv6]:port"),
        ("bind_address = 5004", "expected ip:port or [ipv6]:port"),
        ('metrics_bind_address = "[::]:99999"', "port '99999' is not a number from 0 to 65535"),
        ("metrics_session_labels = 1", "not a list, expected a list of keys of labels"),
        ('metrics_session_labels = ["a b"]', "'a b' is no key of a label"),
        ('metrics_session_labels = ["a.b", "a/b"]', "more than one of them would be label_a_b"),
        (f"metrics_session_labels = {[*'abcdefghi']}", "9 of them; 8 are the most"),
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
