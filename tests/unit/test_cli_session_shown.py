"""What commands say of sessions, and of mistakes about them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from cli_support import on_terminal, run, run_json
from client_support import Script, failure, serving

from rtpfanout.api import session_pb2
from rtpfanout.cli.output import OutputFormat
from rtpfanout.cli.session import NARROW_COLUMNS, narrow_row
from rtpfanout.cli.session_shown import print_session, session_cells

if TYPE_CHECKING:
    from collections.abc import Iterator

NOT_THERE = failure(grpc.StatusCode.NOT_FOUND, "no session")


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def target(script: Script) -> Iterator[str]:
    with serving(script) as address:
        yield address


class Answering(Script):
    """Of several deletions the second fails."""

    def DeleteSession(self, request: Any, context: Any) -> Any:  # noqa: N802
        if request.session_id.startswith("nope"):
            self.failures = [NOT_THERE]
        return super().DeleteSession(request, context)  # type: ignore[misc]


def test_rm_goes_on_behind_one_that_is_not_there() -> None:
    script = Answering()
    with serving(script) as target:
        done = run("session", "rm", "x", "nope", "y", "nope/2", "-s", target)
        assert (done.returncode, done.stdout) == (3, "deleted x\ndeleted y\n")
        assert done.stderr == "error: session_id: no session nope, nope/2\n"
        assert [r.session_id for r in script.requests] == ["x", "nope", "y", "nope/2"]
        done = run("session", "rm", "x", "nope", "-o", "json", "-s", target)
        assert (done.returncode, done.stdout.split()) == (
            3,
            ["{", '"deleted":', "[", '"x"', "]", "}"],
        )


def test_an_empty_name_is_a_mistake_at_creation_alone(script: Script, target: str) -> None:
    done = run("session", "create", "any", "--name", "", "-s", target)
    assert (done.returncode, script.requests) == (2, [])
    assert "--name is empty" in done.stderr
    assert run_json("session", "update", "a", "--name", "", "-s", target)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("send", "127.0.0.1:9", "--encode", "h266"), "'--encode': 'h266' is not one of"),
        (("session", "list", "-o", "xml"), "'--output' / '-o': 'xml' is not one of"),
        (("session", "list", "-s", "no.such.host.invalid:1"), "no answer from no.such.host"),
    ],
)
def test_mistakes_are_told_in_plain_words(arguments: tuple[str, ...], expected: str) -> None:
    done = run(*arguments)
    assert expected in done.stderr
    assert "]" not in done.stderr.splitlines()[-1]


def shown(session: Any, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    print_session(session, OutputFormat.TABLE)
    lines = capsys.readouterr().out.splitlines()
    return {name: value.strip() for name, _, value in (line.partition(" ") for line in lines)}


def test_an_ssrc_that_nobody_told(capsys: pytest.CaptureFixture[str]) -> None:
    session = session_pb2.SessionResponse(session_id="a", ssrc_policy="follow")
    assert shown(session, capsys)["ssrc"] == "- (whichever comes)"
    session.ssrc = 7
    assert shown(session, capsys)["ssrc"] == "0x00000007 (7)"
    session = session_pb2.SessionResponse(session_id="a")
    assert shown(session, capsys)["ssrc"] == "0x00000000 (0)"


def test_a_list_fits_80_columns(target: str) -> None:
    """On a terminal; elsewhere nothing is left out."""
    session = session_pb2.SessionResponse(
        session_id="0f1e2d3c-0000-4000-8000-000000000000", source_address="203.0.113.201:50000",
        ssrc=7, media_type="video", subscriber_count=1000, status="active",
        condition="no_parameter_sets", created_at="2001-01-01T00:00:00Z",
    )  # fmt: skip
    assert narrow_row(session)[:2] == ("0f1e2d3c", "203.0.113.201:50000")
    session.name = "rover-7/front"
    assert narrow_row(session)[:2] == ("rover-7/front", "203.0.113.201:50000")
    columns = zip(NARROW_COLUMNS, narrow_row(session), strict=True)
    cells = [max(map(len, map(str, column))) for column in columns]
    assert sum(cells) + 2 * len(cells) <= 80
    for first, width in (("ID", 140), ("SESSION", 80)):
        assert on_terminal("session", "list", "-s", target, columns=width).split()[0] == first
    assert run("session", "list", "-s", target).stdout.startswith("ID ")


def test_a_latch_that_waits_no_longer(capsys: pytest.CaptureFixture[str]) -> None:
    session = session_pb2.SessionResponse(
        session_id="a", source_policy="latch", condition="never_fed", name="late"
    )
    assert shown(session, capsys)["latch_until"] == "-"
    session.latch_until = "2999-01-01T00:00:00.000000Z"
    assert shown(session, capsys)["latch_until"] == session.latch_until
    assert session_cells(session)[-1] == "never_fed"
    session.latch_until = "2001-01-01T00:00:00.000000Z"
    assert shown(session, capsys)["latch_until"] == (
        f"{session.latch_until}, which is over: rtpfanout session update late --latch-window 60"
    )
    assert session_cells(session)[-1] == "latch_over"
