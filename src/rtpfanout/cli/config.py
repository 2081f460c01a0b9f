"""`rtpfanout config`: check a configuration, show what is in effect, print an example."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rtpfanout.cli.output import Output, OutputFormat, say, write, write_json

if TYPE_CHECKING:
    from rtpfanout.config import LoadedSettings

app = typer.Typer(help="Check, show and explain the configuration.", no_args_is_help=True)

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="Configuration file (TOML).", show_default=False),
]


@app.command()
def check(config: ConfigFile = None, output: Output = OutputFormat.TABLE) -> None:
    """Check the configuration that `serve` would start with.

    Exits with 2 if it is wrong. Files that it names are looked at by `serve` alone.
    """
    loaded = load(config)
    if output is OutputFormat.JSON:
        write_json({"config_file": _file(loaded), "warnings": list(loaded.warnings)})
    else:
        write(f"ok: {_file(loaded) or 'no configuration file, defaults and environment'}")


@app.command()
def show(config: ConfigFile = None, output: Output = OutputFormat.TABLE) -> None:
    """Print what is in effect, and where each value comes from."""
    from rtpfanout.config import annotated_toml, plain_values

    loaded = load(config)
    if output is OutputFormat.JSON:
        settings = {
            key: {"value": value, "origin": loaded.origins[key]}
            for key, value in plain_values(loaded.settings).items()
        }
        write_json(
            {
                "config_file": _file(loaded),
                "warnings": list(loaded.warnings),
                "settings": settings,
            }
        )
    else:
        write(annotated_toml(loaded.settings, loaded.origins).rstrip("\n"))


@app.command()
def example(output: Output = OutputFormat.TABLE) -> None:
    """Print a file with every key explained, and at its default."""
    from rtpfanout.config import Settings, example_toml, plain_values

    if output is OutputFormat.JSON:
        write_json(plain_values(Settings()))
    else:
        write(example_toml().rstrip("\n"))


def load(config: Path | None) -> "LoadedSettings":
    """The warnings are said. Raises ConfigError."""
    from rtpfanout.config import load_settings

    loaded = load_settings(config)
    for warning in loaded.warnings:
        say(f"warning: {warning}")
    return loaded


def _file(loaded: "LoadedSettings") -> str | None:
    return str(loaded.config_file) if loaded.config_file else None
