"""Millions of forged packets beside a good session: what is forwarded, what does it cost?

    python benchmarks/forged.py --packets 10000000

From three wrong sources comes the good session's SSRC, then every packet has a random SSRC, both
as fast as `--rate` says. The good session must lose nothing, resident memory must stay. Another
server, bound to every address, is asked to send to itself in many spellings. Prints one JSON
object.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import grpc
from contenders import BIN
from flow import Flow
from run import build_tools
from soak import resident_bytes
from support import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

WRONG_SOURCES = ("127.0.1.1:40000", "127.0.1.2:40000", "127.0.0.1:40000")
SSRC = 1


def main() -> int:
    """Run, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=10_000_000, help="of each kind")
    parser.add_argument("--rate", type=float, default=300_000, help="packets a second")
    given = parser.parse_args()
    build_tools()
    with tempfile.TemporaryDirectory() as directory:
        result = run(given, Path(directory))
    result["spellings_of_itself_accepted"] = accepted = loops()
    print(json.dumps(result, indent=1))
    return 1 if result["good_missing"] or result["forged_forwarded"] or accepted else 0


def run(given: argparse.Namespace, directory: Path) -> dict[str, Any]:
    server = ServerProcess(store__path=str(directory / "store.db"), session_timeout_secs=0)
    try:
        return flood(given, server)
    finally:
        server.stop()


def flood(given: argparse.Namespace, server: ServerProcess) -> dict[str, Any]:
    """The whole run."""
    resident: dict[str, int] = {}
    log_lines = {}

    def look(name: str) -> None:
        server.metrics()
        resident[name] = resident_bytes(server.process.pid) >> 10
        log_lines[name] = len(server.log) + len(server.other_lines)

    with Flow(ssrc=SSRC) as flow:
        server.create(flow.source, SSRC, flow.viewer)
        flow.start(server.ingest)
        for _ in range(4):  # until the parts that make a scrape are loaded
            time.sleep(0.5)
            look("at_rest")
        share = given.packets // len(WRONG_SOURCES) + 1
        sent = sum(
            _flood(server, given.rate, "--from", source, "--count", str(share), "--ssrc", str(SSRC))
            for source in WRONG_SOURCES
        )
        look("after_wrong_sources")
        sent += _flood(
            server, given.rate, "--from", WRONG_SOURCES[0], "--count", str(given.packets),
            "--random-ssrc",
        )  # fmt: skip
        look("after_random_ssrcs")
        flow.finish()
    total = server.settled()
    server.check_identities()
    return {
        "forged_sent": sent,
        "forged_forwarded": int(total["rtpfanout_packets_forwarded_total"]) - len(flow.sent_at),
        "dropped": total.dropped(),
        "lost_in_the_queue": int(sent + len(flow.sent_at) - total["rtp_packets_received_total"]),
        "good_sent": len(flow.sent_at),
        "good_missing": len(flow.missing),
        "good_doubled": len(flow.got) - len(set(flow.numbers)),
        "resident_kib": resident,
        "log_lines": log_lines,
    }


def _flood(server: ServerProcess, rate: float, *arguments: str) -> int:
    command = [BIN / "rtpgen", "--to", str(server.ingest), "--burst", "1", "--size", "200"]
    command += ["--rate", str(rate), "--duration", "600", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(json.loads(done.stdout)["sent"])


def spellings(port: int) -> Iterator[str]:
    """The ingress socket, as one might write it: this host's addresses in IPv4 and in IPv6."""
    for own in ("127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0"):
        bits = int(ipaddress.IPv4Address(own))
        groups = f"{bits >> 16:x}:{bits & 0xFFFF:x}"
        yield f"{own}:{port}"
        for prefix in ("::ffff:", "::FFFF:", "0:0:0:0:0:ffff:", "::", "64:ff9b::"):
            yield f"[{prefix}{own}]:{port}"
            yield f"[{prefix}{groups}]:{port}"
        yield f"[2002:{groups}::1]:{port}"
    yield f"[::1]:{port}"
    yield f"[0:0:0:0:0:0:0:1]:{port}"
    yield f"[::]:{port}"


def loops() -> list[str]:
    """Those spellings of a server's own ingest that it takes for a subscriber: none, please."""
    server = ServerProcess(bind_address="[::]:0", store__path=":memory:")
    session = server.create("127.0.0.1:5000", SSRC)
    accepted = []
    try:
        for text in spellings(server.ingest.port):
            try:
                server.add(session, text)
            except grpc.RpcError as error:
                if error.code() != grpc.StatusCode.PERMISSION_DENIED:
                    raise
            else:
                accepted.append(text)
    finally:
        server.stop()
    return accepted


if __name__ == "__main__":
    sys.exit(main())
