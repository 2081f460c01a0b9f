"""Standard error through a pipe of our own, over the execution of another program."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time

EXECUTES = """
import os, sys
from rtpfanout import stderr

stderr.FINISH_SECONDS = 60
stderr.start()
for number in range(1000):
    os.write(2, b"line %d\\n" % number)
for descriptor in stderr.descriptors():
    os.set_inheritable(descriptor, True)
print("now", flush=True)
with stderr.at_rest():
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1], *map(str, stderr.descriptors())])
"""
EXECUTED = """
import sys
from rtpfanout import stderr

stderr.FINISH_SECONDS = 60
stderr.start([int(each) for each in sys.argv[1:]])
"""


def test_nothing_is_on_its_way_when_another_program_is_executed() -> None:
    """The reader is slow, so the one that carries it has read more than it could write."""
    read, write = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 4096)
    with (
        os.fdopen(read, "rb") as errors,
        subprocess.Popen(
            [sys.executable, "-c", EXECUTES, EXECUTED], stdout=subprocess.PIPE, stderr=write
        ) as process,
    ):
        os.close(write)
        assert process.stdout
        assert process.stdout.readline() == b"now\n"
        time.sleep(0.5)  # as long as it takes to lose them
        found = errors.read().splitlines()
    assert found == [b"line %d" % number for number in range(1000)]
