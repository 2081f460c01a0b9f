"""Settings as TOML text: the commented example, and the effective configuration."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from rtpfanout.config.settings import ENV_PREFIX, Settings, expected, leaf_fields

_EXAMPLE_HEAD = """\
# rtpfanout's configuration: every key, with its default.
#
# Read from the file given with --config, else the one named by RTP_FANOUT_CONFIG, else
# ./config/server.toml, /etc/rtp-fanout/config.toml or /etc/rtp-fanout/server.toml.
# Flags win over environment variables, these over the file, the file over the defaults.
# `rtpfanout config check` checks it; `rtpfanout config show` prints what is in effect.
"""


def plain_values(settings: Settings) -> dict[str, Any]:
    """Every value under its dotted key, as JSON knows it: texts, numbers, booleans, lists."""
    tree = settings.model_dump()
    values = {}
    for key in leaf_fields():
        value: Any = tree
        for name in key.split("."):
            value = value[name]
        values[key] = value
    return values


def settings_to_toml(settings: Settings) -> str:
    """Every value as a TOML document that loads to the same settings."""
    return _document(settings, lambda key, line: [line])  # noqa: ARG005


def annotated_toml(settings: Settings, notes: Mapping[str, str]) -> str:
    """The same document with a comment behind each value."""
    width = max(len(_assignment(key, value)) for key, value in plain_values(settings).items())
    return _document(settings, lambda key, line: [f"{line:<{width}}  # {notes[key]}"])


def example_toml() -> str:
    """A configuration file with all defaults, each key explained. It is config/server.toml."""
    fields = leaf_fields()

    def explained(key: str, line: str) -> list[str]:
        return [
            "",
            *_comment(fields[key].description or ""),
            *_comment(f"Expected: {expected(fields[key])}."),
            f"# Environment: {environment_name(key)}",
            line,
        ]

    return _EXAMPLE_HEAD + _document(Settings(), explained)


def environment_name(key: str) -> str:
    """The environment variable that sets a dotted key."""
    return ENV_PREFIX + key.upper().replace(".", "__")


def flag_name(key: str) -> str:
    """The flag that would set a dotted key; `serve` has those that people type, and ``--set``."""
    return "--" + key.replace(".", "-").replace("_", "-")


def assignments() -> dict[str, str]:
    """What to give ``--set`` instead of the flag of a key: ``store.path=VALUE`` by --store-path."""
    found = {}
    for key, field in leaf_fields().items():
        is_switch = field.annotation is bool
        found[flag_name(key)] = f"{key}={'true' if is_switch else 'VALUE'}"
        if is_switch:
            found[flag_name(f"no.{key}")] = f"{key}=false"
    return found


def _document(settings: Settings, lines_of: Callable[[str, str], list[str]]) -> str:
    lines: list[str] = []
    open_table = ""
    for key, value in plain_values(settings).items():
        table = key.rpartition(".")[0]
        if table != open_table:
            lines += ["", f"[{table}]"]
            open_table = table
        lines += lines_of(key, _assignment(key, value))
    return "\n".join(lines) + "\n"


def _assignment(key: str, value: object) -> str:
    return f"{key.rpartition('.')[2]} = {toml_value(value)}"


def toml_value(value: object) -> str:
    """A value as TOML; for text, numbers, booleans and lists of text that is JSON's notation."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, ensure_ascii=False, default=str)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, 96, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )
