"""Addresses on the command line."""

import typer

from rtpfanout.model import Address


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
