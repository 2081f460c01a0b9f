"""Addresses on the command line."""

import typer

from rtpfanout.model import Address


def parse_address(text: str) -> Address:
    """``192.0.2.7:5000`` or ``[2001:db8::7]:5000``; host names are not resolved."""
    try:
        return Address.parse(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
