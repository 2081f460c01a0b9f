"""Lines that strangers can cause."""

from __future__ import annotations

from rtpfanout.seldom import Seldom


def test_so_many_lines_a_minute_and_how_many_were_left_out() -> None:
    now = 100.0
    lines: list[tuple[str, dict[str, object]]] = []

    def log(event: str, **entry: object) -> None:
        lines.append((event, entry))

    seldom = Seldom(2, 60.0, lambda: now)
    for number in range(5):
        seldom.write(log, "refused", number=number)
    assert lines == [("refused", {"number": 0}), ("refused", {"number": 1})]
    now += 59.9
    seldom.write(log, "refused", number=5)
    now += 0.2
    for number in range(6, 9):
        seldom.write(log, "refused", number=number)
    assert lines[2:] == [
        ("refused", {"number": 6, "left_out": 4}),
        ("refused", {"number": 7}),
    ]
