"""Adds and removes subscribers of one session as fast as it is told, as a process of its own.

On the wire, by the same interface as the copies, it says what it is about to add and, once the
removal is answered, what it has removed: whoever captures there knows what may come between.
Prints a JSON object at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import socket
import struct
import time

from rtpfanout.client import BATCH_SIZE, AsyncSessionClient

GUEST_PORT = 40_001
MARKER_PORT = 40_000
ADDING, REMOVED = 1, 0
TASKS = 6
PORTS_PER_TASK = 2_000
MOST_AT_ONCE = 15


class Churner:
    """`rate`: adds, and removes, a second in all; `removals` in all."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.removed = 0
        self.client = AsyncSessionClient(options.server, timeout=60)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def mark(self, what: int, ports: list[int]) -> None:
        marker = struct.pack(f"!B{len(ports)}H", what, *ports)
        self.sock.sendto(marker, (self.options.to, MARKER_PORT))

    async def run(self) -> None:
        began = time.monotonic()
        await asyncio.gather(*(self.come_and_go(task, began) for task in range(TASKS)))
        seconds = time.monotonic() - began
        await self.client.close()
        print(json.dumps({"removed": self.removed, "seconds": seconds}))

    async def come_and_go(self, task: int, began: float) -> None:
        rng = random.Random(task)
        ports = range(GUEST_PORT + task * PORTS_PER_TASK, GUEST_PORT + (task + 1) * PORTS_PER_TASK)
        while self.removed < self.options.removals:
            some = rng.sample(ports, rng.randint(1, MOST_AT_ONCE))
            addresses = [f"{self.options.to}:{port}" for port in some]
            self.mark(ADDING, some)
            if len(some) == 1:
                await self.client.add_subscriber(self.options.session, addresses[0])
            else:
                await self.client.add_subscribers(self.options.session, addresses)
            await asyncio.sleep(rng.uniform(0, 0.008))
            if len(some) == 1:
                await self.client.remove_subscriber(self.options.session, addresses[0])
            else:
                await self.client.remove_subscribers(self.options.session, addresses)
            self.mark(REMOVED, some)
            self.removed += len(some)
            await asyncio.sleep(began + self.removed / self.options.rate - time.monotonic())


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("--server", "--session", "--to"):
        parser.add_argument(name, required=True)
    parser.add_argument("--removals", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    asyncio.run(_churn(parser.parse_args()))


async def _churn(options: argparse.Namespace) -> None:
    await Churner(options).run()


if __name__ == "__main__":
    assert MOST_AT_ONCE <= BATCH_SIZE
    main()
