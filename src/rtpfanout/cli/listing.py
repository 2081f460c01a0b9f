"""Lists that may be long: `--limit` and `--all`."""

from collections.abc import Iterator
from itertools import islice
from typing import Annotated, TypeVar

import typer

from rtpfanout.cli.output import say

_Item = TypeVar("_Item")

_LONGEST_PAGE = 1000

Limit = Annotated[int, typer.Option(min=1, help="Show this many at most.")]
DEFAULT_LIMIT = 100
Every = Annotated[bool, typer.Option("--all", "-a", help="Show all, whatever --limit.")]


def page_size(limit: int, every: bool) -> int:
    """What to ask the server for at a time, so that `take` also learns whether there are more."""
    return _LONGEST_PAGE if every else min(limit + 1, _LONGEST_PAGE)


def take(found: Iterator[_Item], limit: int, every: bool) -> tuple[list[_Item], bool]:
    """What is to be shown, and whether there are more."""
    taken = list(found if every else islice(found, limit))
    return taken, not every and next(found, None) is not None


def say_more(what: str, limit: int) -> None:
    """`what` is in the plural."""
    say(f"there are more than these {limit} {what}: see them with --all")
