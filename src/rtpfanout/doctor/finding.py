"""What a check says: how bad, about what, the figure, and what mends it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.host import Host


class Level(enum.StrEnum):
    """`WARN`: it works, but loses packets or speed under load. `FAIL`: it will not start."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """`commands` mend it at once; `sysctls` too, and stay when put into /etc/sysctl.d."""

    level: Level
    subject: str
    text: str
    commands: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)


def ok(subject: str, text: str) -> Finding:
    """Nothing to mend."""
    return Finding(Level.OK, subject, text)


def warn(
    subject: str, text: str, *commands: str, sysctls: Mapping[str, str] | None = None
) -> Finding:
    """It would lose packets or speed; and what mends that."""
    return Finding(Level.WARN, subject, text, commands, sysctls or {})


def sysctl_lines(findings: Iterable[Finding]) -> list[str]:
    """All sysctls together, each once, as /etc/sysctl.d has them."""
    merged: dict[str, str] = {}
    for finding in findings:
        merged.update(finding.sysctls)
    return [f"{name} = {value}" for name, value in merged.items()]


def at_least(host: Host, subject: str, wanted: int, why: str) -> Finding:
    """Judge the sysctl `subject`, which should be `wanted` or more."""
    value = host.sysctl(subject)
    if value is None:
        return ok(subject, "cannot be read here (another network namespace?)")
    if value >= wanted:
        return ok(subject, str(value))
    return warn(subject, f"{value}, wanted {wanted}: {why}", sysctls={subject: str(wanted)})
