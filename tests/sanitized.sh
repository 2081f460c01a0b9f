#!/usr/bin/env bash
# The whole server under AddressSanitizer and UndefinedBehaviorSanitizer, driven by its tests.
#
#   tests/sanitized.sh [what pytest is to run; default: the packet path from end to end]
#
# In an environment that has what `pip install -e '.[test]'` brings. The extension is built
# instrumented in a scratch copy of the tree. Leaks are not looked for here: Python and gRPC keep
# memory until their process ends, on purpose; tests/core/test_leak.c looks for those of the core.
set -euo pipefail

if [ $# -eq 0 ]; then
    set -- tests/fastpath \
        tests/system/test_{gating,moving,batches,workers,errno_injection}.py
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tree=$scratch/tree
mkdir "$tree" "$scratch/reports" "$scratch/plugins"
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cp -r setup.py pyproject.toml MANIFEST.in README.md LICENSE config docker docs proto src tests "$tree"
cd "$tree"
find src -name '*.so' -delete
rm -rf src/*.egg-info

# -fno-sanitize-recover: undefined behaviour ends the process, as a bad access does.
export CC=gcc # whose runtime is a shared library
RTPFANOUT_SANITIZE=address,undefined CFLAGS="-fno-sanitize-recover=all" \
    pip install -q --no-deps --target "$scratch/site" . >"$scratch/build.log" 2>&1 ||
    { tail -n 40 "$scratch/build.log"; exit 1; }
extension=$(echo "$scratch"/site/rtpfanout/_fastpath/_engine*.so)
nm -D "$extension" >"$scratch/symbols"
for instrumented in __asan_report_load8 __ubsan_handle_.*_abort; do
    grep -q "$instrumented" "$scratch/symbols" || { echo "no $instrumented in it"; exit 1; }
done

# Each server that a test starts has to be one of these.
cat >"$scratch/plugins/sanitized.py" <<'PLUGIN'
import os
from pathlib import Path

from support import ServerProcess

start = ServerProcess.__init__


def checked(self, **settings):
    start(self, **settings)
    maps = Path(f"/proc/{self.pid}/maps").read_text()
    for part in ("libasan", "libubsan", os.environ["INSTRUMENTED"]):
        assert part in maps, f"{part} is not in the server"
    with Path(os.environ["SEEN"]).open("a") as seen:
        seen.write(f"{self.pid}\n")


ServerProcess.__init__ = checked
PLUGIN

export INSTRUMENTED=$extension SEEN=$scratch/seen
export PYTHONPATH="$scratch/site:$scratch/plugins:$tree/tests"
export PYTHONMALLOC=malloc # so that Python's objects are watched, too
report="log_path=$scratch/reports/found"
export ASAN_OPTIONS="detect_leaks=0:allocator_may_return_null=1:$report" UBSAN_OPTIONS="print_stacktrace=1:$report"
status=0
# Python itself is not instrumented, so the runtime has to be there before it.
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)" \
    python -m pytest -q --all -n 2 --dist worksteal -p sanitized "$@" || status=$?
# A warning is there for the page of impossible size that a test asks for.
if grep -rlE 'ERROR: |runtime error: ' "$scratch/reports" >"$scratch/found"; then
    xargs cat <"$scratch/found"
    status=1
fi
[ ! -e "$SEEN" ] || echo "$(wc -l <"$SEEN") servers had the sanitizers in them"
exit "$status"
