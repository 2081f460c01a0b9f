"""Builds the C core and its test programs, without make; `python build.py` runs them all.

The compiler is $CC, else cc. One variant is one set of sanitizers: "plain", "address,undefined" or
"thread". The core is compiled once for a variant and linked with each `test_<module>.c`, which is
a program of its own: exit code 0 says that all its checks held.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import os
import re
import shlex
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "src" / "rtpfanout" / "_fastpath" / "core"
VARIANTS = ("plain", "address,undefined", "thread")
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")
# Of the core alone, and plain: what a sanitizer inserts converts as it likes.
STRICT = ("-Wshadow", "-Wconversion", "-Wvla", "-Wmissing-prototypes")
FLAGS = ("-std=gnu11", "-O1", "-g", "-D_GNU_SOURCE", "-fno-omit-frame-pointer", *WARNINGS)
INCLUDES = [f"-I{CORE}", *(f"-I{path}" for path in sorted(CORE.iterdir()) if path.is_dir())]
WRAPS = re.compile(r"^ \* wraps: ([a-z_ ]+?)(?: \*/)?$", re.MULTILINE)


class BuildError(Exception):
    """The compiler's own words."""


def compiler() -> list[str]:
    """$CC as a command line, else cc."""
    return shlex.split(os.environ.get("CC", "cc"))


def programs() -> list[str]:
    """Names of the test programs, such as "test_rtp"."""
    return sorted(path.stem for path in HERE.glob("test_*.c"))


def _sanitize(variant: str) -> list[str]:
    if variant == "plain":
        return []
    return [f"-fsanitize={variant}", "-fno-sanitize-recover=all"]


def _run_compiler(arguments: list[str], command: list[str] | None = None) -> None:
    result = subprocess.run(
        [*(command or compiler()), *arguments], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise BuildError(result.stderr)


@cache
def missing(variant: str, command: tuple[str, ...] | None = None) -> str | None:
    """Why this machine cannot build and run the variant, or None when it can."""
    command = command or tuple(compiler())
    probe = "int main(void) { return 0; }\n"
    if "fuzzer" in variant:
        probe = "int LLVMFuzzerTestOneInput(const char *p, long n) { return !p && n; }\n"
    with tempfile.TemporaryDirectory() as name:
        source, program = Path(name, "probe.c"), Path(name, "probe")
        source.write_text(probe)
        try:
            options = [*_sanitize(variant), "-pthread"]
            _run_compiler([*options, str(source), "-o", str(program)], list(command))
        except (BuildError, OSError) as error:
            return f"{' '.join(command)} cannot build with {variant}: {error}"
        ran = run(program, *(["-runs=1"] if "fuzzer" in variant else []), timeout=30)
    return None if ran.returncode == 0 else f"a program with {variant} does not run: {ran.stdout}"


def compile_core(
    out: Path, variant: str, *, extra: tuple[str, ...] = (), command: list[str] | None = None
) -> list[Path]:
    """Compiles every file of the core into `out`; the objects. Raises BuildError."""
    out.mkdir(parents=True, exist_ok=True)
    sources = sorted(CORE.rglob("*.c"))
    objects = [out / f"{source.stem}.o" for source in sources]

    def compile_one(source: Path, target: Path) -> None:
        strict = STRICT if variant == "plain" else ()
        options = [*FLAGS, *strict, *_sanitize(variant), *extra, *INCLUDES, "-fvisibility=hidden"]
        _run_compiler([*options, "-c", str(source), "-o", str(target)], command)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, sources, objects))
    return objects


def link_program(
    source: Path,
    objects: list[Path],
    out: Path,
    variant: str,
    *,
    command: list[str] | None = None,
) -> Path:
    """Compiles one test program and links it with the core. Raises BuildError.

    A line ` * wraps: malloc poll` in its opening comment replaces those functions, as the core
    calls them, by the program's own `__wrap_…` (ld --wrap).
    """
    wraps = [
        f"-Wl,--wrap={name}"
        for match in WRAPS.findall(source.read_text())
        for name in match.split()
    ]
    program = out / source.stem
    _run_compiler(
        [
            *FLAGS,
            *_sanitize(variant),
            *INCLUDES,
            f"-I{HERE}",
            str(source),
            *map(str, objects),
            "-pthread",
            *wraps,
            "-o",
            str(program),
        ],
        command,
    )
    return program


# RTPFANOUT_TORTURE_SECONDS asks a race test for that long.
TIMEOUT = 300 + float(os.environ.get("RTPFANOUT_TORTURE_SECONDS", "60"))


def run(
    program: Path, *arguments: str, timeout: float = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    """Runs a program with sanitizers set to stop at the first finding, freed memory overwritten."""
    environment = os.environ | {
        "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
        "MALLOC_PERTURB_": "165",
    }
    return subprocess.run(
        [str(program), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )


def main() -> int:
    """Builds and runs programs under variants, as the command line asks; 0 when all passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="default: all")
    parser.add_argument("programs", nargs="*", help="default: all")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        for variant in options.variant or VARIANTS:
            out = Path(name, variant)
            objects = compile_core(out, variant)
            for stem in options.programs or programs():
                result = run(link_program(HERE / f"{stem}.c", objects, out, variant))
                failed += result.returncode != 0
                print(f"{'ok' if result.returncode == 0 else 'FAILED':7}{variant:18} {stem}")
                if result.returncode != 0:
                    print(result.stdout, result.returncode)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
