"""Builds the one extension, rtpfanout._fastpath._engine; everything else is in pyproject.toml.

RTPFANOUT_SANITIZE=address,undefined (or thread) builds it instrumented.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

if sys.platform != "linux":
    sys.exit("rtpfanout runs on Linux only: its packet path uses recvmmsg, sendmmsg and UDP GSO.")

FASTPATH = Path("src/rtpfanout/_fastpath")
sanitizers = os.environ.get("RTPFANOUT_SANITIZE", "")

compile_args = [
    "-std=gnu11",
    "-O2",
    "-g",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-missing-field-initializers",
]
link_args: list[str] = []
if sanitizers:
    compile_args += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer"]
    link_args += [f"-fsanitize={sanitizers}"]

engine = Extension(
    "rtpfanout._fastpath._engine",
    sources=[
        str(FASTPATH / "_engine.pyx"),
        *sorted(str(path) for path in (FASTPATH / "core").glob("*.c")),
    ],
    depends=[
        str(FASTPATH / "values.pxi"),
        str(FASTPATH / "bulk.pxi"),
        str(FASTPATH / "proofs.pxi"),
        str(FASTPATH / "sockets.pxi"),
        *[str(path) for path in (FASTPATH / "core").glob("*.h")],
    ],
    include_dirs=[str(FASTPATH / "core")],
    define_macros=[("Py_LIMITED_API", "0x030B0000"), ("_GNU_SOURCE", "1")],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
    py_limited_api=True,
)

setup(
    ext_modules=cythonize([engine], compiler_directives={"language_level": "3"}),
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
