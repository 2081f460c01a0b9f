"""`rtpfanout serve` with what is no setting: shorter time-outs, other limits."""

from __future__ import annotations

import json
import sys

_PROGRAM = """
import importlib, json, sys
module = importlib.import_module(sys.argv.pop(1))
for name, value in json.loads(sys.argv.pop(1)).items():
    assert hasattr(module, name)
    setattr(module, name, value)
from rtpfanout.cli.app import main
sys.argv[:] = ["rtpfanout", "serve"]
main()
"""


def serve_with(module: str, **constants: object) -> list[str]:
    """The command of a server whose `module` has these constants in place of its own."""
    return [sys.executable, "-c", _PROGRAM, module, json.dumps(constants)]


def limited(files: int, command: list[str]) -> list[str]:
    """`command`, which may have so many open files."""
    return ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *command]
