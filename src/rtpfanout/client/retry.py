"""When a call is made again, and after how long."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from rtpfanout.errors import RtpFanoutError, StreamRefusedError, UnavailableError, UnreachableError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter; times in seconds.

    Retried is only what failed with UNAVAILABLE, and only where twice does what once
    does: reads, and calls with a request id; and any call that the server refused unread,
    which is no attempt, for as long as there is time. `attempts` counts the first one. The delay
    before the n-th retry is drawn from the upper half of `first_delay` * `factor`**(n-1),
    at most `longest_delay`; what the server asks for (google.rpc.RetryInfo) comes on top.
    """

    attempts: int = 5
    first_delay: float = 0.1
    factor: float = 2.0
    longest_delay: float = 2.0

    def delay(self, retry: int, asked: float = 0.0) -> float:
        """Seconds before retry number `retry`, from 1; `asked`: by the server."""
        exponent = min(retry - 1, 64)  # beyond it any factor is past the longest delay
        full = min(self.longest_delay, self.first_delay * self.factor**exponent)
        return asked + full * random.uniform(0.5, 1.0)  # noqa: S311 - it only spreads load


NO_RETRIES = RetryPolicy(attempts=1)


class Attempts:
    """The attempts of one call: how long each may take, and whether there is another."""

    def __init__(
        self, policy: RetryPolicy, repeatable: bool, timeout: float, overall: float
    ) -> None:
        self._policy = policy
        self._repeatable = repeatable
        self._timeout = timeout
        self._deadline = time.monotonic() + overall
        self._made = 0
        self._refused = 0

    def timeout(self) -> float:
        """Of the attempt that begins now, in seconds."""
        self._made += 1
        return max(0.0, min(self._timeout, self._deadline - time.monotonic()))

    def delay_after(self, error: RtpFanoutError) -> float | None:
        """Seconds until the next attempt, or None when `error` is the outcome."""
        is_refused = isinstance(error, StreamRefusedError)
        self._refused += is_refused
        if self._made - self._refused >= self._policy.attempts or self._policy.attempts == 1:
            return None
        if not is_refused and not (self._repeatable and is_passing(error)):
            return None
        delay = self._policy.delay(self._made, asked_delay(error))
        return delay if time.monotonic() + delay < self._deadline else None


def is_passing(error: RtpFanoutError) -> bool:
    """Whether the same call may succeed later: the server said so, or is not there."""
    return isinstance(error, UnavailableError) or (
        isinstance(error, UnreachableError) and not error.timed_out
    )


def asked_delay(error: RtpFanoutError) -> float:
    """What the server asked to wait, in seconds; else 0."""
    return error.retry_after if isinstance(error, UnavailableError) else 0.0
