"""What docs/operations.md tells an operator, against what is there."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest
from netns import hosts, inside
from support import requires, requires_root

from rtpfanout._fastpath import DROP_REASONS

PAGE = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()


@pytest.mark.parametrize("reason", DROP_REASONS)
def test_every_reason_of_a_drop_is_explained(reason: str) -> None:
    (row,) = [line for line in PAGE.splitlines() if line.startswith("| a session receives nothing")]
    assert f"`{reason}`" in row


def test_the_firewall_lines_work_on_a_fresh_host() -> None:
    requires("ip", "nft")
    requires_root()
    lines = re.findall(r"^ +(nft .*)$", PAGE, re.MULTILINE)
    assert len(lines) == 5
    with hosts("nft") as names:

        def nft(line: str) -> str:
            done = subprocess.run(
                ["ip", "netns", "exec", names["nft"], "sh", "-ec", line],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        for line in lines:
            nft(line)
        # Seen where packets come out behind: each of them is untracked, both ways.
        nft("nft add table inet seen")
        for hook in ("input", "output"):
            nft(f"nft 'add chain inet seen {hook} {{ type filter hook {hook} priority 0; }}'")
            nft(f"nft add rule inet seen {hook} ct state untracked counter")
        with (
            inside(names["nft"]),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ingest,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as camera,
        ):
            ingest.bind(("127.0.0.1", 5004))
            ingest.sendto(b"out", ("127.0.0.1", 9))
            camera.sendto(b"in", ("127.0.0.1", 5004))
        counted = [int(n) for n in re.findall(r"packets (\d+)", nft("nft list table inet seen"))]
        assert len(counted) == 2
        assert all(counted)
