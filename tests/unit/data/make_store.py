"""Makes a store with every field in use, by the server of the version that runs this.

    python make_store.py NAME        with the Python that the version is installed for

NAME.db is the file as the server left it. NAME.json is what the server said of it last: its answers
to GetSession and ListSubscribers, and calls with a request id, with what they were answered. Both
are kept for ever: tests/unit/test_old_stores.py opens them with the version of the day. Before the
layout of the store changes (rtpfanout/store/migrations.py), make a pair with the one before.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format

from rtpfanout import signed
from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.model import Address
from rtpfanout.receiver import Receiver

try:
    from rtpfanout.traffic import rtp
except ImportError:  # of a version before
    from rtpfanout import rtp

PORT, CALLS = 25004, "127.0.0.1:25051"
INGRESS = "127.0.0.1", PORT
LINK = "store0"
"""An interface that link-local addresses are of, if there is one of that name."""
KEYS = (b"the key of 6    ", b"the key of 7    ", b"\0\xff" * 32)


class Caller:
    """The calls of the API; remembers those with a request id, and what they were answered."""

    def __init__(self) -> None:
        self.stub = session_pb2_grpc.SessionServiceStub(grpc.insecure_channel(CALLS))
        self.calls: list[dict[str, Any]] = []

    def __call__(self, method: str, **fields: Any) -> Any:
        kind = session_pb2.DESCRIPTOR.services_by_name["SessionService"].methods_by_name[method]
        request = getattr(session_pb2, kind.input_type.name)(**fields)
        answer = getattr(self.stub, method)(request, wait_for_ready=True, timeout=30)
        if fields.get("request_id"):
            self.calls.append(
                {"method": method, "request": shown(request), "answer": shown(answer)}
            )
        return answer

    def create(self, source: str, ssrc: int, **fields: Any) -> str:
        fields = {"media_type": "video", "request_id": f"create-{ssrc}", **fields}
        return self("CreateSession", source_address=source, ssrc=ssrc, **fields).session_id

    def add(self, session: str, *addresses: str, **fields: Any) -> None:
        self("BatchAddSubscribers", session_id=session, subscriber_addresses=addresses, **fields)


def shown(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def send(source: socket.socket, data: bytes) -> None:
    source.sendto(data, INGRESS)


def source_at(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    host, _, port = address.rpartition(":")
    sock.bind((host, int(port)))
    sock.settimeout(10)
    return sock


def move(source: socket.socket, key: bytes, ssrc: int, counter: int) -> None:
    """The source is where this is sent from, from now on."""
    now = time.time_ns() // 1_000_000
    send(source, signed.build_move(key, ssrc=ssrc, counter=counter, time_ms=now))
    answer = signed.Answer.parse(source.recv(1000))
    assert int.from_bytes(answer.nonce) == counter


def be_latched_on_to(address: str, ssrc: int) -> None:
    with source_at(address) as source:
        for number in range(20):
            send(source, rtp.build(b"x", ssrc=ssrc, sequence=number, timestamp=number))
            time.sleep(0.05)


def fill(call: Caller) -> None:
    """Ten sessions that are there, one that is not any more, and the answers to many calls."""
    one = call.create("192.0.2.1:5000", 1)
    call("AddSubscriber", session_id=one, subscriber_address="127.0.1.1:6000", request_id="add-1")
    lease = {"ttl_secs": 86_400.0, "subscriber_class": "pilot", "request_id": "add-2"}
    call("AddSubscriber", session_id=one, subscriber_address="[2001:db8::9]:6000", **lease)
    addresses = [f"198.51.100.{n}:6000" for n in range(1, 9)]
    call.add(one, *addresses, subscriber_class="recorder", request_id="add-3")
    call.add(one, *addresses[6:], ttl_secs=3600.5, request_id="add-4")
    for index, link in socket.if_nameindex():
        if link == LINK:
            call.add(one, f"[fe80::9%{index}]:6000")
    gone = {"session_id": one, "subscriber_addresses": [addresses[0], "192.0.2.99:1"]}
    call("BatchRemoveSubscribers", **gone, request_id="remove-1")
    removal = {"session_id": one, "subscriber_address": addresses[1]}
    call("RemoveSubscriber", **removal, request_id="remove-2")
    call.create("192.0.2.2", 2, source_policy="ip", labels={"vehicle": "rover-7", "site/x": "n-1"})
    limits = {"ingest_limit_bps": 2**63 - 1, "max_subscribers": 7, "media_type": "audio"}
    call.create("2001:db8:1::/48", 3, source_policy="cidr", **limits)
    times = {"latch_window_secs": 3600.25, "relatch_after_secs": 7.5}
    latching = call.create("127.0.0.0/8", 2**32 - 1, source_policy="latch", **times)
    call.add(latching, *(f"127.0.2.{n}:{n + 1}" for n in range(40)))
    asking = call.create("[2001:db8::5]:5000", 5, consent="echo", request_id="")
    for _ in range(2):
        token = call(
            "IssueJoinToken",
            session_id=asking,
            ttl_secs=600,
            lease_secs=600,
            subscriber_class="pilot",
        ).token
        Receiver(Address.parse(f"127.0.0.1:{PORT}"), token, bind=Address.parse("127.0.0.1:0")).join(
            20
        )
    call.add(asking, "127.0.3.3:6000")
    moved = call.create("127.0.0.6:26000", 6, move_key=KEYS[0])
    with source_at("127.0.0.16:26000") as source:
        move(source, KEYS[0], 6, 12)
        move(source, KEYS[0], 6, 2**63 - 1)
    keyed = call.create("127.0.0.7:26000", 7, move_key=KEYS[1], media_type="data", request_id="")
    with source_at("127.0.0.17:26000") as source:
        move(source, KEYS[1], 7, 5)
    call("UpdateSession", session_id=keyed, move_key=KEYS[2], request_id="rekey")
    paused = call.create("192.0.2.8:5000", 8, labels={"a": "b", "c": "d"}, max_subscribers=3)
    labels = {"a": "", "e": "f"}
    changes = {"paused": True, "ingest_limit_bps": 0, "labels": labels, "request_id": "pause"}
    call("UpdateSession", session_id=paused, **changes)
    call.create("", 9, source_policy="latch", latch_window_secs=86_400.0)
    changing = call.create("192.0.2.10:5000", 10)
    revision = call("GetSession", session_id=changing).revision
    sourced = {"source_address": "192.0.2.0/24", "source_policy": "cidr", "consent": "echo"}
    call("UpdateSession", session_id=changing, **sourced, if_revision=revision, request_id="source")
    last = call.create("192.0.2.11:5000", 11, request_id="")
    call.add(last, "127.0.1.1:6000")
    call("DeleteSession", session_id=last, request_id="delete-1")
    be_latched_on_to("127.0.0.4:26000", 2**32 - 1)
    assert call("GetSession", session_id=latching).pinned_source == "127.0.0.4:26000"
    assert call("GetSession", session_id=moved).source_address == "127.0.0.16:26000"


def answers(call: Caller) -> dict[str, Any]:
    """What the server says of it."""
    listed = call("ListSessions", limit=1000).sessions
    sessions = {each.session_id: shown(each) for each in listed}
    subscribers = {
        session: shown(call("ListSubscribers", session_id=session, limit=1000)).get(
            "subscribers", []
        )
        for session in sessions
    }
    return {"sessions": sessions, "subscribers": subscribers, "calls": call.calls}


def main() -> None:
    """One store."""
    name = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/store.db"
        environment = {
            "RTP_FANOUT__BIND_ADDRESS": f"[::]:{PORT}",
            "RTP_FANOUT__GRPC_BIND_ADDRESS": CALLS,
            "RTP_FANOUT__ENABLE_METRICS": "false",
            "RTP_FANOUT__SESSION_TIMEOUT_SECS": "0",
            "RTP_FANOUT__STORE__PATH": path,
            "RTP_FANOUT__ADDRESS_POLICY__ALLOW": '["fe80::/16", "::/0", "0.0.0.0/0"]',
            "RUNTIME_DIRECTORY": directory,
        }
        command = [str(Path(sys.executable).with_name("rtpfanout")), "serve"]
        server = subprocess.Popen(command, env={**os.environ, **environment})
        try:
            call = Caller()
            fill(call)
            said = {"unix_secs": time.time(), **answers(call)}
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        name.with_suffix(".db").write_bytes(Path(path).read_bytes())
    name.with_suffix(".json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
