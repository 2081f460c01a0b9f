"""`rtpfanout sdp`: what a player needs to open what its address is sent."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rtpfanout.cli.arguments import parse_address
from rtpfanout.cli.output import (
    DEFAULT_SERVER,
    Output,
    OutputFormat,
    Server,
    say,
    write,
    write_json,
)
from rtpfanout.cli.session_options import SessionId, connect
from rtpfanout.errors import ConfigError, NotFoundError
from rtpfanout.model import Address

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.client import SessionClient

DEFAULT_WAIT = 5.0
PORTS_APART = 2
"""Between two sessions of one description: RTCP has the port between."""

Wait = Annotated[
    float,
    typer.Option(
        min=0, max=60, metavar="SECONDS", help="For packets that tell what it carries, at most."
    ),
]
EveryPart = Annotated[
    bool,
    typer.Option(
        "--all",
        help="All sessions whose names begin with SESSION/, as rover-7/front/video and"
        " rover-7/front/audio: the first at ADDRESS, each further one two ports above.",
    ),
]


Heard = tuple[str, str]
"""A session, and the address where its packets go."""


def sdp(
    session_id: SessionId,
    to: Annotated[
        Address,
        typer.Option("--for", parser=parse_address, metavar="ADDRESS", help="Where it is heard."),
    ],
    every: EveryPart = False,
    wait: Wait = DEFAULT_WAIT,
    output: Output = OutputFormat.TABLE,
    server: Server = DEFAULT_SERVER,
) -> None:
    """Print what a player needs to open a session.

    It is an SDP, for ffmpeg, ffplay, VLC or GStreamer at ADDRESS. It says what was told of the
    session (`session create --sdp` or `--encoding`) or what its packets tell, and the parameter
    sets that came, so that a picture decodes without more.
    """
    with connect(server) as client:
        parts = parts_of(client, session_id, str(to), every=every)
        answer = described(client, parts, wait)
    if output is OutputFormat.JSON:
        write_json({"sdp": answer.sdp, "notes": list(answer.notes)})
    else:
        write(answer.sdp.rstrip("\r\n"))


def parts_of(client: "SessionClient", session_id: str, address: str, *, every: bool) -> list[Heard]:
    """One, or with `every` all of its name. Raises NotFoundError."""
    if not every:
        return [(session_id, address)]
    prefix = session_id.rstrip("/") + "/"
    names = sorted(
        session.name
        for session in client.iter_sessions(name_prefix=prefix)
        if session.name.startswith(prefix)
    )
    if not names:
        raise NotFoundError(f"no session has a name that begins with {prefix}", field="session_id")
    first = Address.parse(address)
    if first.port + PORTS_APART * (len(names) - 1) > 65_535:
        raise typer.BadParameter(f"there are no {len(names)} ports from {address} up")
    return [
        (name, str(Address(first.ip, first.port + PORTS_APART * index)))
        for index, name in enumerate(names)
    ]


def described(client: "SessionClient", parts: "Sequence[Heard]", wait: float) -> Any:
    """The answer, whose notes are said."""
    first, *others = parts
    answer = client.get_subscriber_sdp(
        *first,
        wait_secs=wait,
        others=others,
    )
    for note in answer.notes:
        say(note)
    return answer


def write_file(text: str, path: Path) -> None:
    """As it is, also to standard output as "-"."""
    if str(path) == "-":
        write(text.rstrip("\r\n"))
        return
    try:
        path.write_bytes(text.encode())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="--sdp") from None
