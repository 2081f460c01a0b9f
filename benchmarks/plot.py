"""The table as a picture: an SVG of bars, one panel per cell, written without any library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR, PANEL, LABEL, VALUE = 16, 560, 96, 130  # pixels: height of a bar, widths
HEAD, GAP = 44, 24
OURS, OTHERS = "#1b6ca8", "#b8c4ce"
QUANTITY = {
    "throughput": ("copies_per_process_cpu_s", "copies per CPU second (more is better)"),
    "latency": ("last_copy_p99_us", "p99 until the last copy arrives, \u00b5s (less is better)"),
}


def plot(rows: Sequence[dict[str, Any]], measure: str) -> str:
    """SVG 1.1. Columns: whether GSO passes the egress link; rows: subscribers and burst."""
    key, title = QUANTITY[measure]
    offloads = list(dict.fromkeys(row["offload"] for row in rows))
    cells = list(dict.fromkeys((row["subscribers"], row["burst"]) for row in rows))
    tallest = len(dict.fromkeys(row["contender"] for row in rows))
    height = HEAD + tallest * BAR + GAP
    parts = [_text(8, 20, title, weight="bold")]
    for column, offload in enumerate(offloads):
        for line, cell in enumerate(cells):
            shown = [row for row in rows if row["offload"] == offload and _cell(row) == cell]
            heading = f"{cell[0]} subscribers, bursts of {cell[1]}, offload {offload}"
            parts += _panel(column * PANEL, 30 + line * height, heading, shown, key)
    size = (PANEL * len(offloads), 30 + height * len(cells))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{size[0]}" height="{size[1]}" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _cell(row: dict[str, Any]) -> tuple[int, int]:
    return row["subscribers"], row["burst"]


def _panel(
    left: int, top: int, heading: str, rows: Sequence[dict[str, Any]], key: str
) -> list[str]:
    parts = [_text(left + 8, top + 20, heading)]
    most = max((row[key] for row in rows), default=0) or 1
    for number, row in enumerate(rows):
        y = top + 30 + number * BAR
        width = (PANEL - LABEL - VALUE) * row[key] / most
        colour = OURS if row["contender"].startswith(("rtpfanout", "engine")) else OTHERS
        parts.append(_text(left + LABEL - 6, y + 12, row["contender"], anchor="end"))
        parts.append(
            f'<rect x="{left + LABEL}" y="{y + 2}" width="{width:.1f}" height="{BAR - 4}" '
            f'fill="{colour}"/>'
        )
        parts.append(_text(left + LABEL + width + 6, y + 12, f"{row[key]:,.0f}"))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}">'
        f"{escape(text)}</text>"
    )
