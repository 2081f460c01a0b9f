"""Standard error that never makes anybody wait for its reader.

Who serves writes into a pipe of its own, whose description is not blocking and no other program's.
A thread carries the pipe's contents to where standard error was, however long that takes: it
alone waits. The pipe is the bound: what does not fit is lost, and whoever writes is told so.
Processes that are forked or executed later inherit the pipe; their last words outlive them.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import select
import threading
from collections.abc import Iterator, Sequence

STDERR = 2
PIPE_BYTES = 1 << 18
FINISH_SECONDS = 1.0
"""At the end of the process, for what the reader has not taken yet."""


_carrying = threading.Lock()
"""Of what is out of the pipe and not yet where standard error was."""
_pipe: tuple[int, ...] = ()  # the end that is read, and what standard error was
_is_started = False
_is_terminal: bool | None = None


def open_missing() -> None:
    """Descriptors 0 to 2 that are closed become /dev/null: nothing else may get their numbers."""
    for descriptor in range(STDERR + 1):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
            os.set_inheritable(descriptor, True)


def start(inherited: Sequence[int] = ()) -> None:
    """From here on writing to descriptor 2 does not block; once in a process.

    `inherited`: `descriptors` of the program that executed this one. Where there is no pipe or no
    thread to be had all stays as it is.
    """
    global _pipe, _is_started, _is_terminal
    try:
        read, to = inherited or _open_pipe()
    except OSError:
        return
    carrier = threading.Thread(target=_carry, args=(read, to), name="rtpfanout-stderr", daemon=True)
    try:
        carrier.start()
    except RuntimeError:  # no room for another thread
        os.dup2(to, STDERR)
        os.close(to)
        os.close(read)
        return
    _pipe, _is_started, _is_terminal = (read, to), True, os.isatty(to)
    atexit.register(_finish, os.getpid(), carrier)


def join(descriptor: int, *, terminal: bool) -> None:
    """Descriptor 2 becomes the pipe that another process carries on: `descriptor`, closed here."""
    global _is_started, _is_terminal
    os.dup2(descriptor, STDERR)
    os.close(descriptor)
    _is_started, _is_terminal = True, terminal


def descriptors() -> list[int]:
    """Those that belong to the process which called `start` alone."""
    return list(_pipe)


@contextlib.contextmanager
def at_rest() -> Iterator[None]:
    """Meanwhile what is written stays in the pipe, so a program that is executed has all of it.

    But for what its reader has not taken within FINISH_SECONDS.
    """
    is_held = _carrying.acquire(timeout=FINISH_SECONDS)
    try:
        yield
    finally:
        if is_held:
            _carrying.release()


def is_terminal() -> bool:
    """A person reads along."""
    return os.isatty(STDERR) if _is_terminal is None else _is_terminal


def is_started() -> bool:
    """Writing to descriptor 2 does not block."""
    return _is_started


def write(data: bytes) -> int:
    """How many bytes of `data` went out: all, none, or with more than PIPE_BUF some of them."""
    try:
        return os.write(STDERR, data)
    except OSError:
        return 0


def _open_pipe() -> tuple[int, int]:
    read, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        os.set_blocking(write_end, False)
        with contextlib.suppress(OSError):  # more than one user may have in all his pipes
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        old = fcntl.fcntl(STDERR, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
        os.dup2(write_end, STDERR)
    except OSError:
        os.close(read)
        raise
    finally:
        os.close(write_end)
    return read, old


def _carry(read: int, to: int) -> None:
    written, has_room = select.poll(), select.poll()
    written.register(read, select.POLLIN)
    has_room.register(to, select.POLLOUT)
    while written.poll():
        with _carrying:
            if not (data := os.read(read, 1 << 16)):
                return
            with contextlib.suppress(OSError):  # its reader is gone: there is nobody to tell
                while data:
                    has_room.poll()  # somebody may have made it non-blocking
                    data = data[os.write(to, data) :]


def _finish(pid: int, carrier: threading.Thread) -> None:
    """The carrier ends when the last process that wrote has; what then is left is given up."""
    if os.getpid() != pid:
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STDERR)
    os.close(nowhere)
    carrier.join(FINISH_SECONDS)
