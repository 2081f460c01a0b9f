"""Captures of RTP with seeded loss, reordering, duplicates and jitter; and as pcap files."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CLOCK = 90_000
FRAME_NS = 33_000_000
PORT = 5004


@dataclass(frozen=True)
class Harm:
    """What happens to how many of 100 packets on the way."""

    lost: float = 0
    reordered: float = 0
    doubled: float = 0


@dataclass(frozen=True)
class Arrival:
    at_ns: int
    sequence: int
    packet: bytes


def capture(ssrc: int, harm: Harm, *, kind: int, frames: int = 150) -> list[Arrival]:
    """`frames` of 1 to 8 packets; the first and the last packet come, and in their place."""
    dice = random.Random(ssrc)
    sent = [(frame, n) for frame in range(frames) for n in range(dice.randint(1, 8))]
    first = dice.randrange(65536)
    found: list[Arrival] = []
    for index, (frame, n) in enumerate(sent):
        at = 1_000_000_000 + frame * FRAME_NS + n * 200_000 + dice.randrange(8_000_000)
        at = max(at, found[-1].at_ns + 1000) if found else at
        sequence = (first + index) % 65536
        header = (
            0x80,
            kind,
            sequence,
            (7 * ssrc + frame * CLOCK * FRAME_NS // 10**9) % 2**32,
            ssrc,
        )
        arrival = Arrival(at, sequence, struct.pack("!BBHII", *header) + bytes(60))
        if 0 < index < len(sent) - 1 and dice.uniform(0, 100) < harm.lost:
            continue
        found.append(arrival)
        if dice.uniform(0, 100) < harm.doubled:
            found.append(Arrival(at + 500, sequence, arrival.packet))
    return reorder(found, harm, dice)


def reorder(found: list[Arrival], harm: Harm, dice: random.Random) -> list[Arrival]:
    """Some packets come behind up to 20 that were sent later; the times of arrival stay."""
    order = list(range(len(found)))
    for i in range(1, len(found) - 25):
        if dice.uniform(0, 100) < harm.reordered:
            order.insert(i + dice.randint(1, 20), order.pop(i))
    return [
        Arrival(slot.at_ns, found[which].sequence, found[which].packet)
        for slot, which in zip(found, order, strict=True)
    ]


def write_pcap(path: Path, arrivals: Iterable[Arrival]) -> None:
    """With nanoseconds, as UDP over IPv4 in Ethernet frames, to PORT."""
    with path.open("wb") as out:
        out.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65535, 1))
        for arrival in sorted(arrivals, key=lambda a: a.at_ns):
            length = 28 + len(arrival.packet)
            ip = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, 17, 0)
            udp = struct.pack("!HHHH", 4000, PORT, 8 + len(arrival.packet), 0)
            frame = bytes(12) + b"\x08\x00" + ip + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + udp
            frame += arrival.packet
            seconds, ns = divmod(arrival.at_ns, 10**9)
            out.write(struct.pack("<IIII", seconds, ns, len(frame), len(frame)) + frame)
