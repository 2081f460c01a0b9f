"""Request ids: the same call with the same id is carried out once and answered alike.

An answer is written to the store in the transaction of its change, so that one is never there
without the other. While a call is under way, another with its id waits for the outcome: it
gets the same answer or, if the first failed, is carried out itself. Calls that fail leave
nothing behind. The last 65,536 answers of the last ten minutes are known.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rtpfanout.errors import InvalidArgumentError
from rtpfanout.sessions.fields import request_id_of
from rtpfanout.store import StoredAnswer

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


NO_ID = Once("", b"", None, 0)
"""Of what nobody can ask for twice."""


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
    def once(self, method: str, request_id: str, **said: object) -> Iterator[Once]:
        """For the length of a call. Waits while another call with the id is under way.

        `said` is what the request says, by the names of session.proto (see `digest_of`).
        Raises InvalidArgumentError: the id stands for another call.
        """
        request_id = request_id_of(request_id)
        if not request_id:
            yield NO_ID
            return
        digest = digest_of(method, said)
        earlier = self._enter(request_id, digest, lambda: digest_before(method, said))
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

    def _enter(
        self, request_id: str, digest: bytes, before: Callable[[], bytes | None]
    ) -> str | None:
        with self._changed:
            while True:
                self._forget_old()
                answer = self._answers.get(request_id)
                known = answer.digest if answer else self._under_way.get(request_id)
                if known is not None and known != digest and known != before():
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


def digest_of(method: str, said: Mapping[str, object]) -> bytes:
    """The same for the same request, whatever version of us is asked, in whatever words.

    Over the names and values of the request as JSON, by name. What is empty counts as not said,
    so that a field that comes later changes nothing; but not within a mapping, as `changes` is.
    """
    content = {name: _plain(value) for name, value in said.items() if value}
    text = json.dumps([method, content], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()


def _plain(value: object) -> object:
    """As JSON has it; a number is the same with and without a fraction of 0."""
    match value:
        case bytes():
            return value.hex()
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _plain(each) for name, each in value.items()}
        case _:
            return value


_TIMES = ("latch_window_secs", "relatch_after_secs")
_TERMS = ("labels", "ingest_limit_bps", "max_subscribers", "consent", "move_key")
_CHANGES = ("source_address", "source_policy", *_TIMES, "paused", *_TERMS[1:], "labels")
_LEASE = ("ttl_secs", "subscriber_class")
_SPELLED: Mapping[str, tuple[str | tuple[str, ...], ...]] = {
    "CreateSession": (("source_policy", "source_address", *_TIMES), "ssrc", "media_type"),
    "UpdateSession": ("session_id",),
    "DeleteSession": ("session_id",),
    "AddSubscriber": ("session_id", "subscriber_address", *_LEASE),
    "BatchAddSubscribers": ("session_id", "subscriber_addresses", *_LEASE),
    "RemoveSubscriber": ("session_id", "subscriber_address"),
    "BatchRemoveSubscribers": ("session_id", "subscriber_addresses"),
}
_EMPTY: Mapping[str, object] = {
    **dict.fromkeys(("source_policy", "source_address", "media_type", "consent"), ""),
    **dict.fromkeys((*_TIMES, "ttl_secs"), 0.0),
    **dict.fromkeys(("ssrc", "ingest_limit_bps", "max_subscribers", "if_revision"), 0),
    "subscriber_class": "",
    "move_key": b"",
    "labels": {},
    "changes": {},
    **dict.fromkeys(("session_id", "subscriber_address", "subscriber_addresses"), ""),
}


def digest_before(method: str, said: Mapping[str, object]) -> bytes | None:
    """The digest as versions with layout 1 of the store wrote it, over how their code spelled the
    arguments; None of a request that they could not have got.
    """
    values: dict[str, Any] = {**_EMPTY, **said}
    changes = values["changes"]
    if {name for name, value in said.items() if value} - _EMPTY.keys() or changes.keys() - {
        *_CHANGES
    }:
        return None
    arguments: tuple[object, ...] = tuple(
        values[name] if isinstance(name, str) else tuple(values[each] for each in name)
        for name in _SPELLED.get(method, ())
    )
    if method == "CreateSession":
        arguments += ({name: values[name] for name in _TERMS},)
    elif method == "UpdateSession":
        ordered = {name: changes[name] for name in _CHANGES if name in changes}
        arguments += (ordered, values["if_revision"])
    return hashlib.sha256(repr((method, arguments)).encode()).digest()
