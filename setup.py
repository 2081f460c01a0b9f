"""Builds the one extension, rtpfanout._fastpath._engine; everything else is in pyproject.toml.

RTPFANOUT_SANITIZE=address,undefined (or thread) builds it instrumented.

`python setup.py build_ext --inplace` compiles again only what a change concerns.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

if sys.platform != "linux":
    sys.exit("rtpfanout runs on Linux only: its packet path uses recvmmsg, sendmmsg and UDP GSO.")

FASTPATH = Path("src/rtpfanout/_fastpath")
CORE = FASTPATH / "core"
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
# Of the core alone: what Cython writes is not as strict.
strict_args = ["-Wshadow", "-Wconversion", "-Wvla", "-Wmissing-prototypes"]
if "clang" in os.environ.get("CC", ""):
    strict_args.append("-Watomic-implicit-seq-cst")
link_args: list[str] = []
if sanitizers:
    compile_args += [f"-fsanitize={sanitizers}", "-fno-omit-frame-pointer"]
    link_args += [f"-fsanitize={sanitizers}"]

engine = Extension(
    "rtpfanout._fastpath._engine",
    sources=[
        str(FASTPATH / "_engine.pyx"),
        *sorted(str(path) for path in CORE.rglob("*.c")),
    ],
    include_dirs=[str(CORE), *sorted(str(path) for path in CORE.iterdir() if path.is_dir())],
    define_macros=[("Py_LIMITED_API", "0x030B0000"), ("_GNU_SOURCE", "1")],
    extra_compile_args=compile_args,
    extra_link_args=link_args,
    py_limited_api=True,
)


class BuildExt(build_ext):
    """Compiles each file that changed, or whose headers or options did; as many at once as CPUs.

    The compiler writes the headers of `x.o` to `x.d` (-MMD); we write its options to `x.how`.
    """

    def build_extensions(self) -> None:
        self.force = True  # what need not be compiled we tell ourselves; to link takes no time
        compiler = self.compiler
        compile_sources = compiler.compile

        def compile_changed(sources: list[str], output_dir: str, **options: object) -> list[str]:
            def compile_one(source: str) -> str:
                strict = strict_args if CORE in Path(source).parents else []
                how_one = options | {"extra_postargs": [*compile_args, *strict, "-MMD"]}
                how = repr((compiler.compiler_so, compiler.include_dirs, how_one))
                [target] = compiler.object_filenames([source], output_dir=output_dir)
                if not is_current(Path(target), how):
                    compile_sources([source], output_dir=output_dir, **how_one)
                    Path(target).with_suffix(".how").write_text(how)
                return target

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return list(pool.map(compile_one, sources))

        compiler.compile = compile_changed
        super().build_extensions()


def is_current(target: Path, how: str) -> bool:
    """Whether the object was compiled like that, after the last change to what it is made of."""
    try:
        if target.with_suffix(".how").read_text() != how:
            return False
        # "x.o: x.c \\\n a.h b.h"
        made_of = target.with_suffix(".d").read_text().replace("\\\n", " ").split()[1:]
        compiled = target.stat().st_mtime_ns
        return all(Path(name).stat().st_mtime_ns < compiled for name in made_of)
    except OSError:  # the first time, or a header is gone
        return False


setup(
    cmdclass={"build_ext": BuildExt},
    ext_modules=cythonize([engine], compiler_directives={"language_level": "3"}),
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
