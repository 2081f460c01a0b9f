"""`rtpfanout top`: its keys, its screen at 80 columns, and what it asks a server for."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import run
from client_support import Script, serving
from rich.console import Console, ConsoleDimensions

from rtpfanout.api import session_pb2 as pb
from rtpfanout.cli.top_keys import Looking, keys_of
from rtpfanout.cli.top_view import FRAME_LINES, plain_cells, screen

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime.now(UTC).isoformat()
ID = "12345678-1234-4234-8234-123456789012"


class Answering(Script):
    def TopSessions(self, request: Any, context: Any) -> Any:  # noqa: N802
        self._note("TopSessions", request, context)
        return FOUND


@pytest.fixture
def script() -> Script:
    return Answering()


@pytest.fixture
def target(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


def figures(**fields: Any) -> pb.SessionFigures:
    values = {
        "session_id": ID, "name": "rover-7/front", "status": "active", "condition": "flowing",
        "condition_since": NOW, "source_address": "192.0.2.1:5000", "labels": {"vehicle": "7"},
        "subscriber_count": 1234, "bitrate_bps": 12_345_678.0, "loss": 0.0123,
        "jitter_seconds": 0.00456, "frame_rate": 29.97,
    }  # fmt: skip
    return pb.SessionFigures(**{k: v for k, v in (values | fields).items() if v is not None})


FOUND = pb.TopSessionsResponse(
    sessions=[
        figures(condition="no_parameter_sets", name="rover-8/" + "x" * 100),
        figures(),
        figures(
            name="", status="refused", condition="", condition_since="", bitrate_bps=None,
            loss=None, jitter_seconds=None, frame_rate=None, subscriber_count=0,
        ),
    ],
    total=3, matched=3, attention=2, bitrate_bps=24_691_356, subscribers=2468,
)  # fmt: skip


def drawn(width: int, looking: Looking, subscribers: Any = None, fault: str = "") -> list[str]:
    size = ConsoleDimensions(width, 24)
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=False)
    console.print(screen(FOUND, subscribers, looking, size, "127.0.0.1:50051", fault))
    output = console.file
    assert isinstance(output, io.StringIO)
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24
    return lines


def test_keys() -> None:
    assert keys_of(b"q/\r\x1b\x7fa\x1b[A\x1b[B\x1bOA\x1b[5~\x1b[6~") == [
        "q", "/", "enter", "escape", "rub", "a", "up", "down", "up", "page up", "page down",
    ]  # fmt: skip
    assert keys_of(b"\x1b[1;5Cx\x1b[15~y\xc3\xa9\x00") == ["x", "y"], "others mean nothing"
    assert keys_of(b"\x1b[") == []


def test_what_keys_do() -> None:
    looking = Looking("state", False, "")
    ids = [str(n) for n in range(10)]
    looking.came(ids, 4)
    assert not looking.press("down")
    assert [looking.press("down") for _ in range(3)] == [False, False, True]
    assert (looking.chosen, looking.first) == (4, 1)
    assert looking.press("page down")
    assert (looking.chosen, looking.first) == (8, 5)
    looking.press("page down")
    assert (looking.chosen, looking.first) == (9, 6)
    looking.press("page up")
    looking.press("page up")
    looking.press("up")
    looking.press("up")
    assert (looking.chosen, looking.first) == (0, 0)
    looking.press("down")
    assert looking.press("enter")
    assert looking.session == "1"
    assert not looking.press("b"), "no order there"
    assert not looking.press("escape")
    assert looking.session == ""
    for key, order, is_reverse in (
        ("b", "bitrate", False),
        ("b", "bitrate", True),
        ("l", "loss", False),
    ):
        assert looking.press(key)
        assert (looking.order_by, looking.is_reverse) == (order, is_reverse)
    assert looking.press("r")
    assert looking.is_reverse
    for key in ("/", "q", "x", "rub", "7"):
        assert not looking.press(key)
    assert (looking.typed, looking.words) == ("q7", "")
    assert looking.press("enter")
    assert (looking.typed, looking.words) == (None, "q7")
    looking.press("/")
    looking.press("8")
    looking.press("escape")
    assert looking.words == "q7"
    assert looking.press("escape")
    assert looking.words == ""
    looking.came([], 4)
    looking.press("down")
    assert not looking.press("enter")
    assert (looking.chosen, looking.first, looking.session) == (0, 0, "")
    looking.press("q")
    assert looking.is_over


def test_the_screen_at_80_columns() -> None:
    looking = Looking("bitrate", False, "rover")
    looking.chosen = 1
    head, titles, first, second, third, about, keys = drawn(80, looking)
    assert head.startswith("127.0.0.1:50051  ")
    assert "  rover: 3 of 3 sessions, 2 need attention  24.7 Mbit/" in head
    assert titles.split() == ["NAME", "STATE", "MBIT/Sv", "LOSS%", "JITTER", "FPS", "SUBS"]
    assert "no par. sets" in first
    assert second.split() == ["rover-7/front", "flowing", "12.35", "1.23", "4.6", "30", "1234"]
    assert third.split()[1:] == ["refused", "-", "-", "-", "-", "0"]
    assert re.fullmatch(
        r"rover-7/front  from 192\.0\.2\.1:5000  flowing for \d+[sm]  vehicle=7", about
    )
    assert keys.endswith("/ find Enter open q")
    wide = drawn(140, looking)
    assert wide[1].split()[-1] == "LABELS"
    assert wide[3].split()[-1] == "vehicle=7"
    looking.typed = "abc"
    assert drawn(80, looking)[-1].startswith("filter: abc_")
    assert drawn(80, looking, fault="no answer from there")[0] == "no answer from there"


def test_the_screen_of_a_session() -> None:
    looking = Looking("state", False, "", session=ID)
    report = {"fraction_lost": 0.25, "round_trip_seconds": 0.0123}
    there = pb.ListSubscribersResponse(
        subscribers=[
            pb.SubscriberResponse(
                subscriber_address=f"192.0.2.{n}:6000", state="sending", subscriber_class="pilot",
                packets_sent=12345678, since=NOW, report=report if n == 1 else None,
            )
            for n in range(1, 50)
        ]
    )  # fmt: skip
    lines = drawn(80, looking, there)
    assert len(lines) == 24 - FRAME_LINES + 4
    cells = lines[2].split()
    assert cells[0] == "192.0.2.1:6000"
    assert cells[-6:-1] == ["-", "25.0", "12.3", "12345678", "0"]
    assert lines[3].split()[-6:-1] == ["-", "-", "-", "12345678", "0"]
    assert lines[-1].startswith("Esc back")
    assert "no subscriber" in drawn(80, looking, pb.ListSubscribersResponse())[2]


def test_once(script: Script, target: str) -> None:
    done = run(
        "top", "rover", "front", "--label", "a=b", "--sort", "loss", "-r", "--limit", "7",
        "-s", target,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert script.requests[0] == pb.TopSessionsRequest(
        words="rover front", label_selector="a=b", order_by="loss", reverse=True, limit=7
    )
    head, _first, second, third = done.stdout.splitlines()
    assert head.split()[:2] == ["NAME", "STATE"]
    assert second.split() == [
        "rover-7/front", "flowing", "12.35", "1.23", "4.6", "30", "1234", "192.0.2.1:5000",
        "vehicle=7",
    ]  # fmt: skip
    assert third.startswith(ID)
    shown = json.loads(run("top", "-o", "json", "-s", target).stdout)
    assert (shown["total"], shown["attention"]) == (3, 2)
    assert shown["sessions"][2]["bitrate_bps"] is None
    assert shown["sessions"][1]["labels"] == {"vehicle": "7"}


def test_a_latch_that_waits_is_from_anybody() -> None:
    waits = figures(source_address="")
    assert plain_cells(waits)[-2] == "any"
    found = pb.TopSessionsResponse(sessions=[waits], total=1, matched=1)
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=False)
    console.print(
        screen(found, None, Looking("state", False, ""), ConsoleDimensions(80, 24), "a:1", "")
    )
    assert isinstance(console.file, io.StringIO)
    assert "from any  " in console.file.getvalue()
