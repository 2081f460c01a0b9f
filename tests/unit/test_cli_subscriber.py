"""`rtpfanout subscriber` against a server of the first version, which knows no batches."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cli_support import on_terminal, run
from client_support import Script, serving
from google.protobuf import empty_pb2

from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.cli.output import rich_table
from rtpfanout.cli.subscriber import NARROW_COLUMNS, narrow_row

if TYPE_CHECKING:
    from collections.abc import Iterator


class FirstVersion(session_pb2_grpc.SessionServiceServicer):
    """Knows subscribers 1 by 1; what it lacks is UNIMPLEMENTED by gRPC's own doing."""

    def __init__(self) -> None:
        self.subscribers: list[str] = []

    def AddSubscriber(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802, ARG002
        self.subscribers.append(request.subscriber_address)
        return empty_pb2.Empty()

    def RemoveSubscriber(self, request: Any, context: Any) -> empty_pb2.Empty:  # noqa: N802
        if request.subscriber_address not in self.subscribers:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such subscriber")
        self.subscribers.remove(request.subscriber_address)
        return empty_pb2.Empty()


@pytest.fixture
def old() -> Iterator[tuple[FirstVersion, str]]:
    """The service and its address."""
    service = FirstVersion()
    server = grpc.server(ThreadPoolExecutor(2))
    session_pb2_grpc.add_SessionServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_several_are_added_and_removed_one_by_one(old: tuple[FirstVersion, str]) -> None:
    service, target = old
    added = run("subscriber", "add", "id", "a", "b", "c", "-s", target)
    assert (added.returncode, added.stdout, added.stderr) == (0, "added a\nadded b\nadded c\n", "")
    assert service.subscribers == ["a", "b", "c"]
    removed = run("subscriber", "rm", "id", "a", "x", "c", "-s", target)
    assert removed.returncode == 3
    assert removed.stdout == "removed a\n"
    assert removed.stderr == "error: no such subscriber\n"
    assert service.subscribers == ["b", "c"]


def test_a_list_needs_a_newer_server_and_says_so(old: tuple[FirstVersion, str]) -> None:
    done = run("subscriber", "list", "id", "-s", old[1])
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the server at {old[1]} is older")


def test_a_list_fits_80_columns() -> None:
    """On a terminal; elsewhere nothing is left out."""
    subscriber = session_pb2.SubscriberResponse(
        subscriber_address="203.0.113.201:50000", packets_sent=10**10, send_failures=100_000,
        since="2001-01-01T00:00:00Z", subscriber_class="recorder", state="sending",
        expires_at="2001-01-01T00:00:00.000000Z", rtcp="next_port", reach="silent_receiver",
    )  # fmt: skip
    subscriber.report.fraction_lost = 0.123
    cells = [*map(len, map(str, narrow_row(subscriber)))]
    cells = [max(each) for each in zip(cells, map(len, NARROW_COLUMNS), strict=True)]
    assert sum(cells) + 2 * len(cells) <= 80
    with serving(Script()) as target:
        for width, has_class in ((140, True), (80, False)):
            shown = on_terminal("subscriber", "list", "id", "-s", target, columns=width)
            assert ("CLASS" in shown, "REACH" in shown) == (has_class, True)
        assert "CLASS" in run("subscriber", "list", "id", "-s", target).stdout


def test_a_loss_is_red_where_there_is_one() -> None:
    column = rich_table(["LOST"], [["-"], ["0 %"], ["1.5 %"], [0], [3]]).columns[0]
    styles = [str(cell.style) for cell in column.cells if hasattr(cell, "style")]
    assert styles == ["", "green", "bold red", "green", "bold red"]


def test_where_a_description_cannot_go_nobody_is_added() -> None:
    script = Script()
    with serving(script) as target:
        done = run("subscriber", "add", "id", "a", "--sdp", "/no/such/a.sdp", "-s", target)
        assert done.returncode == 2
        assert "--sdp: /no/such is no directory" in done.stderr
        assert script.names == []
        done = run("subscriber", "add", "id", "a", "--sdp", "-", "-s", target)
        assert (done.returncode, done.stdout) == (0, "added a\nv=0\n")
