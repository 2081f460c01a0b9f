"""Every command in README.md is run, in order, in one shell, on the README's own port numbers.

The convention. Each fenced block marked ``sh`` or ``console`` is part of the tour:

* ``sh``: the whole block is run and must succeed.
* ``console``: lines after ``$ `` are commands (a trailing backslash continues one); lines between
  are the output, compared exactly but for ``…``, which stands for anything, lines too.
  A command without output lines may print what it likes.

An HTML comment on the line before the fence changes that:

* ``<!-- readme: background 50051 5004 -->``: one command that runs beside what follows, which
  begins once these ports are bound (TCP or UDP). At the end of the tour it gets SIGTERM, if it
  still runs, and must exit with 0.
* ``<!-- readme: for 5 s -->``: gets SIGINT after that time and must exit with 0.
* ``<!-- readme: not run, because -->``: not run, for the reason given (such as: ``.ci/run``
  installs, and the test has no network).

Blocks share variables and a scratch directory, in a network namespace of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from support import requires, requires_root

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"

BLOCK = re.compile(
    r"(?:^<!-- readme: (?P<mark>.+?) -->\n)?^```(?P<language>sh|console)\n(?P<body>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)

PRELUDE = r"""
set -euo pipefail
set -a
ip link set lo up
pids=()
trap '[ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true' EXIT

bound() {
    local port
    for port in "$@"; do
        [ -n "$(ss -Hltun "sport = :$port")" ] || return 1
    done
}

ready() { # file of the command, its process id, ports
    local name=$1 pid=$2 tries=300
    shift 2
    until bound "$@"; do
        kill -0 "$pid" 2>/dev/null || { echo "$name ended early" >&2; exit 1; }
        [ $((tries -= 1)) -gt 0 ] || { echo "$name never bound $*" >&2; exit 1; }
        sleep 0.1
    done
}
"""

EPILOGUE = r"""
for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
    kill -TERM "${pids[i]}" 2>/dev/null || true
    wait "${pids[i]}" || { echo "background command $i ended with $?" >&2; exit 1; }
done
pids=()
"""


@dataclass(frozen=True)
class Block:
    mark: str
    commands: list[tuple[str, str]]
    """Each command with the output it should have, "" for any."""

    @property
    def runs(self) -> bool:
        return not self.mark.startswith("not run")


def parse_console(body: str) -> list[tuple[str, str]]:
    commands: list[tuple[str, str]] = []
    continued = False
    for line in body.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], ""))
        elif not commands:
            raise ValueError(f"output before the first command: {line!r}")
        elif continued:
            commands[-1] = (f"{commands[-1][0]}\n{line}", "")
        else:
            commands[-1] = (commands[-1][0], f"{commands[-1][1]}{line}\n")
        continued = line.endswith("\\") and (continued or line.startswith("$ "))
    return commands


def parse(document: str) -> list[Block]:
    return [
        Block(
            match["mark"] or "",
            parse_console(match["body"])
            if match["language"] == "console"
            else [(match["body"].rstrip("\n"), "")],
        )
        for match in BLOCK.finditer(document)
    ]


def script_of(blocks: list[Block], outputs: Path) -> str:
    """A bash script that runs the blocks; output of command c of block b goes to `b.c`."""
    parts = [PRELUDE]
    for b, block in enumerate(blocks):
        for c, (command, _) in enumerate(block.commands):
            out = outputs / f"{b}.{c}"
            if match := re.fullmatch(r"background((?: \d+)*)", block.mark):
                parts.append(f"( exec {command}\n) >{out} 2>&1 &\npids+=($!)")
                parts.append(f"ready {out.name} $! {match[1]}")
            elif match := re.fullmatch(r"for (\d+) s", block.mark):
                source = outputs / f"{b}.{c}.sh"
                source.write_text(command)
                limit = f"timeout --preserve-status --signal=INT {match[1]}"
                parts.append(f"{limit} bash -eu {source} >{out} 2>&1")
            elif not block.mark:
                parts.append(f"{{ {command}\n}} >{out} 2>&1")
            elif block.runs:
                raise ValueError(f"unknown mark {block.mark!r}")
    return "\n".join([*parts, EPILOGUE])


def matches(expected: str, actual: str) -> bool:
    """Whether the outputs are the same, `…` in the expected one standing for anything."""
    pattern = ".*".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, actual.strip(), re.DOTALL) is not None


def run_document(document: str, scratch: Path) -> None:
    """Raises AssertionError with the tour's output when a command fails or says other things."""
    blocks = parse(document)
    outputs, place = scratch / "outputs", scratch / "tour"
    outputs.mkdir()
    place.mkdir()
    script = scratch / "tour.sh"
    script.write_text(script_of(blocks, outputs))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RTP_FANOUT")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(place),
        "STATE_DIRECTORY": str(scratch),
        "RUNTIME_DIRECTORY": str(scratch),
        "TERM": "dumb",
        "COLUMNS": "120",
    }
    # In a process group of its own, ended as a whole when the time is over.
    command = ["timeout", "--kill-after=5", "100", "unshare", "--net", "bash", str(script)]
    done = subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    story = done.stderr
    for b, block in enumerate(blocks):
        for c, (text, _) in enumerate(block.commands):
            if (out := outputs / f"{b}.{c}").exists():
                story += f"\n$ {text}\n{out.read_text()}"
    assert done.returncode == 0, f"stopped with {done.returncode} at the last of these:\n{story}"
    for b, block in enumerate(blocks):
        for c, (text, expected) in enumerate(block.commands):
            if block.runs and expected:
                actual = (outputs / f"{b}.{c}").read_text()
                assert matches(expected, actual), f"$ {text}\n{actual}\ninstead of\n{expected}"


def requires_namespace() -> None:
    requires_root()
    requires("ip", "ss", "timeout", "unshare")


def test_every_command_of_the_readme_works(tmp_path: Path) -> None:
    document = README.read_text()
    blocks = parse(document)
    assert any(block.runs for block in blocks), "the README has no command that is run"
    requires_namespace()
    text = "\n".join(command for b in blocks if b.runs for command, _ in b.commands)
    for tool in ("grpcurl", "ffmpeg", "jq", "curl"):
        if re.search(rf"\b{tool}\b", text):
            requires(tool)
    if (
        shutil.which("rtpfanout") is None
        and not (Path(sys.executable).parent / "rtpfanout").exists()
    ):
        pytest.fail("rtpfanout is not installed: pip install -e '.[test]'")
    run_document(document, tmp_path)


def test_every_shell_block_of_the_readme_is_seen() -> None:
    """A block under another name (bash, shell, none) would escape the test above."""
    fences = re.findall(r"^ *```([^\n]*)\n", README.read_text(), re.MULTILINE)
    opened = fences[::2]
    assert set(opened) <= {"sh", "console", "toml", "python", "proto", "text", "mermaid", "yaml"}
    assert len([name for name in opened if name in {"sh", "console"}]) == len(
        parse(README.read_text())
    )


GOOD = r"""
```sh
NAME=tour
```
<!-- readme: background 8099 -->
```sh
python3 -c "import signal, socket, sys; signal.signal(15, lambda *_: sys.exit(0)); \
server = socket.create_server(('127.0.0.1', 8099)); signal.pause()"
```
```console
$ echo "$NAME" \
    again
tour again
$ echo one; echo two; echo three
one
…
$ echo anything
```
<!-- readme: not run, because it would fail -->
```sh
false
```
<!-- readme: for 1 s -->
```sh
trap 'exit 0' INT
while true; do sleep 0.1; done
```
"""


def test_the_mechanism_accepts_what_is_right(tmp_path: Path) -> None:
    requires_namespace()
    run_document(GOOD, tmp_path)


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("```sh\nfalse\n```\n", "stopped with 1"),
        ("```console\n$ echo this\nthat\n```\n", "instead of"),
        ("```sh\nfalse | cat\n```\n", "stopped with 1"),
        ("<!-- readme: background 8098 -->\n```sh\ntrue\n```\n", "ended early"),
        ("<!-- readme: background -->\n```sh\nsleep 30\n```\n", "background command 0 ended"),
        ("<!-- readme: for 1 s -->\n```sh\nexit 3\n```\n", "stopped with 3"),
    ],
)
def test_the_mechanism_notices_what_is_wrong(tmp_path: Path, document: str, complaint: str) -> None:
    requires_namespace()
    with pytest.raises(AssertionError, match=complaint):
        run_document(document, tmp_path)


def test_an_unknown_mark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown mark"):
        script_of(parse("<!-- readme: perhaps -->\n```sh\ntrue\n```\n"), tmp_path)
