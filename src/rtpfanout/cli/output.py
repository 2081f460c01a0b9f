"""Data on stdout: `-o table` for people, `-o json` for programs; talk on stderr."""

import enum
import json
import sys
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from rtpfanout.cli.exits import broken_pipe

if TYPE_CHECKING:
    from rich.table import Table


class OutputFormat(enum.StrEnum):
    """What a command prints on stdout."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[OutputFormat, typer.Option("--output", "-o", help="What to print on stdout.")]
Server = Annotated[
    str,
    typer.Option(
        "--server",
        "-s",
        envvar="RTP_FANOUT_SERVER",
        help="The server's gRPC address.",
        is_eager=True,  # known where a session is looked for
        metavar="HOST:PORT",
    ),
]
DEFAULT_SERVER = "127.0.0.1:50051"

Row = Sequence[object]


def write(text: str, file: TextIO | None = None) -> None:
    """One piece of data on stdout, at once."""
    try:
        print(text, file=file, flush=True)
    except BrokenPipeError:
        broken_pipe()


def say(text: str) -> None:
    """Talk: one line on stderr."""
    write(text, sys.stderr)


def write_json(data: object, *, indent: int | None = 2) -> None:
    """One JSON value on stdout."""
    write(json.dumps(data, indent=indent))


def write_table(columns: Sequence[str], rows: Iterable[Row], *, title: str = "") -> None:
    """A table: drawn on a terminal, else plain aligned columns with nothing cut off."""
    if sys.stdout.isatty():
        import rich

        rich.print(rich_table(columns, rows, title=title))
        return
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        write("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def write_fields(fields: Mapping[str, object]) -> None:
    """One object, a line per field."""
    width = max(map(len, fields))
    for name, value in fields.items():
        write(f"{name.ljust(width)}  {value}")


def rich_table(columns: Sequence[str], rows: Iterable[Row], *, title: str = "") -> "Table":
    """The same table for rich: numbers to the right, a loss in red."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    kept = [list(row) for row in rows]
    table = Table(
        box=box.SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold"
    )
    for index, name in enumerate(columns):
        numeric = name.endswith(" ms") or all(isinstance(row[index], int) for row in kept)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        table.add_row(
            *(
                Text(str(cell), style=_style(name, cell))
                for name, cell in zip(columns, row, strict=True)
            )
        )
    return table


def _style(column: str, cell: object) -> str:
    if column not in ("LOST", "ALTERED") or cell == "-":
        return ""
    return "green" if cell in (0, "0", "0 %") else "bold red"


def message_dict(message: Any) -> dict[str, Any]:
    """A protobuf message as JSON-ready fields under their API names.

    64-bit counters stay numbers (protobuf's own JSON makes them strings); an
    optional field that is absent is None, an enumerator its name.
    """
    return {field.name: _field_value(message, field) for field in message.DESCRIPTOR.fields}


def _field_value(message: Any, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.message_type is None:
        if isinstance(value, MutableSequence):
            return list(value)
        return field.enum_type.values_by_number[value].name if field.enum_type else value
    if field.message_type.GetOptions().map_entry:
        return dict(value)
    if isinstance(value, MutableSequence):
        return [message_dict(each) for each in value]
    return message_dict(value)


def shown_ms(value: float | None) -> str:
    """Milliseconds for people."""
    return "-" if value is None else f"{value:.3f}"


def age(created_at: str) -> str:
    """``42s``, ``17m``, ``3h`` or ``12d`` since an RFC 3339 time."""
    try:
        created = datetime.fromisoformat(created_at)
    except ValueError:
        return "?"
    seconds = max(0, int((datetime.now(UTC) - created).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
