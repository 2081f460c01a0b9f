"""Everything rtpfanout raises on purpose, as one tree.

Each error carries the offending field (if there is one) and a sentence that
names the next step. CODES, at the end, says what each is where no exception goes: as the status
of a call, as the exit code of a command, and as the answer to a datagram.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One of several faults of a request: the field, such as ``addresses[3]``, and why."""

    field: str
    message: str


class RtpFanoutError(Exception):
    """Base of the tree. `field` is the API field or configuration key at fault.

    `violations` names each entry at fault of a request with many, `field` the first.
    """

    def __init__(
        self, message: str, *, field: str | None = None, violations: tuple[Violation, ...] = ()
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.violations = violations


class ConfigError(RtpFanoutError):
    """The configuration cannot be used: unknown key, bad value, missing file."""


class StartError(RtpFanoutError):
    """The server cannot start: port in use, no permission, wrong platform."""


class InvalidArgumentError(RtpFanoutError):
    """A request field is malformed."""


class AlreadyExistsError(RtpFanoutError):
    """A session with this SSRC and source, or of this name, exists: that of `session_id`, if the
    caller may know it.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        violations: tuple[Violation, ...] = (),
        session_id: str = "",
    ) -> None:
        super().__init__(message, field=field, violations=violations)
        self.session_id = session_id


class NotFoundError(RtpFanoutError):
    """No such session or subscriber."""


class UnknownNameError(InvalidArgumentError, NotFoundError):
    """No session has this name.

    Callers of the first version, which knew no names, get the status that they ever got for a text
    that is no UUID; others can tell by the reason.
    """


class LimitError(RtpFanoutError):
    """max_sessions or max_fanout_per_session is reached. `limit` is its value."""

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        violations: tuple[Violation, ...] = (),
        limit: int = 0,
    ) -> None:
        super().__init__(message, field=field, violations=violations)
        self.limit = limit


class RefusedError(RtpFanoutError):
    """The session is kept, but the configuration of today refuses it, so nothing is served."""


class NotKnownError(RtpFanoutError):
    """Nobody knows it yet: packets of the source would tell, or whoever says it."""


class PreconditionError(RtpFanoutError):
    """The call is right, and the session is not as it would have to be for it."""


class AddressDeniedError(RtpFanoutError):
    """The address policy does not let traffic be aimed at this address."""


class UnavailableError(RtpFanoutError):
    """Nothing was changed, and the same call may succeed after `retry_after` seconds."""

    def __init__(self, message: str, *, field: str | None = None, retry_after: float = 1.0) -> None:
        super().__init__(message, field=field)
        self.retry_after = retry_after


class StreamRefusedError(UnavailableError):
    """A client call that the server never looked at: the connection has as many as it takes."""


class AbortedError(RtpFanoutError):
    """The session has changed since the revision that the caller named."""


class UnauthenticatedError(RtpFanoutError):
    """The call has no credentials, or none that are good."""


class UnimplementedError(RtpFanoutError):
    """The server is older than the client and does not know the call."""


class UnreachableError(RtpFanoutError):
    """A client call got no answer: nobody is there or, `timed_out`, not within its deadline."""

    def __init__(self, message: str, *, field: str | None = None, timed_out: bool = False) -> None:
        super().__init__(message, field=field)
        self.timed_out = timed_out


class PermissionDeniedError(RtpFanoutError):
    """The caller may not do this: its role, or to a client also the address policy."""


class ExitCode(enum.IntEnum):
    """What a command ends with."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_FOUND = 3
    UNREACHABLE = 4
    DENIED = 5


@dataclass(frozen=True, slots=True)
class Codes:
    """What an error is to those who don't get the exception itself."""

    exit_code: ExitCode
    status: str = "INTERNAL"
    """Of the call, by gRPC's name; INTERNAL: a caller learns no more."""
    reason: str = ""
    """Of google.rpc.ErrorInfo; empty where another detail says it."""
    denial: str = "ADDRESS"
    """The answer to a JOIN or a MOVE, by the name of `signed.Reason`."""


CODES: dict[type[RtpFanoutError], Codes] = {
    AddressDeniedError: Codes(ExitCode.DENIED, "PERMISSION_DENIED", "ADDRESS_DENIED"),
    PermissionDeniedError: Codes(ExitCode.DENIED, "PERMISSION_DENIED", "ROLE"),
    UnauthenticatedError: Codes(ExitCode.DENIED, "UNAUTHENTICATED", "UNAUTHENTICATED", "EXPIRED"),
    NotFoundError: Codes(ExitCode.NOT_FOUND, "NOT_FOUND", "NOT_FOUND", "NO_SESSION"),
    UnknownNameError: Codes(
        ExitCode.NOT_FOUND, "INVALID_ARGUMENT", "UNKNOWN_NAME", denial="NO_SESSION"
    ),
    UnavailableError: Codes(ExitCode.UNREACHABLE, "UNAVAILABLE", denial="UNAVAILABLE"),
    RefusedError: Codes(ExitCode.FAILURE, "FAILED_PRECONDITION", "REFUSED", "UNAVAILABLE"),
    NotKnownError: Codes(ExitCode.FAILURE, "FAILED_PRECONDITION", "NOT_KNOWN_YET"),
    PreconditionError: Codes(ExitCode.FAILURE, "FAILED_PRECONDITION", "PRECONDITION"),
    LimitError: Codes(ExitCode.FAILURE, "RESOURCE_EXHAUSTED", denial="LIMIT"),
    InvalidArgumentError: Codes(ExitCode.USAGE, "INVALID_ARGUMENT"),
    AlreadyExistsError: Codes(ExitCode.FAILURE, "ALREADY_EXISTS", "SESSION_EXISTS"),
    AbortedError: Codes(ExitCode.FAILURE, "ABORTED", "REVISION"),
    # No server tells these.
    UnimplementedError: Codes(ExitCode.FAILURE),
    UnreachableError: Codes(ExitCode.UNREACHABLE),
    ConfigError: Codes(ExitCode.USAGE),
    StartError: Codes(ExitCode.USAGE),
    RtpFanoutError: Codes(ExitCode.FAILURE),
}
"""Of two with the same answer to a datagram the first is what a receiver makes of it."""


def codes_of(error: RtpFanoutError) -> Codes:
    """The row of its class, or of the nearest class above."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def of_denial(denial: str) -> type[RtpFanoutError]:
    """What a receiver or a source is told by this answer, a name of `signed.Reason`."""
    return next(kind for kind, codes in CODES.items() if codes.denial == denial)
