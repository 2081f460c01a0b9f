"""Exit codes, and the one place where an error becomes a line on stderr."""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from rtpfanout import errors

OK = 0
FAILURE = 1
USAGE = 2
NOT_FOUND = 3
UNREACHABLE = 4
DENIED = 5
BROKEN_PIPE = 141
"""What a shell reports of a process ended by SIGPIPE: 128 + 13."""

_EXIT_CODES: tuple[tuple[type[errors.RtpFanoutError], int], ...] = (
    (errors.ConfigError, USAGE),
    (errors.StartError, USAGE),
    (errors.InvalidArgumentError, USAGE),
    (errors.NotFoundError, NOT_FOUND),
    (errors.UnreachableError, UNREACHABLE),
    (errors.UnavailableError, UNREACHABLE),
    (errors.AddressDeniedError, DENIED),
    (errors.PermissionDeniedError, DENIED),
    (errors.UnauthenticatedError, DENIED),
    (errors.RtpFanoutError, FAILURE),
)


def exit_code(error: errors.RtpFanoutError) -> int:
    """The exit code that stands for `error`."""
    return next(code for kind, code in _EXIT_CODES if isinstance(error, kind))


def error_text(error: errors.RtpFanoutError) -> str:
    """``error: field: message``, one line per problem."""
    if error.violations:
        return "\n".join(f"error: {v.field}: {v.message}" for v in error.violations)
    field = f"{error.field}: " if error.field else ""
    return "\n".join(f"error: {field}{line}" for line in error.message.splitlines())


def run_cli(command: Callable[[], object]) -> NoReturn:
    """Run `command`, turn what it raises into a line and a code, and exit."""
    try:
        command()
    except errors.RtpFanoutError as error:
        with contextlib.suppress(BlockingIOError):  # a server waits for nobody who reads its stderr
            print(error_text(error), file=sys.stderr)
        sys.exit(exit_code(error))
    except BrokenPipeError:
        broken_pipe()
    sys.exit(OK)


def broken_pipe() -> NoReturn:
    """The reader of our output is gone: end quietly."""
    # What is still buffered must not complain when the interpreter flushes it.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.dup2(devnull, sys.stderr.fileno())
    sys.exit(BROKEN_PIPE)
