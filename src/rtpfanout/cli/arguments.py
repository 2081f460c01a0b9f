"""Arguments and options of several commands that send or receive."""

from pathlib import Path
from typing import Annotated

import typer

from rtpfanout import signed
from rtpfanout.model import Address

Count = Annotated[int | None, typer.Option(min=1, help="End after this many packets.")]
Duration = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="End after this long.")
]


def parse_address(text: str) -> Address:
    """``192.0.2.7:5000`` or ``[2001:db8::7]:5000``; host names are not resolved."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def parse_target(text: str) -> Address:
    """An address that can be sent to: port 0 cannot."""
    address = parse_address(text)
    if address.port == 0:
        raise typer.BadParameter(f"port 0 of {text!r} cannot be sent to")
    return address


def parse_token(text: str) -> signed.Token:
    """A join token, or the file that holds it as @FILE, which `ps` does not show."""
    try:
        if text.startswith("@"):
            text = Path(text[1:]).read_text().strip()
        return signed.Token.parse(text)
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]}: {error.strerror}") from None
    except ValueError as error:  # not text at all is one, too
        raise typer.BadParameter(str(error)) from None
