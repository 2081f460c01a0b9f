"""The page's table and its words: which sessions, in which order, and who may look."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from managers import SECOND, Clock
from starlette.requests import Request

from rtpfanout.auth import Access, Identity, Role
from rtpfanout.errors import (
    InvalidArgumentError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from rtpfanout.http import Kitchen
from rtpfanout.model import Address, Condition, Rtcp, SessionStatus, SubscriberClass
from rtpfanout.page import about
from rtpfanout.page.board import ATTENTION, SORTS, STATES, Board, Query, state_of
from rtpfanout.page.site import ASSETS
from rtpfanout.page.stream import FIRST_EVENTS, Streams
from rtpfanout.page.viewers import Viewers, may
from rtpfanout.sessions import (
    EventKind,
    EventLog,
    Figures,
    Glance,
    SessionManager,
    SubscriberState,
    SubscriberView,
    Wanted,
)
from rtpfanout.sessions.feedback import ReceiverReport

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BYTES = 150_000


def glance(name: str, **changed: Any) -> Glance:
    values: dict[str, Any] = {
        "session_id": f"id-of-{name}",
        "handle": 1,
        "name": name,
        "labels": {},
        "media_type": "video",
        "source": "192.0.2.1:5000",
        "status": SessionStatus.ACTIVE,
        "condition": Condition.FLOWING,
        "condition_since_ms": 0,
        "subscribers": 0,
        "figures": Figures(1e6, 30.0, 0.001, 100, 0),
        "lost_lately": 0.0,
    }
    return Glance(**(values | changed))


class FakeOverview:
    def __init__(self, glances: list[Glance]) -> None:
        self.all = glances
        self.reads = 0
        self.history = SimpleNamespace(seen=list)

    def glances(self) -> Iterator[Glance]:
        self.reads += 1
        return iter(self.all)


def rows(glances: list[Glance], scope: Any = (), **parameters: str) -> dict[str, Any]:
    async def ask() -> bytes:
        board = Board(FakeOverview(glances), Kitchen())  # type: ignore[arg-type]
        return await board.answer(Query.read(parameters), scope, {"fact": 1})

    found: dict[str, Any] = json.loads(asyncio.run(ask()))
    return found


def names(answer: dict[str, Any]) -> list[str]:
    return [row["name"] for row in answer["rows"]]


SOME = [
    glance("b", subscribers=3, labels={"site": "north"}, lost_lately=0.5),
    glance("a", condition=Condition.SILENT, lost_lately=None),
    glance("d", figures=Figures(5e6, None, None, 1, 0), labels={"site": "south"}),
    glance("c", condition=Condition.NEVER_FED, source="192.0.2.9:7000"),
    glance("f", status=SessionStatus.PAUSED),
    glance("e", status=SessionStatus.REFUSED, condition=None, figures=None, lost_lately=None),
    glance("", session_id="0f", condition=Condition.FROZEN),
]


def test_trouble_comes_first_and_then_what_has_a_name() -> None:
    answer = rows(SOME)
    assert names(answer) == ["e", "", "a", "c", "b", "d", "f"]
    assert answer["attention"] == 3
    assert answer["states"] == {
        "flowing": 2, "silent": 1, "never_fed": 1, "paused": 1, "refused": 1, "frozen": 1,
    }  # fmt: skip
    assert (answer["sessions"], answer["matched"], answer["fact"]) == (7, 7, 1)


@pytest.mark.parametrize(
    ("sort", "first"), [("bitrate", "d"), ("loss", "b"), ("subscribers", "b"), ("name", "")]
)
def test_it_can_be_sorted_by_what_has_numbers(sort: str, first: str) -> None:
    assert names(rows(SOME, sort=sort, descending="1"))[0] == first


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("descending", ["0", "1"])
def test_every_session_has_a_place_in_every_order(sort: str, descending: str) -> None:
    assert sorted(names(rows(SOME, sort=sort, descending=descending))) == sorted(
        each.name for each in SOME
    )


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"q": "SITE=north"}, ["b"]),
        ({"q": "192.0.2.9"}, ["c"]),
        ({"q": "site= south"}, ["d"]),
        ({"q": "0f"}, [""]),
        ({"q": "nothing"}, []),
        ({"state": "attention"}, ["e", "", "a"]),
        ({"state": "flowing", "q": "site"}, ["b", "d"]),
        ({"state": "paused"}, ["f"]),
        ({"offset": "5", "limit": "1"}, ["d"]),
        ({"offset": "7"}, []),
        ({"limit": "0"}, []),
    ],
)
def test_sessions_are_found_by_what_is_told_of_them(
    parameters: dict[str, str], found: list[str]
) -> None:
    answer = rows(SOME, **parameters)
    assert names(answer) == found
    assert answer["sessions"] == len(SOME), "the counts are of all"


def test_who_is_confined_sees_and_counts_his_own() -> None:
    answer = rows(SOME, scope=(("site", "north"),))
    assert names(answer) == ["b"]
    assert (answer["sessions"], answer["subscribers"], answer["attention"]) == (1, 3, 0)


@pytest.mark.parametrize(
    "parameters",
    [
        {"sort": "colour"},
        {"state": "fine"},
        {"offset": "-1"},
        {"limit": "201"},
        {"limit": "٣"},
        {"offset": "99999999999"},
        {"q": "x" * 129},
    ],
)
def test_a_wrong_parameter_is_named(parameters: dict[str, str]) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        Query.read(parameters)
    assert error.value.field == next(iter(parameters))


def test_all_who_look_within_a_second_cost_one_reading() -> None:
    overview = FakeOverview(SOME)

    async def look() -> None:
        board = Board(overview, Kitchen())  # type: ignore[arg-type]
        await asyncio.gather(*(board.answer(Query(), (), {}) for _ in range(20)))

    asyncio.run(look())
    assert overview.reads == 1


def test_others_work_between_the_histories_of_two_rows() -> None:
    pieces: list[int] = []

    class Counting(Kitchen):
        async def make(self, some: Any, _wanted: Any) -> Any:
            pieces.append(len(list(some)))

    async def look() -> None:
        board = Board(FakeOverview(SOME), Counting())  # type: ignore[arg-type]
        for has_history in (False, True):
            await board.answer(Query(has_history=has_history), (), {})

    asyncio.run(look())
    assert pieces[-1] >= pieces[1] + len(SOME)


def test_of_a_long_log_only_the_end_is_read_for_who_begins() -> None:
    log = EventLog(SimpleNamespace(now=lambda: datetime.now(UTC)))  # type: ignore[arg-type]
    for _ in range(5 * FIRST_EVENTS):
        log.tell(EventKind.PAUSED)
    looked = []

    class Counting(Wanted):
        def takes(self, kind: EventKind) -> bool:
            looked.append(kind)
            return super().takes(kind)

    events, after = Streams(log)._last(Counting())
    assert [event.sequence for event in events] == list(range(after - FIRST_EVENTS + 1, after + 1))
    assert len(looked) == FIRST_EVENTS


def test_every_state_there_is_has_a_place() -> None:
    for condition in Condition:
        assert state_of(glance("x", condition=condition)) in STATES
    assert set(ATTENTION) <= set(STATES)
    text = (ASSETS / "states.js").read_text()
    for state in [*STATES[2:], *SubscriberState]:
        assert f"  {state}: {{ kind:" in text, "the page has no word for it"


def test_sessions_are_seen_at_a_glance(manager: SessionManager, clock: Clock) -> None:
    view = manager.create("192.0.2.1:5000", 7, "video", name="one", labels={"a": "b"})
    manager.add_subscriber("one", "127.0.0.1:6000")
    manager.create("192.0.2.1:5001", 8, "audio")
    clock.now += SECOND
    manager.overview.history.look()
    one, two = manager.overview.glances()
    assert (one.session_id, one.name, one.labels) == (view.session_id, "one", {"a": "b"})
    assert (one.subscribers, one.condition, one.source) == (
        1, Condition.NEVER_FED, "192.0.2.1:5000",
    )  # fmt: skip
    assert (two.name, two.media_type, two.subscribers) == ("", "audio", 0)
    assert (one.figures, one.lost_lately) == (Figures(0.0, 0.0, None, 0, 0), None)
    manager.delete("one")
    assert [each.name for each in manager.overview.glances()] == [""]


def test_a_new_session_is_told_without_any_figure(manager: SessionManager) -> None:
    manager.create("192.0.2.1:5000", 7, "video", name="one", labels={"a": "b"})
    told = about.session(manager, "one", has_history=True)
    assert told["session"]["name"] == "one"
    assert told["history"]["age_ms"] == []
    assert told["latency"] == {"bounds_seconds": [], "first": [], "last": []}
    json.dumps(told)


def subscriber(**changed: Any) -> SubscriberView:
    values: dict[str, Any] = {
        "address": Address.parse("192.0.2.7:6000"),
        "since": None,
        "packets_sent": 5,
        "send_failures": 0,
        "subscriber_class": SubscriberClass.MONITOR,
    }
    return SubscriberView(**(values | changed))


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"state": SubscriberState.REFUSED, "refused_reason": "no such network"}, "no such"),
        ({"state": SubscriberState.SHED}, "overloaded"),
        ({"state": SubscriberState.AWAITING_CONSENT}, "consents"),
        ({"send_failures": 1}, "kernel"),
        ({"rtcp": Rtcp.MUX}, "no receiver report"),
        ({"rtcp": Rtcp.MUX, "report": ReceiverReport(0.2, 5, 1.0)}, "on the way"),
    ],
)
def test_a_subscriber_that_lacks_something_has_a_hint(changed: Any, word: str) -> None:
    assert word in about.hint(subscriber(**changed))


def test_who_gets_everything_has_none() -> None:
    assert about.hint(subscriber()) == ""
    report = ReceiverReport(0.0, 0, 1.0)
    assert about.hint(subscriber(rtcp=Rtcp.MUX, report=report)) == ""


# ---- who may look


class FakeAccess(Access):
    """Takes the token "good" of a confined viewer."""

    def __init__(self, *, is_open: bool) -> None:
        super().__init__()
        self._open = is_open

    @property
    def is_open(self) -> bool:
        return self._open

    def identify(self, caller: Any) -> Identity:
        if caller.authorization != "Bearer good":
            raise UnauthenticatedError("a bearer token is needed")
        return Identity("x", Role.VIEWER, (("site", "north"),))


def request(peer: str, host: str, authorization: str = "") -> Any:
    headers = [(b"host", f"{host}:9090".encode())]
    headers += [(b"authorization", authorization.encode())] if authorization else []
    where = {"type": "http", "scheme": "http", "path": "/", "server": ("127.0.0.1", 9090)}
    return Request({**where, "headers": headers, "client": (peer, 40000)})


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("::ffff:127.0.0.1", "localhost"),
        ("127.0.0.1", socket.gethostname()),
    ],
)
def test_a_browser_on_this_host_may_look_at_everything(peer: str, host: str) -> None:
    viewers = Viewers(FakeAccess(is_open=True), is_local=False, is_insecure=False)
    assert viewers.admit(request(peer, host), "ListKnocks").scope == ()


@pytest.mark.parametrize(
    ("peer", "host", "word"),
    [
        ("192.0.2.9", "192.0.2.1", "ssh -L 9090"),
        ("127.0.0.1", "attacker.example", "attacker.example"),
        ("", "127.0.0.1", "ssh"),
    ],
)
def test_others_may_not_and_are_told_what_to_do(peer: str, host: str, word: str) -> None:
    viewers = Viewers(FakeAccess(is_open=True), is_local=False, is_insecure=False)
    with pytest.raises(PermissionDeniedError, match=word):
        viewers.admit(request(peer, host), "ListSessions")


@pytest.mark.parametrize(
    "host",
    [
        "attacker.example",
        "x{}.attacker.example",  # browsers take such names, and what checks headers does not
        'x".attacker.example',
        "127.0.0.1.attacker.example",
        "",
    ],
)
def test_at_a_loopback_address_a_foreign_name_is_refused_too(host: str) -> None:
    viewers = Viewers(FakeAccess(is_open=True), is_local=True, is_insecure=False)
    with pytest.raises(PermissionDeniedError, match="localhost"):
        viewers.admit(request("127.0.0.1", host), "ListSessions")


def test_where_the_api_asks_for_nothing_the_page_does_not_either() -> None:
    viewers = Viewers(FakeAccess(is_open=True), is_local=False, is_insecure=True)
    assert viewers.admit(request("192.0.2.9", "any.example"), "ListSessions")


def test_where_there_are_keys_everybody_needs_a_token() -> None:
    viewers = Viewers(FakeAccess(is_open=False), is_local=False, is_insecure=False)
    with pytest.raises(UnauthenticatedError):
        viewers.admit(request("127.0.0.1", "localhost"), "ListSessions")
    identity = viewers.admit(request("192.0.2.9", "x.example", "Bearer good"), "ListSessions")
    assert identity.scope == (("site", "north"),)
    assert not may(identity, "ListKnocks")
    with pytest.raises(PermissionDeniedError):
        viewers.admit(request("192.0.2.9", "x.example", "Bearer good"), "ListKnocks")


# ---- what is shipped


def test_the_page_is_small_and_needs_nothing_from_elsewhere() -> None:
    files = [path for path in ASSETS.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    for path in files:
        if path.name.startswith("uPlot"):
            continue
        text = path.read_text().replace("http://www.w3.org/", "")
        assert not re.search(r"(https?:|['\"(=])//\w", text), path


def test_no_script_and_no_style_stands_in_the_page_itself() -> None:
    text = (ASSETS / "index.html").read_text()
    assert "<style" not in text
    assert " style=" not in text
    assert text.count("<script ") == text.count("<script") == text.count("></script>")
    for path in ASSETS.glob("*.js"):
        if not path.name.startswith("uPlot"):
            words = path.read_text()
            for word in ("innerHTML", "insertAdjacentHTML", "document.write", "eval("):
                assert word not in words, f"{path.name}: {word}"


def test_uplot_comes_with_its_licence() -> None:
    assert "MIT" in (ASSETS / "uPlot.LICENSE").read_text()
    head = (ASSETS / "uPlot.iife.min.js").read_text()[:100]
    assert "(v1.6.32)" in head
