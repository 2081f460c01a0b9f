"""The `rtpfanout` command: registers the command groups, and nothing else.

Commands import what they need when they run, so that `--help` and shell
completion answer at once.
"""

import os
from typing import Any

import typer
from typer.core import TyperGroup

from rtpfanout.cli import (
    bench,
    config,
    control,
    demo,
    doctor,
    events,
    knocks,
    recv,
    sdp,
    send,
    serve,
    session,
    subscriber,
    top,
    version,
    why,
)
from rtpfanout.cli.exits import run_cli


class _Group(TyperGroup):
    """Says what is wrong with an option without the words of the library that found it out."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


app = typer.Typer(
    name="rtpfanout",
    cls=_Group,
    help="One RTP stream in, exact copies out to many places.",
    no_args_is_help=True,
    # Plain help: rich would double the time until it appears.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("serve", context_settings=serve.TAKES_ALL)(serve.serve)
app.command("demo")(demo.demo)
app.add_typer(session.app, name="session")
app.add_typer(subscriber.app, name="subscriber")
app.command("top")(top.top)
app.command("events")(events.events)
app.command("knocks")(knocks.knocks)
app.command("why")(why.why)
app.command("sdp")(sdp.sdp)
app.command("send")(send.send)
app.command("recv")(recv.recv)
app.add_typer(config.app, name="config")
app.command("doctor")(doctor.doctor)
app.command("bench")(bench.bench)
app.command("upgrade")(control.upgrade)
app.command("reload")(control.reload)
app.command("drain")(control.drain)
app.command("version")(version.version)


def main() -> None:
    """Run the command line of this process and exit with its code."""
    # gRPC's own lines, one for each TLS handshake that fails, are no part of a log or an answer.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    run_cli(lambda: app(prog_name="rtpfanout"))
