"""Lists that may be long: `--limit` and `--all`."""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Annotated, TypeVar

import typer

from rtpfanout.cli.output import OutputFormat, Row, message_dict, say, write_json, write_table

_Item = TypeVar("_Item")

_LONGEST_PAGE = 1000
_WIDE = 140
"""Columns of a terminal that all of a table's fit in, with a name of some length."""

Limit = Annotated[int, typer.Option(min=1, help="Show this many at most.")]
DEFAULT_LIMIT = 100
Every = Annotated[bool, typer.Option("--all", "-a", help="Show all, whatever --limit.")]


def page_size(limit: int, every: bool) -> int:
    """What to ask the server for at a time, so that one learns whether there are more, too."""
    return _LONGEST_PAGE if every else min(limit + 1, _LONGEST_PAGE)


def is_wide() -> bool:
    """Whether stdout takes all columns of a table: what is no terminal does."""
    return not sys.stdout.isatty() or shutil.get_terminal_size().columns >= _WIDE


def write_list(
    what: str,
    found: Iterator[_Item],
    limit: int,
    every: bool,
    output: OutputFormat,
    columns: Sequence[str],
    row: Callable[[_Item], Row],
) -> list[_Item]:
    """Writes what is to be shown, and says if there is more; `what` is in the plural."""
    taken = list(found if every else islice(found, limit))
    more = not every and next(found, None) is not None
    if output is OutputFormat.JSON:
        write_json([message_dict(item) for item in taken])
    else:
        write_table(columns, map(row, taken))
    if more:
        say(f"there are more than these {limit} {what}: see them with --all")
    return taken
