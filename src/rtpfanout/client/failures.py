"""The error of `errors.py` that a failed call stands for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from rtpfanout.errors import (
    CODES,
    AddressDeniedError,
    AlreadyExistsError,
    InvalidArgumentError,
    NotKnownError,
    PreconditionError,
    RtpFanoutError,
    StreamRefusedError,
    UnavailableError,
    UnimplementedError,
    UnknownNameError,
    UnreachableError,
    Violation,
    codes_of,
)

if TYPE_CHECKING:
    from google.rpc import status_pb2

_ERRORS: dict[str, type[RtpFanoutError]] = {
    codes.status: kind
    for kind, codes in CODES.items()
    # To a client the first is a kind of PermissionDeniedError; the others have their reasons.
    if kind not in (AddressDeniedError, UnknownNameError, NotKnownError, PreconditionError)
} | {
    grpc.StatusCode.OUT_OF_RANGE.name: InvalidArgumentError,
    grpc.StatusCode.INTERNAL.name: RtpFanoutError,
}
_REFUSED = re.compile(r"\bRST_STREAM with error code 7\b")


def translated(error: grpc.RpcError, target: str) -> RtpFanoutError:
    """`error` of a call to `target`, with the fields at fault from its details."""
    call: Any = error
    code, message = call.code(), call.details() or ""
    status = _status(call)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return UnimplementedError(
            f"the server at {target} is older and does not know this call; upgrade it"
        )
    if code is grpc.StatusCode.UNAVAILABLE and _is_refused(call, message):
        return StreamRefusedError(
            f"{target} takes no more calls at a time of this connection; make fewer, or use "
            "another client",
            retry_after=0.0,
        )
    if code is grpc.StatusCode.UNAVAILABLE and (retry := _retry_info(status)) is not None:
        return UnavailableError(message, retry_after=retry)
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        reason = _reason(message)
        return UnreachableError(
            f"no answer from {target} ({reason}); "
            f"check that the server runs and that this is its gRPC address{_tls_advice(reason)}",
            timed_out=code is grpc.StatusCode.DEADLINE_EXCEEDED,
        )
    kind = _ERRORS.get(code.name, RtpFanoutError)
    at_fault = _detail(status, error_details_pb2.BadRequest).field_violations
    if any(each.reason == codes_of(UnknownNameError("")).reason for each in at_fault):
        kind = UnknownNameError
    info = _detail(status, error_details_pb2.ErrorInfo)
    for special in (NotKnownError, PreconditionError):
        if info.reason == codes_of(special("")).reason:
            kind = special
    if kind is RtpFanoutError:
        message = f"{code.name}: {message}"
    violations = _violations(status, message)
    if len(violations) == 1:
        (violation,) = violations
        failure = kind(violation.message, field=violation.field or None)
    else:
        field = violations[0].field if violations else None
        failure = kind(message, field=field, violations=violations)
    if isinstance(failure, AlreadyExistsError):
        metadata = _detail(status, error_details_pb2.ErrorInfo).metadata
        failure.session_id = metadata.get("session_id", "")
    return failure


def of_stream(error: grpc.RpcError, target: str) -> RtpFanoutError | None:
    """`translated`; None for a stream that we ended ourselves."""
    code = error.code()
    return None if code is grpc.StatusCode.CANCELLED else translated(error, target)


def _is_refused(call: Any, message: str) -> bool:
    """REFUSED_STREAM: "no application processing occurred" (RFC 9113 sections 7 and 8.7).

    gRPC only says so in words. A server that had looked at the call would have sent metadata.
    """
    said_something = call.initial_metadata() or call.trailing_metadata()
    return bool(_REFUSED.search(message)) and not said_something


def _status(call: Any) -> status_pb2.Status | None:
    try:
        return rpc_status.from_call(call)
    except ValueError:  # the trailer contradicts the status: do not trust it
        return None


def _detail(status: status_pb2.Status | None, kind: type[Any]) -> Any:
    """The first of this kind; an empty one where there is none."""
    found = kind()
    any(detail.Unpack(found) for detail in (status.details if status is not None else ()))
    return found


def _retry_info(status: status_pb2.Status | None) -> float | None:
    """Seconds after which the server asks to be called again."""
    info = error_details_pb2.RetryInfo()
    for detail in status.details if status is not None else ():
        if detail.Unpack(info):
            return max(0.0, float(info.retry_delay.ToNanoseconds()) / 1e9)
    return None


def _violations(status: status_pb2.Status | None, message: str) -> tuple[Violation, ...]:
    """The fields at fault (google.rpc). A BadRequest has its own words, else `message`."""
    bad_request = error_details_pb2.BadRequest()
    quota = error_details_pb2.QuotaFailure()
    info = error_details_pb2.ErrorInfo()
    found: tuple[Violation, ...] = ()
    for detail in status.details if status is not None else ():
        if detail.Unpack(bad_request) and bad_request.field_violations:
            return tuple(
                Violation(violation.field, violation.description or message)
                for violation in bad_request.field_violations
            )
        if detail.Unpack(quota) and quota.violations:
            found = (Violation(quota.violations[0].subject, message),)
        elif detail.Unpack(info) and "field" in info.metadata:
            found = (Violation(info.metadata["field"], message),)
    return found


def _tls_advice(reason: str) -> str:
    """A server with TLS just closes a connection that it does not like, for whatever reason."""
    if "refused" in reason:  # nobody listens
        return ""
    return (
        ", and whether it wants TLS and which certificate"
        " (RTP_FANOUT_CA_FILE, RTP_FANOUT_CERT_FILE, RTP_FANOUT_KEY_FILE)"
    )


def _reason(details: str) -> str:
    """The system's own words at the end of gRPC's, such as "Connection refused"."""
    reason = details.splitlines()[0].rpartition(": ")[2] if details else "no reason given"
    reason = reason if "[" in reason else reason.rstrip("]")  # of a list that began before
    return "connection closed" if reason == "OK" else reason  # as a failed handshake can end
