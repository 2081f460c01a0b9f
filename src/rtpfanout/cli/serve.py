"""`rtpfanout serve`: run the server in the foreground."""

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from rtpfanout.errors import StartError

# Other options come as arguments, so that those which are keys of the configuration are told apart.
TAKES_ALL = {"ignore_unknown_options": True, "allow_extra_args": True}


def _complete_key(incomplete: str) -> list[str]:
    from rtpfanout.config import leaf_fields

    return [f"{key}=" for key in leaf_fields() if key.startswith(incomplete)]


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="TOML file; without it RTP_FANOUT_CONFIG, config/server.toml or /etc/rtp-fanout.",
    ),
]
Assigned = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Any key of the configuration, its value as in the environment; repeat for more.",
        autocompletion=_complete_key,
    ),
]


def serve(
    context: typer.Context,
    config: ConfigFile = None,
    assigned: Assigned = None,
    bind_address: Annotated[
        str | None,
        typer.Option(metavar="IP:PORT", help="Where RTP comes in, and copies leave from."),
    ] = None,
    grpc_bind_address: Annotated[
        str | None, typer.Option(metavar="IP:PORT", help="Where the control API is served.")
    ] = None,
    metrics_bind_address: Annotated[
        str | None, typer.Option(metavar="IP:PORT", help="Where metrics and health are served.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Threads for packets; 0: one for each CPU.")
    ] = None,
    max_sessions: Annotated[
        int | None, typer.Option(help="Sessions that can exist at a time.")
    ] = None,
    max_fanout_per_session: Annotated[
        int | None, typer.Option(help="Subscribers that one session can have.")
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(metavar="FORMAT", help="auto, console or json.")
    ] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    Flags win over environment (RTP_FANOUT__MAX_SESSIONS and so on), environment
    over file, file over defaults. `rtpfanout config example` explains each key.
    """
    if context.args:
        _refuse(context, context.args[0])
    flags = {
        "bind_address": bind_address,
        "grpc_bind_address": grpc_bind_address,
        "metrics_bind_address": metrics_bind_address,
        "workers": workers,
        "max_sessions": max_sessions,
        "max_fanout_per_session": max_fanout_per_session,
        "log.level": log_level,
        "log.format": log_format,
    }
    raise typer.Exit(_run(config, flags, assigned or []))


def _refuse(context: typer.Context, argument: str) -> NoReturn:
    """No option of `serve`, though it may be a key of the configuration."""
    if not argument.startswith("-"):
        context.fail(f"Got unexpected extra argument ({argument})")
    from rtpfanout.config import assignments

    known = {flag: f"--set {meant}" for flag, meant in assignments().items()}
    for parameter in context.command.params:
        known |= {flag: flag for flag in parameter.opts}
    flag = argument.partition("=")[0]
    hint = f"; use {known[flag]}" if flag in known else ""
    if not hint and (near := difflib.get_close_matches(flag, known, n=1, cutoff=0.7)):
        hint = f"; did you mean {known[near[0]]}?"
    context.fail(f"No such option: {flag}{hint}")


def _run(config: Path | None, flags: dict[str, Any], assigned: list[str]) -> int:
    if sys.platform != "linux":
        raise StartError(f"the server runs on Linux only, and this is {sys.platform}")
    from rtpfanout import stderr

    stderr.open_missing()
    from rtpfanout.config import load_settings

    loaded = load_settings(config, flags, assigned=assigned)
    for warning in loaded.warnings:
        stderr.write(f"warning: {warning}\n".encode())
    try:
        from rtpfanout import supervisor
    except ImportError as error:  # the extension is not compiled; it says what to do
        raise StartError(str(error)) from None
    return supervisor.run(
        loaded.settings, lambda: load_settings(config, flags, assigned=assigned).settings
    )
