"""Where values come from: flags, environment variables, a TOML file, the defaults."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, SettingsError

from rtpfanout.config.settings import ENV_PREFIX, ConflictError, Settings, expected, leaf_fields
from rtpfanout.config.text import environment_name, flag_name, toml_value
from rtpfanout.errors import ConfigError

FILE_VARIABLE = "RTP_FANOUT_CONFIG"
DEFAULT_FILES = (
    Path("config/server.toml"),
    Path("/etc/rtp-fanout/config.toml"),
    Path("/etc/rtp-fanout/server.toml"),
)
DEFAULT_ORIGIN = "default"


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """A checked configuration and where it came from.

    `config_file` is None when no file was found. `origins` has an entry per dotted key:
    ``flag --max-sessions``, ``flag --set``, ``environment variable RTP_FANOUT__MAX_SESSIONS``,
    the path of the file, or ``default``. `warnings` are for the log or the terminal, one line each.
    """

    settings: Settings
    config_file: Path | None
    origins: Mapping[str, str]
    warnings: tuple[str, ...]


def load_settings(
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    assigned: Iterable[str] = (),
) -> LoadedSettings:
    """Layer defaults, file, environment and flags, and check the result.

    `config_file` is the value of ``--config``. `overrides` are the other flags by key,
    nested or dotted (``{"log.level": "debug"}``); those that are None were not given.
    `assigned` are the values of ``--set``, such as ``log.level=debug``: flags, too.
    `environ` is os.environ unless given. Raises ConfigError whose message has one line
    per problem: origin, key, value and what is expected.
    """
    environ = os.environ if environ is None else environ
    gathered = _Gathered()
    path = _find_file(config_file, environ)
    if path is not None:
        gathered.add(_read_file(path), str(path))
    _add_environment(gathered, environ)
    _add_overrides(gathered, overrides or {})
    _add_assigned(gathered, assigned)
    settings = _validated(gathered)
    if settings is None or gathered.problems:
        raise ConfigError("\n".join(gathered.problems))
    origins = {key: gathered.origin(key) for key in leaf_fields()}
    return LoadedSettings(settings, path, origins, tuple(gathered.warnings))


@dataclass(slots=True)
class _Gathered:
    """Raw values by dotted key with their origin, each layer written over the one before."""

    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, tree: Mapping[str, Any], origin: str) -> None:
        """Take a layer's values; unknown keys become problems."""
        known = leaf_fields()
        groups = {key.rpartition(".")[0] for key in known} - {""}
        for key, value in _flat(tree, groups):
            if key in known:
                self.values[key] = (value, origin)
            elif key in groups:
                self.problems.append(f"{origin}: {key} = {_shown(value)}: expected a table of keys")
            else:
                self.problems.append(f"{origin}: unknown key {key}{_hint(key)}")

    def origin(self, key: str) -> str:
        return self.values[key][1] if key in self.values else DEFAULT_ORIGIN

    def tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for key, (value, _origin) in self.values.items():
            group, _, name = key.rpartition(".")
            (tree.setdefault(group, {}) if group else tree)[name] = value
        return tree


def _flat(tree: Mapping[str, Any], groups: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if prefix + name in groups and isinstance(value, Mapping):
            yield from _flat(value, groups, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _find_file(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    if explicit is not None:
        return _existing(explicit, "flag --config")
    if named := environ.get(FILE_VARIABLE):
        return _existing(Path(named), f"environment variable {FILE_VARIABLE}")
    return next((path for path in DEFAULT_FILES if os.path.lexists(path)), None)


def _existing(path: Path, origin: str) -> Path:
    # Not is_file(): --config may name a pipe such as /dev/stdin.
    if not os.path.lexists(path):
        raise ConfigError(f"{origin}: {path}: no such file; expected a TOML configuration file")
    return path


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error


class _Variables(EnvSettingsSource):
    """pydantic-settings' reading of environment variables, from a mapping with lower-case names."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return dict(self._variables)


def _add_environment(gathered: _Gathered, environ: Mapping[str, str]) -> None:
    """Read each known variable by itself, so that its values and problems carry its name."""
    known = _known_variables()
    names = []
    for name in environ:
        if name.upper() in known:
            names.append(name)
        elif warning := _doubt(name, known):
            gathered.warnings.append(warning)
    # A whole group as JSON comes before its single keys; of two spellings the upper-case one wins.
    for name in sorted(names, key=lambda name: (name.upper().count("__"), name.isupper(), name)):
        origin = f"environment variable {name}"
        try:
            values = _Variables({name.lower(): environ[name]})()
        except SettingsError:
            problem = f"{origin} = {_shown(environ[name])}: expected a JSON object of keys"
            gathered.problems.append(problem)
        else:
            gathered.add(values, origin)


def _known_variables() -> set[str]:
    """Names in upper case: of every key, and of every group (as a JSON object)."""
    return {environment_name(key) for key in leaf_fields()} | {
        environment_name(name)
        for name, info in Settings.model_fields.items()
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
    }


def _doubt(name: str, known: set[str]) -> str | None:
    """A warning if `name` looks like a misspelt setting.

    Not every name that begins with RTP_FANOUT_: Kubernetes sets RTP_FANOUT_PORT and the
    like in every pod beside a service called rtp-fanout.
    """
    upper = name.upper()
    if upper.startswith(ENV_PREFIX):
        # Without the prefix, which would make everything look alike.
        keys = {other.removeprefix(ENV_PREFIX): other for other in known}
        keys["CONFIG"] = FILE_VARIABLE
        near = difflib.get_close_matches(upper.removeprefix(ENV_PREFIX), keys, n=1, cutoff=0.6)
        meant = keys[near[0]] if near else None
    else:
        meant = next((other for other in known if other.replace("__", "_") == upper), None)
        if meant is None:
            return None
    hint = f", did you mean {meant}?" if meant else "; `rtpfanout config example` lists them"
    return f"environment variable {name} is not a setting and is ignored{hint}"


def _add_overrides(gathered: _Gathered, overrides: Mapping[str, Any]) -> None:
    groups = {key.rpartition(".")[0] for key in leaf_fields()}
    for key, value in _flat(overrides, groups):
        if value is not None:
            gathered.add({key: value}, f"flag {flag_name(key)}")


def _add_assigned(gathered: _Gathered, assigned: Iterable[str]) -> None:
    origin = "flag --set"
    for text in assigned:
        key, equals, value = text.partition("=")
        before = gathered.origin(key)
        if not equals:
            gathered.problems.append(f"{origin} {_shown(text)}: expected KEY=VALUE")
        elif before == origin:
            gathered.problems.append(f"{origin}: {key} is there twice")
        elif before.startswith("flag "):
            gathered.problems.append(f"{origin}: {key} is there twice, as {before} sets it too")
        else:
            gathered.add({key: value}, origin)


def _validated(gathered: _Gathered) -> Settings | None:
    try:
        return Settings(**gathered.tree())
    except ValidationError as error:
        fields = leaf_fields()
        for detail in error.errors(include_url=False):
            cause = detail.get("ctx", {}).get("error")
            if isinstance(cause, ConflictError):
                gathered.problems += [
                    f"{gathered.origin(key)}: {sentence}" for key, sentence in cause.conflicts
                ]
                continue
            key = ".".join(str(part) for part in detail["loc"])
            value, origin = gathered.values[key]
            reason = f"{cause}, " if cause is not None else ""
            gathered.problems.append(
                f"{origin}: {key} = {_shown(value)}: {reason}expected {expected(fields[key])}"
            )
        return None


def _shown(value: object) -> str:
    text = toml_value(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _hint(key: str) -> str:
    """The key that was probably meant, or all there are."""
    keys = list(leaf_fields())
    # `level` alone is most likely log.level.
    names = {name: full for full in keys for name in (full.rpartition(".")[2], full)}
    near = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.6)
    return f", did you mean {names[near[0]]}?" if near else f"; the keys are {', '.join(keys)}"
