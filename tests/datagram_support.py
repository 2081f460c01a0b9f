"""Sessions that move, ask for consent or are joined, and datagrams from forged addresses."""

from __future__ import annotations

import os
import signal
import socket
import struct
from typing import TYPE_CHECKING, Any

import grpc
from support import SETTLE_SECONDS, address_of, eventually

from rtpfanout.api import session_pb2

if TYPE_CHECKING:
    from support import ServerProcess

    from rtpfanout.model import Address
    from rtpfanout.receiver import Receiver


def create(server: ServerProcess, source: socket.socket, ssrc: int, **fields: Any) -> str:
    """A session with fields of CreateSessionRequest; its id."""
    request = session_pb2.CreateSessionRequest(
        source_address=address_of(source), ssrc=ssrc, media_type="video", **fields
    )
    return str(server.stub.CreateSession(request).session_id)


def token_of(server: ServerProcess, session_id: str, **fields: Any) -> str:
    """IssueJoinToken."""
    request = session_pb2.IssueJoinTokenRequest(session_id=session_id, **fields)
    return str(server.stub.IssueJoinToken(request).token)


def subscribers(server: ServerProcess, session_id: str) -> dict[str, str]:
    """State by address."""
    request = session_pb2.ListSubscribersRequest(session_id=session_id)
    found = server.stub.ListSubscribers(request).subscribers
    return {subscriber.subscriber_address: subscriber.state for subscriber in found}


def source_of(server: ServerProcess, session_id: str) -> str:
    """The session's source address."""
    request = session_pb2.GetSessionRequest(session_id=session_id)
    return str(server.stub.GetSession(request).source_address)


def outcomes(server: ServerProcess) -> dict[tuple[str, str], int]:
    """rtpfanout_control_datagrams_total by (kind, outcome), without the zeros."""
    prefix = "rtpfanout_control_datagrams_total{"
    found = {}
    for name, value in server.metrics().items():
        if name.startswith(prefix) and value:
            labels = dict(pair.split("=") for pair in name[len(prefix) : -1].split(","))
            found[labels["kind"].strip('"'), labels["outcome"].strip('"')] = int(value)
    return found


def counted(server: ServerProcess, kind: str, outcome: str, count: int) -> None:
    """Once so many are counted, and not more."""
    eventually(
        lambda: outcomes(server).get((kind, outcome), 0),
        lambda seen: seen >= count,
        f"{count} {kind} {outcome}",
    )
    assert outcomes(server)[kind, outcome] == count


def replaced(server: ServerProcess, how: str) -> None:
    """By another server process, which is ready, once this returns."""

    def pids() -> list[int]:
        return [entry["pid"] for entry in list(server.log) if entry["event"] == "ready"]

    before = pids()
    if how == "killed":
        os.kill(before[-1], signal.SIGKILL)
    else:
        server.send_signal(signal.SIGUSR2)
    eventually(pids, lambda now: len(now) > len(before), "ready again")
    grpc.channel_ready_future(server.channel).result(SETTLE_SECONDS)


def media(receiver: Receiver, count: int, seconds: float = 10.0) -> list[bytes]:
    """So many packets, or fewer when they don't come."""
    got = []
    while len(got) < count:
        packet = receiver.receive(seconds)
        if packet is None:
            break
        got.append(packet)
    return got


class Forger:
    """Sends UDP from any IPv4 address and port; needs CAP_NET_RAW."""

    def __init__(self, to: Address) -> None:
        self._to = to
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.bytes = 0

    def send(self, source: tuple[str, int], data: bytes) -> None:
        """UDP without checksum (RFC 768); the kernel fills in IP's."""
        there = self._to.ip.packed
        length = 8 + len(data)
        header = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0, 64, socket.IPPROTO_UDP, 0,
            socket.inet_aton(source[0]), there,
        )  # fmt: skip
        udp = struct.pack("!HHHH", source[1], self._to.port, length, 0)
        self._socket.sendto(header + udp + data, (str(self._to.ip), 0))
        self.bytes += len(data)

    def close(self) -> None:
        self._socket.close()
