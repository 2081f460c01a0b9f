"""Regenerates src/rtpfanout/api from proto/ with the pinned grpcio-tools (see pyproject.toml, dev).

An old generator's output loads on newer protobuf runtimes, not the reverse, so
the pin is the oldest runtime we support. ``--check`` writes nothing and fails
when the committed code differs.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.resources
import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = "rtpfanout/api/session.proto"
GENERATED = ("session_pb2.py", "session_pb2.pyi", "session_pb2_grpc.py")


def generate(target: Path) -> None:
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{ROOT / 'proto'}",
            f"-I{well_known}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            PROTO,
        ]
    )
    if status != 0:
        sys.exit(f"protoc failed with status {status}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        generate(ROOT / "src")
        return
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = Path(scratch) / "rtpfanout/api"
        committed = ROOT / "src/rtpfanout/api"
        _, differing, missing = filecmp.cmpfiles(fresh, committed, GENERATED, shallow=False)
        if differing or missing:
            sys.exit(f"stale: {', '.join(differing + missing)}; run python scripts/generate_api.py")


if __name__ == "__main__":
    main()
