"""One thread of another process, held where it is while the rest of that process goes on."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# sys/ptrace.h, sys/wait.h
_DETACH, _SEIZE, _INTERRUPT = 17, 0x4206, 0x4207
_WALL = 0x40000000


@contextmanager
def held(tid: int) -> Iterator[None]:
    """Thread `tid` executes nothing within the block, as if it hung in the kernel.

    By ptrace(2). The process can end meanwhile. Raises OSError: no such thread, not permitted.
    """
    stopped, release = threading.Event(), threading.Event()
    failures: list[OSError] = []

    def trace() -> None:  # only the thread that seized may ask for more
        try:
            _ptrace(_SEIZE, tid)
            _ptrace(_INTERRUPT, tid)
            os.waitpid(tid, _WALL)
        except OSError as error:
            failures.append(error)
            stopped.set()
            return
        stopped.set()
        while not release.wait(0.02):
            # A traced thread that ended is kept, and with it its process, until it is waited for.
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(tid, _WALL | os.WNOHANG)[0]:
                    return
        with contextlib.suppress(ProcessLookupError):
            _ptrace(_DETACH, tid)

    thread = threading.Thread(target=trace)
    thread.start()
    stopped.wait()
    if failures:
        raise failures[0]
    try:
        yield
    finally:
        release.set()
        thread.join()


def _ptrace(request: int, tid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, tid, None, None) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
