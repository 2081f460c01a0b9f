"""The command as a whole: help, completion, flags, and what it does not import."""

import inspect
import re
import subprocess
import sys

import pytest
from cli_support import run, run_json

from rtpfanout import __version__
from rtpfanout.cli.serve import serve
from rtpfanout.config.settings import leaf_fields

HEAVY = (
    "grpc",
    "google",
    "rich",
    "pydantic",
    "pydantic_settings",
    "dpkt",
    "structlog",
    "starlette",
)


def test_help_lists_the_commands():
    done = run("--help")
    assert done.returncode == 0
    commands = re.findall(r"^  (\w+)  ", done.stdout.split("Commands:")[1], re.MULTILINE)
    assert set(commands) == {
        "bench", "config", "demo", "doctor", "drain", "events", "knocks", "recv", "reload", "sdp",
        "send", "serve",
        "session", "subscriber", "top", "upgrade", "version", "why",
    }  # fmt: skip
    assert "..." not in done.stdout.split("Commands:")[1]


@pytest.mark.parametrize("group", ["session", "subscriber", "config"])
def test_no_summary_of_a_command_is_cut_off(group):
    assert "..." not in run(group, "--help", COLUMNS="80").stdout.split("Commands:")[1]


def test_help_and_completion_import_nothing_heavy():
    script = (
        "import sys\n"
        "sys.argv = ['rtpfanout', '--help']\n"
        "from rtpfanout.cli.app import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_each_flag_of_serve_is_a_setting():
    flags = set(inspect.signature(serve).parameters) - {"context", "config", "assigned"}
    assert flags < {key.replace(".", "_") for key in leaf_fields()}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("rtpfanout ses", {"session"}),
        (
            "rtpfanout session ",
            {
                "create",
                "list",
                "get",
                "rm",
                "stats",
                "update",
                "pause",
                "resume",
                "watch",
                "token",
                "keyframe",
            },
        ),
        ("rtpfanout subscriber ", {"add", "list", "rm"}),
        ("rtpfanout session create --media-type ", {"audio", "video", "data"}),
        ("rtpfanout session create --source-policy ", {"exact", "ip", "cidr", "latch"}),
        ("rtpfanout session update --consent ", {"none", "echo"}),
        ("rtpfanout subscriber add --class ", {"pilot", "recorder", "monitor"}),
        ("rtpfanout session list -o ", {"table", "json"}),
    ],
)
def test_bash_completes(words, expected):
    done = run(
        _RTPFANOUT_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
    )
    assert done.returncode == 0
    assert set(done.stdout.split()) == expected


def test_the_completion_script_calls_this_command():
    # Typer would look for the shell that runs it, and there may be none.
    done = run("--show-completion", "bash", _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert "complete -o default -F _rtpfanout_completion rtpfanout" in done.stdout


def test_version():
    assert run("version").stdout == f"rtpfanout {__version__}\n"
    assert run_json("version") == {"version": __version__}


@pytest.mark.parametrize(
    "arguments", [("nope",), ("session", "nope"), ("send",), ("serve", "--nope"), ("version", "x")]
)
def test_wrong_usage_is_code_2_and_says_where_help_is(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert "-h' for help" in done.stderr
    assert done.stdout == ""
