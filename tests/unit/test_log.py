"""What the log shows, and what it must not."""

from __future__ import annotations

import json
import logging
import sys

import pytest
import structlog

from rtpfanout import log

PRIVATE = "s3cret-of-a-caller"


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def fail_with(token: str) -> None:
    raise RuntimeError(f"a fault after {len(token)} characters")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("ours", [True, False])
def test_tracebacks_tell_where_and_never_what_was_in_variables(
    form: str, ours: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("info", form)
    logger = structlog.stdlib.get_logger("rtpfanout.test") if ours else logging.getLogger("other")
    try:
        fail_with(PRIVATE)
    except RuntimeError:
        logger.exception("call failed")
    shown = capsys.readouterr().err
    assert "fail_with" in shown, "where it happened"
    assert "a fault after 18 characters" in shown
    assert PRIVATE not in shown
    assert "locals" not in shown


def test_a_json_entry_with_a_traceback_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "json")
    try:
        fail_with(PRIVATE)
    except RuntimeError:
        structlog.stdlib.get_logger("rtpfanout.test").error("failed", exc_info=sys.exc_info())
    (line,) = capsys.readouterr().err.splitlines()
    (exception,) = json.loads(line)["exception"]
    assert exception["exc_type"] == "RuntimeError"
    assert [frame["name"] for frame in exception["frames"]][-1] == "fail_with"
