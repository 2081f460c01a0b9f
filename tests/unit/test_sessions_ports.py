"""Sessions at UDP ports of their own: given, changed, taken up again, refused, freed."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from managers import Clock, Gate, engine_of, manager_of
from ports_support import free_range, taken

from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
    UnavailableError,
)
from rtpfanout.ingest_ports import IngestPorts
from rtpfanout.kept import KeptSockets
from rtpfanout.portrange import PortRange
from rtpfanout.store import MEMORY, Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rtpfanout.sessions import SessionManager

SOURCE = "192.0.2.1:5000"


class Place:
    """A server with three ports for sessions; `kept` is what its supervisor has."""

    def __init__(self, manager: SessionManager, kept: KeptSockets, ports: PortRange) -> None:
        self.manager = manager
        self.kept = kept
        self.numbers = list(ports.numbers())

    def create(self, port: str = "auto", ssrc: int = 1, **more: Any) -> Any:
        return self.manager.create(SOURCE, ssrc, "video", ingest_port=port, **more)

    def port(self, session_id: str) -> int:
        return int(self.manager.get(session_id).terms.ingest_port)


@contextmanager
def started(
    ports: PortRange, path: str = MEMORY, kept: KeptSockets | None = None, store: Any = None
) -> Iterator[Place]:
    has = kept or KeptSockets()
    with store or Store(path) as opened, engine_of() as engine:
        numbers = IngestPorts(engine, has, ports, 64)
        manager = manager_of(engine, Clock(), opened, numbers)
        manager.restore()
        yield Place(manager, has, ports)
        for handle in manager._state.by_handle:  # as the end of a process would
            engine.remove_session(handle)
    if kept is None:
        has.give_up(has.names())


@pytest.fixture
def ports() -> PortRange:
    return free_range(3)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.db")


def test_sessions_with_a_port_may_have_the_same_source(ports: PortRange) -> None:
    with started(ports) as place:
        first = place.create()
        second = place.create(str(place.numbers[2]))
        main = place.create("")  # at the main port
        assert first.terms.ingest_port == place.numbers[0]
        assert second.terms.ingest_port == place.numbers[2]
        assert main.terms.ingest_port == 0
        with pytest.raises(AlreadyExistsError, match="a session with SSRC"):
            place.create("")
        place.create("auto", name="the-last")
        with pytest.raises(LimitError, match="all 3 ports"):
            place.create(name="one-more")
        place.manager.delete(first.session_id)
        again = place.create(name="one-more")  # neither its name nor a port was taken
        assert again.terms.ingest_port == place.numbers[0]


@pytest.mark.parametrize("text", ["x", "0", "65536", "-1", "1.5", "AUTO", " 7", "\u0667", "999999"])
def test_what_is_no_port(ports: PortRange, text: str) -> None:
    with started(ports) as place:
        with pytest.raises(InvalidArgumentError, match="is no port") as refused:
            place.create(text)
        assert refused.value.field == "ingest_port"


@pytest.mark.parametrize("text", ["64", "-1", "01", "Copy", "ef", "1.0", " 1"])
def test_what_is_no_dscp(ports: PortRange, text: str) -> None:
    with started(ports) as place:
        with pytest.raises(InvalidArgumentError, match="is no DSCP") as refused:
            place.create("", dscp=text)
        assert refused.value.field == "dscp"


@pytest.mark.parametrize("text", ["", "copy", "0", "63"])
def test_a_dscp_is_kept(ports: PortRange, path: str, text: str) -> None:
    with started(ports, path) as place:
        session = place.create("", dscp=text)
        assert session.terms.dscp == text
        place.manager.update(session.session_id, dscp="46")
    with started(ports, path) as place:
        assert place.manager.get(session.session_id).terms.dscp == "46"
        place.manager.update(session.session_id, dscp=text)
    with started(ports, path) as place:
        assert place.manager.get(session.session_id).terms.dscp == text


def test_nothing_is_left_of_one_that_the_store_refuses(ports: PortRange) -> None:
    gate = Gate()
    with started(ports, store=gate) as place:
        gate.refuses = True
        with pytest.raises(UnavailableError):
            place.create(name="a")
        assert not place.kept.names()
        gate.refuses = False
        first = place.create(name="a")
        gate.refuses = True
        with pytest.raises(UnavailableError):
            place.manager.update(first.session_id, ingest_port=str(place.numbers[2]))
        assert place.port(first.session_id) == first.terms.ingest_port
        assert place.kept.names() == {str(first.terms.ingest_port)}
        with pytest.raises(UnavailableError):
            place.manager.delete(first.session_id)
        assert place.kept.names() == {str(first.terms.ingest_port)}
        gate.refuses = False


def test_from_the_main_port_and_back(ports: PortRange) -> None:
    with started(ports) as place:
        session_id = place.create("", dscp="copy").session_id
        update = place.manager.update
        first, second, third = map(str, place.numbers)
        for asked, number in (
            ("auto", first),
            ("auto", first),  # it has one
            (first, first),
            (third, third),
            ("", "0"),
            ("auto", second),
        ):
            update(session_id, ingest_port=asked)
            assert place.port(session_id) == int(number)
            assert place.kept.names() == ({number} - {"0"})
        other = place.create(third).session_id
        with pytest.raises(AlreadyExistsError, match="another session has port"):
            update(session_id, ingest_port=third)
        assert place.port(session_id) == int(second)
        update(session_id, source_address="192.0.2.2:1")  # stays there
        assert place.port(session_id) == int(second)
        update(session_id, source_address=SOURCE)
        place.create("", ssrc=1)
        with pytest.raises(AlreadyExistsError, match="a session with SSRC"):
            update(session_id, ingest_port="")
        assert place.port(session_id) == int(second)
        assert place.port(other) == int(third)


def test_ensure_finds_the_one_that_is_there(ports: PortRange) -> None:
    with started(ports) as place:
        first = place.create(name="cam", if_exists="return")
        for asked in ("auto", str(first.terms.ingest_port)):
            again = place.create(asked, name="cam", if_exists="return")
            assert again.session_id == first.session_id
        with pytest.raises(AlreadyExistsError) as differs:
            place.create(str(place.numbers[2]), name="cam", if_exists="return")
        assert differs.value.field == "ingest_port"
        with pytest.raises(AlreadyExistsError) as differs:
            place.create("", name="cam", if_exists="return")
        assert differs.value.field == "ingest_port"
        assert place.kept.names() == {str(first.terms.ingest_port)}
        nameless = place.create(str(place.numbers[2]), if_exists="return")
        again = place.create(str(place.numbers[2]), if_exists="return")
        assert again.session_id == nameless.session_id


def test_a_call_that_is_repeated_opens_nothing(ports: PortRange) -> None:
    with started(ports) as place:
        first = place.create(request_id="one")
        again = place.create(request_id="one")
        assert again == first
        assert place.kept.names() == {str(first.terms.ingest_port)}


def test_a_restart_takes_up_what_is_kept(ports: PortRange, path: str) -> None:
    kept = KeptSockets()
    with started(ports, path, kept) as place:
        first, second = place.create(), place.create()
        inodes = [kept.find(name) for name in sorted(kept.names())]
    # Created or deleted by a process that died before it had told of both.
    kept.add("77", [])
    with started(ports, path, kept) as place:
        assert place.manager.refused == (0, 0)
        assert place.port(first.session_id) == first.terms.ingest_port
        assert place.port(second.session_id) == second.terms.ingest_port
        assert [kept.find(name) for name in sorted(kept.names())] == inodes
        with pytest.raises(AlreadyExistsError):
            place.create(str(first.terms.ingest_port))
        assert place.create().terms.ingest_port == place.numbers[2]
    kept.give_up(kept.names())


def test_a_port_that_somebody_has_taken_meanwhile(ports: PortRange, path: str) -> None:
    with started(ports, path) as place:
        view = place.create(name="cam")
    session_id, number = view.session_id, view.terms.ingest_port
    with taken(number + 1), started(ports, path) as place:
        assert place.manager.refused == (1, 0)
        refused = place.manager.get(session_id)
        assert f"port {number + 1} can't be opened" in refused.refused_reason
        assert refused.terms.ingest_port == number
        others = [place.create().terms.ingest_port for _ in range(2)]
        assert number not in others  # it is held for it
        with pytest.raises(AlreadyExistsError):
            place.create(str(number))
        looks = [place.manager.housekeeping.serve_again() for _ in range(20)]
        assert len(looks) == 20
        assert place.manager.refused == (1, 0)
        place.manager.delete(session_id)
        with pytest.raises(NotFoundError):
            place.manager.get(session_id)
        with pytest.raises(UnavailableError):
            place.create(str(number))  # the session has gone, the other program not


def test_it_is_served_when_the_port_is_free_again(ports: PortRange, path: str) -> None:
    with started(ports, path) as place:
        view = place.create()
        place.manager.add_subscriber(view.session_id, "127.0.0.1:6000")
    number = view.terms.ingest_port
    blocker = taken(number)
    with started(ports, path) as place:
        assert place.manager.refused == (1, 0)
        blocker.close()
        for _ in range(10):
            place.manager.housekeeping.serve_again()
        assert place.manager.refused == (0, 0)
        assert place.port(view.session_id) == number
        assert place.kept.names() == {str(number)}
        assert len(place.manager.list_subscribers(view.session_id)[0]) == 1


@pytest.mark.parametrize("others", ["", "1-2"])
def test_another_range_refuses_it_until_it_is_in_again(
    ports: PortRange, path: str, others: str
) -> None:
    with started(ports, path) as place:
        view = place.create()
    with started(PortRange.parse(others), path) as place:
        reason = place.manager.get(view.session_id).refused_reason
        assert ("is outside ingest_ports = 1-2" if others else "is not configured") in reason
    with started(ports, path) as place:
        assert place.manager.refused == (0, 0)
        assert place.port(view.session_id) == view.terms.ingest_port
