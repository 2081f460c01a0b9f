"""The one place where an error becomes a line on stderr and an exit code."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from rtpfanout.errors import ExitCode, RtpFanoutError, codes_of

BROKEN_PIPE = 141
"""What a shell reports of a process ended by SIGPIPE: 128 + 13."""


def error_text(error: RtpFanoutError) -> str:
    """``error: field: message``, one line per problem."""
    if error.violations:
        return "\n".join(f"error: {v.field}: {v.message}" for v in error.violations)
    field = f"{error.field}: " if error.field else ""
    return "\n".join(f"error: {field}{line}" for line in error.message.splitlines())


def run_cli(command: Callable[[], object]) -> NoReturn:
    """Run `command`, turn what it raises into a line and a code, and exit."""
    try:
        command()
    except RtpFanoutError as error:
        with contextlib.suppress(BlockingIOError):  # a server waits for nobody who reads its stderr
            print(error_text(error), file=sys.stderr)
        sys.exit(codes_of(error).exit_code)
    except BrokenPipeError:
        broken_pipe()
    sys.exit(ExitCode.OK)


def broken_pipe() -> NoReturn:
    """The reader of our output is gone: end quietly."""
    # What is still buffered must not complain when the interpreter flushes it.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.dup2(devnull, sys.stderr.fileno())
    sys.exit(BROKEN_PIPE)
