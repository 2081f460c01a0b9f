"""The screen of `rtpfanout top`, for 80 columns and more."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from rtpfanout.cli.output import age
from rtpfanout.cli.session_options import ANYBODY
from rtpfanout.cli.session_shown import shown_labels
from rtpfanout.cli.top_keys import Looking

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import ConsoleDimensions

FRAME_LINES = 5
"""Around the rows: what there is in all, the heads, and at the bottom what is chosen and keys."""
WIDE = 100
"""From so many columns on labels have one of their own."""
PLAIN_COLUMNS = (
    "NAME", "STATE", "MBIT/S", "LOSS %", "JITTER ms", "FPS", "SUBSCRIBERS", "SOURCE", "LABELS",
)  # fmt: skip
_STATES = {
    "no_parameter_sets": "no par. sets",
    "no_keyframes": "no keyframes",
    "never_fed": "never fed",
}
_ALARMING = {"frozen", "silent", "no keyframes", "no par. sets", "refused"}
_COLUMNS = {
    "state": ("STATE", 12),
    "bitrate": ("MBIT/S", 8),
    "loss": ("LOSS%", 6),
    "jitter": ("JITTER", 7),
    "frame_rate": ("FPS", 5),
    "subscribers": ("SUBS", 6),
}
"""By what they are put in order by: head, and width."""
_KEYS = "a state n name b rate l loss j jitter f fps u subs r turn / find Enter open q"
"""In 80 columns."""


def state_of(session: Any) -> str:
    """In a word or two."""
    is_special = session.status in ("paused", "refused") or not session.condition
    state = str(session.status if is_special else session.condition)
    return _STATES.get(state, state)


def figures(session: Any) -> list[str]:
    """Bitrate, loss, jitter, frame rate, subscribers; "-" for what is not known."""

    def shown(name: str, factor: float, digits: int) -> str:
        return f"{factor * getattr(session, name):.{digits}f}" if session.HasField(name) else "-"

    return [
        shown("bitrate_bps", 1e-6, 2),
        shown("loss", 100, 2),
        shown("jitter_seconds", 1000, 1),
        shown("frame_rate", 1, 0),
        str(session.subscriber_count),
    ]


def plain_cells(session: Any) -> list[str]:
    """Of a table that nobody looks at twice."""
    return [
        session.name or session.session_id,
        state_of(session),
        *figures(session),
        session.source_address or ANYBODY,
        shown_labels(session.labels),
    ]


def screen(
    found: Any,
    subscribers: Any,
    looking: Looking,
    size: "ConsoleDimensions",
    server: str,
    fault: str,
) -> RenderableType:
    """All of it."""
    rows = max(1, size.height - FRAME_LINES)
    there = list(found.sessions)
    chosen = there[looking.chosen] if looking.chosen < len(there) else None
    if looking.session:
        own = next((s for s in there if s.session_id == looking.session), chosen)
        table = _subscribers_table(subscribers, rows)
        foot = _about(own) if own else Text()
        keys = "Esc back  q back"
    else:
        table = _sessions_table(there[looking.first :][:rows], looking, size.width)
        foot = _about(chosen) if chosen else Text("no session")
        keys = _KEYS
    if looking.typed is not None:
        keys = f"filter: {looking.typed}_   (Enter: take it, Esc: leave it)"
    lines: list[RenderableType] = [
        _head(found, looking, server, fault),
        table,
        foot,
        Text(keys, style="dim"),
    ]
    for line in lines:
        if isinstance(line, Text):
            line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def _head(found: Any, looking: Looking, server: str, fault: str) -> Text:
    if fault:
        return Text(fault, style="bold red")
    text = Text(f"{server}  {datetime.now().astimezone():%H:%M:%S}  ")
    if looking.words:
        text.append(f"{looking.words}: {found.matched} of ", style="bold")
    text.append(f"{found.total} sessions")
    if found.attention:
        text.append(f", {found.attention} need attention", style="bold red")
    text.append(f"  {found.bitrate_bps / 1e6:.1f} Mbit/s in  {found.subscribers} subscribers")
    return text


def _sessions_table(shown: "Sequence[Any]", looking: Looking, width: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), expand=True, header_style="bold")
    name = "NAME" if looking.order_by != "name" else "NAME" + _arrow(looking)
    table.add_column(name, ratio=2, no_wrap=True, overflow="ellipsis")
    for order, (head, columns) in _COLUMNS.items():
        if order == looking.order_by:
            head += _arrow(looking)
        justify: JustifyMethod = "left" if order == "state" else "right"
        table.add_column(head, width=columns, no_wrap=True, justify=justify)
    if width >= WIDE:
        table.add_column("LABELS", ratio=1, no_wrap=True, overflow="ellipsis")
    for number, session in enumerate(shown, looking.first):
        state = state_of(session)
        cells: list[RenderableType] = [
            Text(session.name or session.session_id),
            Text(state, style="red" if state in _ALARMING else ""),
            *figures(session),
        ]
        if width >= WIDE:
            cells.append(shown_labels(session.labels))
        table.add_row(*cells, style="reverse" if number == looking.chosen else "")
    return table


def _arrow(looking: Looking) -> str:
    is_rising = (looking.order_by in ("name", "state")) is not looking.is_reverse
    return "^" if is_rising else "v"


def _subscribers_table(found: Any, rows: int) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for head in ("ADDRESS", "CLASS", "STATE", "REACH"):
        table.add_column(head, no_wrap=True)
    for head in ("LOSS%", "RTT ms", "SENT", "FAILED", "AGE"):
        table.add_column(head, no_wrap=True, justify="right")
    there = list(found.subscribers) if found is not None else []
    for each in there[:rows]:
        report = each.report if each.HasField("report") else None
        is_well = each.state == "sending"
        table.add_row(
            each.subscriber_address,
            each.subscriber_class,
            Text(each.state.replace("_", " "), style="" if is_well else "red"),
            (getattr(each, "reach", "") or "-").replace("_", " "),
            f"{100 * report.fraction_lost:.1f}" if report else "-",
            (
                f"{1000 * report.round_trip_seconds:.1f}"
                if report and report.HasField("round_trip_seconds")
                else "-"
            ),
            str(each.packets_sent),
            str(each.send_failures),
            age(each.since),
        )
    if not there:
        table.add_row("no subscriber")
    return table


def _about(session: Any) -> Text:
    """The session that is chosen, or whose subscribers are shown."""
    parts = [session.name or session.session_id, f"from {session.source_address or ANYBODY}"]
    if session.condition_since:
        parts.append(f"{state_of(session)} for {age(session.condition_since)}")
    parts.append(shown_labels(session.labels))
    return Text("  ".join(filter(None, parts)), style="cyan")
