"""The table of all sessions: found, sorted and cut to what a browser shows."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.sessions import matches
from rtpfanout.sessions.ranking import ATTENTION, SORTS, STATES, Choice, state_of

if TYPE_CHECKING:
    from rtpfanout.http import Kitchen
    from rtpfanout.model import Pairs
    from rtpfanout.sessions import Glance, Moment, Overview

MOST_ROWS = 200
LONGEST_TEXT = 128
FRESH_SECONDS = 0.9
"""All who look within this time see the same figures."""
_AT_A_TIME = 256


@dataclass(frozen=True, slots=True)
class Query(Choice):
    """Which rows of the table, in which order."""

    sort: str = "state"
    is_descending: bool = False
    offset: int = 0
    limit: int = 50
    has_history: bool = False

    @classmethod
    def read(cls, parameters: Mapping[str, str]) -> Query:
        """From those of a request. Raises InvalidArgumentError."""
        text = parameters.get("q", "")
        if len(text) > LONGEST_TEXT:
            raise InvalidArgumentError(
                f"{len(text)} characters, and {LONGEST_TEXT} at the most", field="q"
            )
        return cls(
            words=tuple(text.casefold().split()),
            state=_one_of(parameters, "state", STATES),
            sort=_one_of(parameters, "sort", tuple(SORTS), "state"),
            is_descending=parameters.get("descending") == "1",
            offset=_number(parameters, "offset", 0, 10**9),
            limit=_number(parameters, "limit", 50, MOST_ROWS),
            has_history=parameters.get("history") == "1",
        )


class Board:
    """Reads all sessions once for all who look, and cuts for each what he sees."""

    def __init__(self, overview: Overview, kitchen: Kitchen) -> None:
        self._overview = overview
        self._kitchen = kitchen
        self._lock = asyncio.Lock()
        self._glances: Sequence[Glance] = ()
        self._read_at = -FRESH_SECONDS
        self._read_ns = 0

    async def answer(self, query: Query, scope: Pairs, facts: Mapping[str, Any]) -> bytes:
        """JSON. `facts` are told besides; `scope` are the labels that a viewer is confined to."""
        async with self._lock:
            if time.monotonic() - self._read_at >= FRESH_SECONDS:
                await self._kitchen.make(self._read(), _always)
        made = await self._kitchen.make(self._rows(query, scope, facts), _always)
        return b"".join(made.pieces) if made else b""

    def _read(self) -> Iterator[bytes]:
        found: list[Glance] = []
        self._read_ns = time.monotonic_ns()
        for glance in self._overview.glances():
            found.append(glance)
            if len(found) % _AT_A_TIME == 0:
                yield b""
        self._glances = found
        self._read_at = time.monotonic()

    def _rows(self, query: Query, scope: Pairs, facts: Mapping[str, Any]) -> Iterator[bytes]:
        states: Counter[str] = Counter()
        bitrate, subscribers = 0.0, 0
        found: list[Glance] = []
        for number, glance in enumerate(self._glances, 1):
            if number % _AT_A_TIME == 0:
                yield b""
            if scope and not matches(glance.labels, scope):
                continue
            states[state_of(glance)] += 1
            bitrate += glance.figures.bitrate_bps if glance.figures else 0
            subscribers += glance.subscribers
            if query.holds(glance):
                found.append(glance)
        found.sort(key=SORTS[query.sort], reverse=query.is_descending)
        yield b""
        rows = found[query.offset : query.offset + query.limit]
        answer = {
            **facts,
            "states": dict(states),
            "attention": sum(states[state] for state in ATTENTION),
            "sessions": states.total(),
            "subscribers": subscribers,
            "bitrate_bps": round(bitrate),
            "matched": len(found),
            "rows": [_row(glance) for glance in rows],
        }
        if query.has_history:
            moments, bitrates = self._overview.history.seen(), []
            for glance in rows:  # each is looked for in all that there are
                bitrates.append(_bitrates(moments, glance))
                yield b""
            answer["history"] = {
                "age_ms": [_ms(self._read_ns - moment.at_ns) for moment in moments],
                "bitrate_bps": bitrates,
            }
        yield json.dumps(answer, separators=(",", ":")).encode()


def _always() -> bool:
    return True


def _row(glance: Glance) -> dict[str, Any]:
    figures = glance.figures
    return {
        "id": glance.session_id,
        "name": glance.name,
        "labels": dict(glance.labels),
        "media_type": glance.media_type,
        "source": glance.source,
        "state": state_of(glance),
        "since_ms": glance.condition_since_ms,
        "subscribers": glance.subscribers,
        "bitrate_bps": round(figures.bitrate_bps) if figures else None,
        "frame_rate": figures and _short(figures.frame_rate),
        "jitter_seconds": figures and _short(figures.jitter_seconds),
        "loss": _short(glance.lost_lately),
    }


def _bitrates(moments: Sequence[Moment], glance: Glance) -> list[int | None]:
    found = (moment.find(glance.handle) for moment in moments)
    return [None if figures is None else round(figures.bitrate_bps) for figures in found]


def _short(value: float | None) -> float | None:
    """Six digits are more than anybody reads."""
    return None if value is None else float(f"{value:.6g}")


def _ms(nanoseconds: int) -> int:
    return nanoseconds // 10**6


def _one_of(
    parameters: Mapping[str, str], name: str, words: Sequence[str], default: str = ""
) -> str:
    word = parameters.get(name, default)
    if word not in words:
        raise InvalidArgumentError(
            f"{word[:40]!r} is none of {', '.join(filter(None, words))}", field=name
        )
    return word


def _number(parameters: Mapping[str, str], name: str, default: int, most: int) -> int:
    text = parameters.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= most):
        raise InvalidArgumentError(f"{text[:40]!r} is not a number from 0 to {most}", field=name)
    return int(text)
