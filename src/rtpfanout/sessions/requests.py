"""Request ids: the same call with the same id is carried out once and answered alike.

An answer is written to the store in the transaction of its change, so that one is never there
without the other. While a call is under way, another with its id waits for the outcome: it
gets the same answer or, if the first failed, is carried out itself. Calls that fail leave
nothing behind. The last 65,536 answers of the last ten minutes are known.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.sessions.fields import request_id_of
from rtpfanout.store import StoredAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

KEPT = 65_536
KEPT_SECS = 600.0


class Once:
    """A call with an id, or without: `earlier` is what was answered before, if it was."""

    def __init__(self, request_id: str, digest: bytes, earlier: str | None, expires: float) -> None:
        self.earlier = earlier
        self.given: StoredAnswer | None = None
        self._request_id = request_id
        self._digest = digest
        self._expires = expires

    @property
    def has_id(self) -> bool:
        """Whether its answer is kept."""
        return bool(self._request_id)

    def answer(self, text: str) -> StoredAnswer | None:
        """What to write to the store with the change, if anything."""
        if self._request_id:
            self.given = StoredAnswer(self._request_id, self._digest, text, self._expires)
        return self.given


class Requests:
    """The answers. Thread-safe."""

    def __init__(self, now: Callable[[], float], kept: int = KEPT) -> None:
        """`now` is in seconds since the epoch."""
        self._now = now
        self._kept = kept
        self._changed = threading.Condition()
        self._answers: OrderedDict[str, StoredAnswer] = OrderedDict()  # oldest first
        self._under_way: dict[str, bytes] = {}

    def restore(self, answers: Iterable[StoredAnswer]) -> None:
        """What the store had, oldest first."""
        with self._changed:
            for answer in answers:
                self._answers[answer.request_id] = answer
            self._forget_old()

    @contextmanager
    def once(self, method: str, request_id: str, *arguments: object) -> Iterator[Once]:
        """For the length of a call. Waits while another call with the id is under way.

        Raises InvalidArgumentError: the id stands for another call.
        """
        request_id = request_id_of(request_id)
        if not request_id:
            yield Once("", b"", None, 0)
            return
        digest = hashlib.sha256(repr((method, arguments)).encode()).digest()
        earlier = self._enter(request_id, digest)
        once = Once(request_id, digest, earlier, self._now() + KEPT_SECS)
        if earlier is not None:
            yield once
            return
        is_done = False
        try:
            yield once
            is_done = True
        finally:
            with self._changed:
                del self._under_way[request_id]
                if is_done and once.given is not None:
                    self._answers[request_id] = once.given
                    self._forget_old()
                self._changed.notify_all()

    def _enter(self, request_id: str, digest: bytes) -> str | None:
        with self._changed:
            while True:
                self._forget_old()
                answer = self._answers.get(request_id)
                known = answer.digest if answer else self._under_way.get(request_id)
                if known is not None and known != digest:
                    raise InvalidArgumentError(
                        f"it was the id of another call within the last"
                        f" {KEPT_SECS / 60:g} minutes; give each call an id of its own",
                        field="request_id",
                    )
                if answer is not None:
                    return answer.text
                if known is None:
                    self._under_way[request_id] = digest
                    return None
                self._changed.wait()

    def _forget_old(self) -> None:
        now = self._now()
        while self._answers:
            oldest = next(iter(self._answers.values()))
            if oldest.expires > now and len(self._answers) <= self._kept:
                return
            del self._answers[oldest.request_id]
