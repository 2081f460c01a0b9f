"""A server with an RTSP door, and sessions that are fed."""

from __future__ import annotations

import socket
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from players import free_pair
from support import ServerProcess, address_of, eventually, receive, rtp_packet, udp_socket

from rtpfanout.api import session_pb2 as pb
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

DOOR = {"rtsp_bind_address": "127.0.0.1:0", "store__path": ":memory:"}
PCMU = 0
"""A payload type that says all that a player needs (RFC 3551)."""


class Scene:
    """`door` is where it is."""

    def __init__(self, server: ServerProcess, metadata: Any = None) -> None:
        self.server = server
        self.door = Address.parse(server.logged("ready")["rtsp_bind_address"])
        self._metadata = metadata

    def subscribers(self, session_id: str) -> list[pb.SubscriberResponse]:
        """Of a session, as they are now."""
        request = pb.ListSubscribersRequest(session_id=session_id)
        return list(self.server.stub.ListSubscribers(request, metadata=self._metadata).subscribers)

    def await_subscribers(self, session_id: str, number: int) -> list[pb.SubscriberResponse]:
        """As soon as there are so many."""
        return eventually(
            lambda: self.subscribers(session_id), lambda found: len(found) == number, "subscribers"
        )

    def value(self, name: str) -> float:
        """Of a metric."""
        return self.server.metrics()[name]


class Source:
    """Feeds a session of sound, of which every packet is a frame."""

    def __init__(
        self, scene: Scene, name: str, ssrc: int, host: str = "127.0.0.1", **terms: Any
    ) -> None:
        self.sock = udp_socket(host)
        self.ssrc = ssrc
        self._server = scene.server
        self._metadata = scene._metadata
        self._sequence = 0
        request = pb.CreateSessionRequest(
            source_address=address_of(self.sock), ssrc=ssrc, media_type="audio", name=name, **terms
        )
        stub = scene.server.stub
        self.session_id = stub.CreateSession(request, metadata=scene._metadata).session_id

    def send(self, number: int = 1, size: int = 160) -> list[bytes]:
        """So many packets; what was sent."""
        sent = []
        for _ in range(number):
            self._sequence += 1
            packet = rtp_packet(
                self.ssrc,
                self._sequence & 0xFFFF,
                bytes([self._sequence & 0xFF]) * size,
                payload_type=PCMU,
                timestamp=160 * self._sequence,
            )
            self.sock.sendto(packet, self._server.ingest_target)
            sent.append(packet)
        return sent

    def feed(self) -> None:
        """Three packets, of which none is on its way any more."""
        self.send(3)
        request = pb.GetSessionStatsRequest(session_id=self.session_id)
        eventually(
            lambda: self._server.stub.GetSessionStats(request, metadata=self._metadata),
            lambda stats: stats.packets_received >= 3,
            "it is fed",
        )
        self._server.settled()

    def sender_report(self) -> None:
        """Of now."""
        words = (0x80C80006).to_bytes(4) + self.ssrc.to_bytes(4) + bytes(8)
        words += (160 * self._sequence).to_bytes(4) + bytes(8)
        self.sock.sendto(words, self._server.ingest_target)


class Ports:
    """Two of a client's, RTP and RTCP."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        number = free_pair()
        self.transport = f"RTP/AVP;unicast;client_port={number}-{number + 1}"
        self.address = f"{host}:{number}"
        self.rtp, self.rtcp = (bound(host, number + more) for more in (0, 1))

    def close(self) -> None:
        self.rtp.close()
        self.rtcp.close()

    def take(self, number: int = 1) -> list[bytes]:
        """Packets."""
        return receive(self.rtp, number)


def bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, port))
    sock.settimeout(30)
    return sock


@contextmanager
def scene_of(**settings: object) -> Iterator[Scene]:
    """Of a server of its own."""
    server = ServerProcess(**(DOOR | settings))
    try:
        yield Scene(server)
        server.check_identities()
    finally:
        server.stop()


@contextmanager
def ports(host: str = "127.0.0.1") -> Iterator[Ports]:
    """Free ones."""
    with closing(Ports(host)) as found:
        yield found
