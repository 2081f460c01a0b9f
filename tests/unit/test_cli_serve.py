"""The options of `rtpfanout serve`: few, and one that sets any key."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_support import run

from rtpfanout.config import assignments, load_settings
from rtpfanout.errors import ConfigError

NOTHING = Path("/dev/null")
"""A configuration file without a key."""

FLAGS = (
    "bind-address", "grpc-bind-address", "metrics-bind-address", "workers", "max-sessions",
    "max-fanout-per-session", "log-level", "log-format",
)  # fmt: skip


def last_line(*arguments: str) -> str:
    done = run("serve", *arguments)
    assert done.returncode == 2
    return done.stderr.splitlines()[-1]


def test_help_names_every_option_and_no_other() -> None:
    text = run("serve", "--help").stdout
    named = {word for line in text.splitlines() for word in line.split() if word.startswith("--")}
    assert named == {f"--{flag}" for flag in ("config", "set", "help", *FLAGS)}


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("--buffer-size", "64"), "No such option: --buffer-size; use --set buffer_size=VALUE"),
        (("--store-path=x",), "No such option: --store-path; use --set store.path=VALUE"),
        (("--segmentation",), "No such option: --segmentation; use --set segmentation=true"),
        (("--no-overload-shed",), "--no-overload-shed; use --set overload.shed=false"),
        (("--max-sesions", "3"), "No such option: --max-sesions; did you mean --max-sessions?"),
        (("--bufer-size", "3"), "did you mean --set buffer_size=VALUE?"),
        (("--workers", "1", "--tls-key", "k"), "--tls-key; use --set tls.key=VALUE"),
        (("--nope",), "Error: No such option: --nope"),
        (("nope",), "Error: Got unexpected extra argument (nope)"),
        (("--set", "buffer_size"), 'error: flag --set "buffer_size": expected KEY=VALUE'),
        (("--set", "buffer_size=3"), "expected a whole number from 64 to 16777216"),
    ],
)
def test_what_is_no_option_is_told_what_to_use(arguments: tuple[str, ...], answer: str) -> None:
    assert last_line(*arguments).endswith(answer)


def test_every_advice_sets_a_key() -> None:
    values = {"VALUE": "unlikely"}
    for flag, assignment in assignments().items():
        key, _, value = assignment.partition("=")
        if value in values:
            continue
        origins = load_settings(NOTHING, environ={}, assigned=[assignment]).origins
        assert origins[key] == "flag --set", flag


def test_keys_are_completed() -> None:
    words = "rtpfanout serve --set overload."
    done = run(_RTPFANOUT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD="3")
    assert "overload.busy=" in done.stdout.split()
    assert all(word.startswith("overload.") for word in done.stdout.split())


def test_what_is_assigned_is_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text("buffer_size = 100")
    environ = {"RTP_FANOUT__BUFFER_SIZE": "200", "RTP_FANOUT__TLS__KEY": "of the environment"}
    assigned = ["buffer_size=300", "tls.key=a=b", "tls.certificate="]
    with pytest.raises(ConfigError, match=r"tls\.certificate is missing beside tls\.key"):
        load_settings(file, {}, environ, assigned=assigned)
    assigned[2] = "tls.certificate=c"
    settings = load_settings(file, {}, environ, assigned=assigned).settings
    assert (settings.buffer_size, settings.tls.key) == (300, "a=b")


@pytest.mark.parametrize(
    ("assigned", "problem"),
    [
        (["max_sesions=3"], "flag --set: unknown key max_sesions, did you mean max_sessions?"),
        (["level=debug"], "flag --set: unknown key level, did you mean log.level?"),
        (["workers=-1"], 'flag --set: workers = "-1": expected a whole number from 0 to 64'),
        (["log=debug"], 'flag --set: log = "debug": expected a table of keys'),
        (["workers"], 'flag --set "workers": expected KEY=VALUE'),
        (["tls.key=a", "tls.key=a"], "flag --set: tls.key is there twice"),
        (["insecure=0"], "flag --set: insecure is there twice, as flag --insecure sets it too"),
    ],
)
def test_what_can_not_be_assigned(assigned: list[str], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(NOTHING, {"insecure": True}, {}, assigned=assigned)
    assert problem in caught.value.message.splitlines()
