"""All that a list call has, page after page: each is asked for by the cursor in the last."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from rtpfanout.api import session_pb2

_Page = TypeVar("_Page", session_pb2.ListSessionsResponse, session_pb2.ListSubscribersResponse)
_Item = TypeVar("_Item")


def iter_items(
    page_from: Callable[[str], _Page], items: Callable[[_Page], Iterable[_Item]]
) -> Iterator[_Item]:
    """The `items` of all pages; `page_from` fetches one by its cursor, the first by ""."""
    cursor = ""
    while True:
        page = page_from(cursor)
        yield from items(page)
        cursor = page.next_cursor
        if not cursor:
            return


async def aiter_items(
    page_from: Callable[[str], Awaitable[_Page]], items: Callable[[_Page], Iterable[_Item]]
) -> AsyncIterator[_Item]:
    """The same for asyncio."""
    cursor = ""
    while True:
        page = await page_from(cursor)
        for item in items(page):
            yield item
        cursor = page.next_cursor
        if not cursor:
            return
