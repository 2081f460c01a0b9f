"""How a session's copies are marked: told by calls, kept over a restart, changed as they flow."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest
from supervisor_scene import kill
from support import ServerProcess, address_of, eventually, rtp_packet, udp_socket

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    StartServer = Callable[..., ServerProcess]

pytestmark = pytest.mark.usefixtures("runtime_directory")

EF, AF41 = 46, 34


def test_marks_are_as_the_session_says(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(store__path=str(tmp_path / "store.db"))
    with udp_socket() as camera, udp_socket() as viewer:
        viewer.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        camera.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, AF41 << 2 | 1)
        request: dict[str, Any] = {"source_address": address_of(camera), "ssrc": 7}
        session = server.stub.CreateSession(
            pb.CreateSessionRequest(**request, media_type="video", dscp=str(EF))
        )
        assert session.dscp == str(EF)
        server.add(session.session_id, address_of(viewer))
        sent = 0

        def mark() -> int:
            nonlocal sent
            sent += 1
            camera.sendto(rtp_packet(7, sent), server.ingest_target)
            data, control, _flags, _source = viewer.recvmsg(2048, 256)
            if data == rtp_packet(7, sent - 1):  # in hand when its server was killed: comes twice
                data, control, _flags, _source = viewer.recvmsg(2048, 256)
            assert data == rtp_packet(7, sent)
            return int(control[0][2][0])

        assert mark() == EF << 2
        kill(server)
        assert mark() == EF << 2
        for dscp, tos in (("copy", AF41 << 2), ("0", 0), ("63", 63 << 2), ("", 0)):
            answer = eventually(
                lambda dscp=dscp: server.stub.UpdateSession(  # type: ignore[misc]
                    pb.UpdateSessionRequest(session_id=session.session_id, dscp=dscp),
                    wait_for_ready=True,
                ),
                bool,
                "updated",
            )
            assert answer.dscp == dscp
            assert mark() == tos
