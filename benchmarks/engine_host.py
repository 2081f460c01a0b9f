"""The Engine alone, without gRPC, policy and metrics: tells what the control plane costs.

Speaks the same lines as control.py.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time

from rtpfanout._fastpath import Engine
from rtpfanout.model import Address


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bind", required=True)
    parser.add_argument("--queue", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    engine = Engine(
        Address.parse(options.bind),
        max_sessions=65536,
        max_subscribers=65536,
        receive_queue_packets=options.queue,
        workers=options.workers,
    )
    loops = [threading.Thread(target=engine.run, args=(i,)) for i in range(options.workers)]
    for loop in loops:
        loop.start()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "create" in order:
            create = order["create"]
            subscribers = b"".join(Address.parse(text).record for text in create["subscribers"])
            for i in range(create["sessions"]):
                handle = engine.add_session(
                    Address.parse(create["source"]), create["first_ssrc"] + i, time.monotonic_ns()
                )
                engine.add_subscribers(handle, subscribers, time.monotonic_ns())
            print(json.dumps({"sessions": create["sessions"]}), flush=True)
        else:
            print(json.dumps(engine.stats()), flush=True)
    engine.stop()
    for loop in loops:
        loop.join()


if __name__ == "__main__":
    main()
