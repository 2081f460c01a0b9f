"""The one table of errors: each has its place in it, and the two sides of a wire agree."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, cast

import grpc
import pytest

from rtpfanout import convert, errors
from rtpfanout.client.failures import translated
from rtpfanout.errors import CODES, ExitCode, RtpFanoutError, codes_of, of_denial
from rtpfanout.signed import Reason

if TYPE_CHECKING:
    from google.rpc import status_pb2

ERRORS = [
    kind
    for _name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, RtpFanoutError)
]
OF_CLIENTS = {errors.UnreachableError, errors.UnimplementedError, errors.StreamRefusedError}
OF_STARTS = {errors.ConfigError, errors.StartError}


class FailedCall:
    """As grpc has it, of a call that a server answered with `status`."""

    def __init__(self, status: status_pb2.Status) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return next(code for code in grpc.StatusCode if code.value[0] == self._status.code)

    def details(self) -> str:
        return self._status.message

    def initial_metadata(self) -> None:
        return None

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        return [("grpc-status-details-bin", self._status.SerializeToString())]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_has_a_row_and_every_code_in_it_exists(kind: type[RtpFanoutError]) -> None:
    """A row of its own, or the one of the error that it is a kind of."""
    assert kind in CODES or kind.__base__ is not RtpFanoutError
    codes = codes_of(kind("why"))
    assert codes.exit_code in set(ExitCode) - {ExitCode.OK}
    assert grpc.StatusCode[codes.status] is not grpc.StatusCode.OK
    assert Reason[codes.denial]


@pytest.mark.parametrize("kind", sorted(set(ERRORS) - OF_CLIENTS - OF_STARTS, key=str))
def test_a_client_raises_what_the_server_raised(kind: type[RtpFanoutError]) -> None:
    status = convert.error_status(kind("why", field="ssrc"))
    error = translated(cast("grpc.RpcError", FailedCall(status)), "a server")
    if kind is errors.AddressDeniedError:
        kind = errors.PermissionDeniedError
    assert type(error) is kind
    if kind is not RtpFanoutError:  # a fault, of which nothing is told
        assert error.message == "why"
        assert error.field == (None if kind is errors.UnavailableError else "ssrc")


@pytest.mark.parametrize("reason", Reason)
def test_every_denial_has_the_error_that_it_stands_for(reason: Reason) -> None:
    assert codes_of(of_denial(reason.name)("why")).denial == reason.name
    assert of_denial(reason.name) in {
        errors.UnauthenticatedError,
        errors.NotFoundError,
        errors.LimitError,
        errors.AddressDeniedError,
        errors.UnavailableError,
    }
