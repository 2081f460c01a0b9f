"""`rtpfanout why`: from camera to viewer, what keeps the picture away and what to do about it."""

import shutil
import sys
import textwrap
import time
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtpfanout.admitting import next_step
from rtpfanout.cli.output import (
    DEFAULT_SERVER,
    Output,
    OutputFormat,
    Server,
    message_dict,
    say,
    write,
    write_json,
)
from rtpfanout.cli.session_choice import connect
from rtpfanout.cli.session_options import SessionId
from rtpfanout.errors import ExitCode, NotFoundError, PermissionDeniedError, UnimplementedError

if TYPE_CHECKING:
    from rtpfanout.client import SessionClient
    from rtpfanout.why import Evidence, Finding, Knocked

MOST_SUBSCRIBERS = 10_000
_SIMILAR = 0.6
_EARLIER_SECONDS = 0.5
_SIGNS = {"ok": "ok", "note": "note", "either": "EITHER", "cause": "CAUSE"}


def why(
    session_id: SessionId,
    subscriber: Annotated[
        str | None,
        typer.Argument(
            metavar="[SUBSCRIBER]", help="Who sees nothing, ip:port; without, all are looked at."
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="For how long to watch counters.")
    ] = 2.0,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Say why a viewer sees nothing, and what to do.

    Or a broken picture. Walks from the camera to the viewer: server, session, camera, reception,
    subscriber, egress, reach, its reports. Reads, and changes nothing. CAUSE: this is it; EITHER:
    one of two, which can't be told apart from here.

    Exits with 1 where a cause was found, with 0 where nothing is wrong as far as anybody tells; 3:
    there is no such session.
    """
    from rtpfanout.why import examine, found_cause

    with connect(server) as client:
        try:
            evidence = _gather(client, session_id, subscriber or "", seconds)
        except NotFoundError as error:
            _explain_absence(client, session_id)
            raise error from None
    findings = examine(evidence)
    has_cause = found_cause(findings)
    if output is OutputFormat.JSON:
        write_json(_json(evidence, findings, has_cause=has_cause))
    else:
        _write_report(findings)
        if not has_cause:
            say(_calm(evidence))
    if has_cause:
        raise typer.Exit(ExitCode.FAILURE)


def _gather(client: "SessionClient", name: str, wanted: str, seconds: float) -> "Evidence":
    """Asks again and again. Raises NotFoundError and what else calls raise."""
    from rtpfanout.why import Evidence

    wanted = _spelt(wanted)
    session = client.get_session(name)
    session_id = session.session_id
    knocks, earlier = _knocks(client), client.get_session_stats(session_id)
    time.sleep(min(_EARLIER_SECONDS, seconds))
    before, subscribers = client.get_session_stats(session_id), _subscribers(client, session_id)
    time.sleep(seconds)
    after, later = client.get_session_stats(session_id), _subscribers(client, session_id)
    return Evidence(
        session=message_dict(client.get_session(session_id)),
        before=message_dict(before),
        after=message_dict(after),
        seconds=max(seconds, after.uptime_seconds - before.uptime_seconds),
        subscribers_before=subscribers,
        subscribers=later,
        wanted=wanted,
        earlier=message_dict(earlier),
        knocks=_knocked(knocks, _knocks(client), session),
    )


def _spelt(subscriber: str) -> str:
    """As the server does. Raises BadParameter."""
    from rtpfanout.cli.arguments import parse_address

    return str(parse_address(subscriber)) if subscriber else ""


def _subscribers(client: "SessionClient", session_id: str) -> list[dict[str, Any]]:
    """None of a server of the first version, which lists none."""
    try:
        found = islice(client.iter_subscribers(session_id, 1000), MOST_SUBSCRIBERS)
        return [message_dict(each) for each in found]
    except UnimplementedError:
        return []


def _knocks(client: "SessionClient") -> "dict[tuple[str, int], Any] | None":
    """By who knocks; None: who asks may not know, or the server does not."""
    try:
        return {(each.source_address, each.ssrc): each for each in client.list_knocks()}
    except (PermissionDeniedError, UnimplementedError):
        return None


def _knocked(
    before: "dict[tuple[str, int], Any] | None",
    after: "dict[tuple[str, int], Any] | None",
    session: Any,
) -> "list[Knocked] | None":
    from rtpfanout.why import Knocked

    if before is None or after is None:
        return None
    sessions = {session.session_id: session}
    return [
        Knocked(
            message_dict(knock),
            next_step(knock, sessions)["admit_by"],
            sends=who not in before or knock.packets > before[who].packets,
        )
        for who, knock in after.items()
    ]


def _explain_absence(client: "SessionClient", name: str) -> None:
    """Which names are like it."""
    import difflib

    names = [each.name for each in islice(client.iter_sessions(1000), 10_000) if each.name]
    if alike := difflib.get_close_matches(name, names, cutoff=_SIMILAR):
        say(f"is it one of these? {', '.join(alike)}")


def _calm(evidence: "Evidence") -> str:
    who = evidence.wanted or "its subscribers"
    return (
        f"no cause found: packets come, and leave for {who}. What is left is that side: a firewall"
        " that drops silently, or the program that is to play them"
    )


def _json(evidence: "Evidence", findings: "list[Finding]", *, has_cause: bool) -> dict[str, object]:
    return {
        "session_id": evidence.session["session_id"],
        "name": evidence.session["name"],
        "subscriber": evidence.wanted,
        "seconds": evidence.seconds,
        "cause_found": has_cause,
        "findings": [asdict(each) for each in findings],
    }


def _write_report(findings: "list[Finding]") -> None:
    """On a terminal sentences are folded; commands never are."""
    margin = max(len(each.station) for each in findings) + 2
    room = shutil.get_terminal_size().columns - margin - 8 if sys.stdout.isatty() else 1 << 16
    for each in findings:
        head = f"{each.station.ljust(margin)}{_SIGNS[each.level].ljust(8)}"
        for line in textwrap.wrap(each.text, max(room, 30), break_on_hyphens=False):
            write(head + line)
            head = " " * len(head)
        for step in each.next:
            write(f"{' ' * len(head)}  {step}")
