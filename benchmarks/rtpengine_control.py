"""Runs beside rtpengine, in its namespace: makes a session by its ng protocol.

Speaks the same lines as control.py, one session only; answers with the port to send to.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import socket
import sys
import time
from typing import Any

START_TRIES, ANSWER_S = 50, 0.2


class Ng:
    """Requests and answers are "cookie JSON" in a UDP datagram; repeated until answered."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((host, int(port)))
        self.socket.settimeout(ANSWER_S)
        self.cookies = itertools.count(1)

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        cookie = str(next(self.cookies))
        fields = {name.replace("_", "-"): value for name, value in arguments.items()}
        request = f"{cookie} {json.dumps({'command': command, **fields})}".encode()
        for _ in range(START_TRIES):
            try:
                self.socket.send(request)
                head, _, body = self.socket.recv(65535).decode().partition(" ")
            except TimeoutError:
                continue
            except ConnectionRefusedError:
                time.sleep(ANSWER_S)
                continue
            if head == cookie:
                answer: dict[str, Any] = json.loads(body)
                if answer["result"] not in ("ok", "pong"):
                    raise SystemExit(f"rtpengine: {command}: {answer}")
                return answer
        raise SystemExit(f"rtpengine: no answer to {command}")


def description(address: str, direction: str) -> str:
    """SDP (RFC 8866) of one audio line: rtpengine only forwards codecs that it knows by name,
    and needs one for the generator's payload type."""
    ip, port = address.rsplit(":", 1)
    lines = ["v=0", f"o=- 1 1 IN IP4 {ip}", "s=-", f"c=IN IP4 {ip}", "t=0 0"]
    lines += [f"m=audio {port} RTP/AVP 96", "a=rtpmap:96 opus/48000/2", f"a={direction}", ""]
    return "\r\n".join(lines)


def create(ng: Ng, order: dict[str, Any]) -> dict[str, Any]:
    published = ng.ask(
        "publish",
        call_id="bench",
        from_tag="source",
        sdp=description(order["source"], "sendonly"),
    )
    for subscriber in order["subscribers"]:
        offer = ng.ask("subscribe request", call_id="bench", from_tag="source")
        ng.ask(
            "subscribe answer",
            call_id="bench",
            to_tag=offer["to-tag"],
            sdp=description(subscriber, "recvonly"),
        )
    port = re.search(r"^m=audio (\d+)", published["sdp"], re.MULTILINE)
    assert port is not None
    return {"port": int(port[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ng", required=True)
    options = parser.parse_args()
    ng = Ng(options.ng)
    ng.ask("ping")
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(create(ng, json.loads(line)["create"])), flush=True)


if __name__ == "__main__":
    main()
