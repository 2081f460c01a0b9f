"""A watch over gRPC that a test reads at its own pace."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import grpc
from support import ServerProcess, eventually

from rtpfanout.api import session_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable


class Watch:
    """A watcher that keeps what it was told."""

    def __init__(self, server: ServerProcess, after: int = 0, selector: str = "") -> None:
        self.events: list[pb.SessionEvent] = []
        self.code: grpc.StatusCode | None = None
        self._call = server.stub.WatchSessions(
            pb.WatchSessionsRequest(after_revision=after, label_selector=selector)
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for event in self._call:
                self.events.append(event)
        except grpc.RpcError as error:
            self.code = error.code()
        else:
            self.code = grpc.StatusCode.OK

    def until(self, is_enough: Callable[[list[pb.SessionEvent]], bool]) -> list[pb.SessionEvent]:
        return eventually(lambda: list(self.events), is_enough, "events")

    def cancel(self) -> None:
        self._call.cancel()
        self._thread.join(30)

    def ended(self) -> grpc.StatusCode | None:
        self._thread.join(30)
        return self.code
