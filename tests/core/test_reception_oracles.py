"""The figures of a reception beside those of tshark, of twenty captures with seeded harm."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from harmed_captures import CLOCK, PORT, Harm, capture, write_pcap
from support import requires

if TYPE_CHECKING:
    from pathlib import Path

    from replay import Replay

HARMS = [
    Harm(),
    Harm(lost=1),
    Harm(lost=10),
    Harm(reordered=2),
    Harm(doubled=3),
    Harm(lost=2, reordered=2),
    Harm(lost=2, doubled=2),
    Harm(reordered=2, doubled=2),
    Harm(lost=3, reordered=3, doubled=3),
    Harm(lost=20, reordered=5, doubled=5),
]


def measured(path: Path) -> dict[int, tuple[int, float, float]]:
    """By SSRC: packets lost as RFC 3550 has it, mean and greatest jitter in ms."""
    command = ["tshark", "-r", str(path), "-d", f"udp.port=={PORT},rtp", "-q", "-z", "rtp,streams"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(" 0x", 1) for line in shown.splitlines() if " 0x" in line]
    found = {}
    for _, row in rows:
        # the payload type's name may have blanks; the columns behind it are counted from the end
        cells = row.removesuffix(" X").rstrip().removesuffix(" X").split()
        lost = row.split("(")[0].split()[-1]
        found[int(cells[0], 16)] = (int(lost), float(cells[-2]), float(cells[-1]))
    return found


def test_loss_and_jitter_as_tshark_has_them(replay: Replay, tmp_path: Path) -> None:
    """Payload types 33 and 26: of others tshark knows no clock."""
    requires("tshark")
    everything, ours = [], {}
    for number, harm in enumerate(HARMS * 2):
        ssrc = 1000 + number
        arrivals = capture(ssrc, harm, kind=33 if number % 2 else 26)
        everything += arrivals
        replay.new()
        replay.media(clock=CLOCK)
        jitters = []
        for arrival in arrivals:
            replay.take(arrival.at_ns, arrival.packet)
            jitters.append(replay.figures()["jitter_ns"] / 1e6)
        figures = replay.figures()
        assert figures["received"] == len(arrivals)
        assert figures["restarts"] == figures["timestamp_jumps"] == figures["late"] == 0
        # tshark's mean leaves out the first packet, which has none
        ours[ssrc] = (
            figures["cumulative_lost"],
            pytest.approx(sum(jitters) / (len(jitters) - 1), abs=0.0006),
            pytest.approx(max(jitters), abs=0.0006),
        )
    write_pcap(tmp_path / "all.pcap", everything)
    assert measured(tmp_path / "all.pcap") == ours


@pytest.mark.parametrize("seed", range(20))
def test_what_was_lost_and_doubled_is_counted_exactly(replay: Replay, seed: int) -> None:
    """Where no duplicate hides a loss, as it does in RFC 3550's count."""
    replay.new()
    arrivals = capture(seed, Harm(lost=5, reordered=5, doubled=5), kind=96)
    for arrival in arrivals:
        replay.take(arrival.at_ns, arrival.packet)
    figures = replay.figures()
    distinct = {arrival.sequence for arrival in arrivals}
    assert figures["duplicates"] == len(arrivals) - len(distinct)
    assert figures["lost"] == figures["expected"] - len(distinct)
    assert figures["received"] == len(arrivals)
