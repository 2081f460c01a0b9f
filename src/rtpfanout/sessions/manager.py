"""SessionManager: the rules about sessions; the only caller of Engine's control calls."""

from __future__ import annotations

import bisect
import re
import threading
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING

from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
)
from rtpfanout.model import MediaType
from rtpfanout.policy import SOURCE_FIELD, SUBSCRIBER_FIELD
from rtpfanout.sessions.admission import Admission, read_address, read_batch
from rtpfanout.sessions.cursor import CursorKind
from rtpfanout.sessions.views import (
    LatencySummary,
    Session,
    SessionLatency,
    SessionStats,
    SessionView,
    SubscriberView,
    stats_of,
    view_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rtpfanout._fastpath import Engine
    from rtpfanout.model import Address
    from rtpfanout.policy import AddressPolicy

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000

_BY_SEQUENCE = attrgetter("sequence")
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # RFC 9562 section 4


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SessionManager:
    """Creates, finds and ends sessions. Every method may be called from any thread.

    Everything raised is of `errors.py`. The lock guards the three indexes and the
    totals; it is never held while the engine waits for a grace period, so a delete
    or a removal holds nobody up.
    """

    def __init__(
        self,
        engine: Engine,
        policy: AddressPolicy,
        *,
        max_sessions: int,
        max_subscribers: int,
        session_timeout_ns: int,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        utc_now: Callable[[], datetime] = _utc_now,
    ) -> None:
        """`max_sessions` and `max_subscribers` are the engine's; a timeout of 0 means never."""
        self._engine = engine
        self._policy = policy
        self._admission = Admission(policy)
        self._max_sessions = max_sessions
        self._max_subscribers = max_subscribers
        self._session_timeout_ns = session_timeout_ns
        self._monotonic_ns = monotonic_ns
        self._utc_now = utc_now
        self._lock = threading.Lock()
        self._by_id: dict[str, Session] = {}
        self._by_handle: dict[int, Session] = {}
        self._in_order: list[Session] = []  # by sequence, which only grows
        self._total_subscribers = 0
        self._created_total = 0
        self._deleted_total = 0
        self._expired_total = 0

    @property
    def active_sessions(self) -> int:
        """Sessions that exist, whether packets arrive or not."""
        return len(self._by_id)

    @property
    def total_subscribers(self) -> int:
        """Subscribers of all sessions."""
        return self._total_subscribers

    @property
    def created_total(self) -> int:
        """Sessions created since the start."""
        return self._created_total

    @property
    def deleted_total(self) -> int:
        """Sessions deleted by a call since the start."""
        return self._deleted_total

    @property
    def expired_total(self) -> int:
        """Sessions removed by the idle timeout since the start."""
        return self._expired_total

    def create(self, source_text: str, ssrc: int, media_type: str) -> SessionView:
        """Let packets of `ssrc` from `source_text` in; the session has no subscriber yet.

        Raises InvalidArgumentError, AlreadyExistsError (same SSRC and source), LimitError,
        and what the address policy raises.
        """
        source = read_address(source_text, SOURCE_FIELD)
        kind = _media_type(media_type)
        if not 0 <= ssrc <= 0xFFFFFFFF:
            raise InvalidArgumentError(f"{ssrc} is not 0 to {0xFFFFFFFF}", field="ssrc")
        self._policy.check_source(source)
        with self._lock:
            now = self._monotonic_ns()
            handle = self._engine_add_session(source, ssrc, now)
            self._created_total += 1
            session = Session(
                session_id=str(uuid.uuid4()),
                sequence=self._created_total,
                handle=handle,
                source=source,
                ssrc=ssrc,
                media_type=kind,
                created_at=self._utc_now(),
                created_ns=now,
            )
            self._by_id[session.session_id] = session
            self._by_handle[handle] = session
            self._in_order.append(session)
            return self._view(session, now)

    def get(self, session_id: str) -> SessionView:
        """Raises InvalidArgumentError (not a UUID), NotFoundError."""
        with self._found(session_id) as session:
            return self._view(session, self._monotonic_ns())

    def list_page(self, limit: int = 0, cursor: str = "") -> tuple[list[SessionView], str]:
        """Up to `limit` sessions, oldest first, and the cursor of the next page, or "".

        A limit of 0 means DEFAULT_PAGE, more than LARGEST_PAGE means LARGEST_PAGE. Sessions
        that exist throughout appear exactly once, whatever comes and goes between pages.
        Raises InvalidArgumentError.
        """
        size = _page_size(limit)
        after = CursorKind.SESSIONS.read(cursor)
        with self._lock:
            start = bisect.bisect_right(self._in_order, after, key=_BY_SEQUENCE)
            page = self._in_order[start : start + size]
            is_last = start + size >= len(self._in_order)
            now = self._monotonic_ns()
            views = [self._view(session, now) for session in page]
        return views, "" if is_last else CursorKind.SESSIONS.write(page[-1].sequence)

    def delete(self, session_id: str) -> None:
        """Returns when no further packet of the session will leave.

        Of concurrent calls for one session exactly one succeeds. Raises
        InvalidArgumentError, NotFoundError.
        """
        with self._found(session_id) as session:
            self._forget(session)
            self._deleted_total += 1
        self._engine.remove_session(session.handle)

    def add_subscriber(self, session_id: str, address_text: str) -> bool:
        """Copy the session to `address_text` too; True if it was not a subscriber before.

        Raises InvalidArgumentError, NotFoundError, LimitError, AddressDeniedError.
        """
        return self._add(session_id, self._admission.record(address_text)) == 1

    def add_subscribers(self, session_id: str, address_texts: Sequence[str]) -> int:
        """The same for 1 to LARGEST_BATCH addresses, all or none; how many are new."""
        return self._add(session_id, self._admission.records(address_texts))

    def remove_subscriber(self, session_id: str, address_text: str) -> None:
        """Returns when no further packet will leave to `address_text`.

        Raises InvalidArgumentError, NotFoundError (session or subscriber).
        """
        address = read_address(address_text, SUBSCRIBER_FIELD)
        if not all(self._remove(session_id, [address])):
            raise NotFoundError(
                f"session {session_id} has no subscriber {address}", field=SUBSCRIBER_FIELD
            )

    def remove_subscribers(self, session_id: str, address_texts: Sequence[str]) -> list[str]:
        """The same for 1 to LARGEST_BATCH addresses; those that were no subscribers.

        Raises InvalidArgumentError, NotFoundError (session).
        """
        addresses = read_batch(address_texts, lambda text: read_address(text, SUBSCRIBER_FIELD))
        found = self._remove(session_id, addresses)
        return [text for text, was_there in zip(address_texts, found, strict=True) if not was_there]

    def list_subscribers(
        self, session_id: str, limit: int = 0, cursor: str = ""
    ) -> tuple[list[SubscriberView], str]:
        """Up to `limit` subscribers, in order of arrival, and the next page's cursor, or "".

        Limits and stability are those of `list_page`. Raises InvalidArgumentError, NotFoundError.
        """
        size = _page_size(limit)
        after_ns = CursorKind.SUBSCRIBERS.read(cursor)
        with self._found(session_id) as session:
            rows = self._engine.subscribers(session.handle, after_ns, size + 1)
        page = rows[:size]
        views = [
            SubscriberView(
                address=address,
                # By the session's creation, so that two looks never tell two times.
                since=session.created_at
                + timedelta(microseconds=(since - session.created_ns) // 1000),
                packets_sent=sent,
                send_failures=failures,
            )
            for address, since, sent, failures, *_ in page
        ]
        return views, CursorKind.SUBSCRIBERS.write(page[-1][1]) if len(rows) > size else ""

    def stats(self, session_id: str) -> SessionStats:
        """Raises InvalidArgumentError, NotFoundError."""
        with self._found(session_id) as session:
            now = self._monotonic_ns()
            return stats_of(session, self._engine.session_stats(session.handle, now), now)

    def latency(self, session_id: str) -> SessionLatency:
        """Raises InvalidArgumentError, NotFoundError."""
        with self._found(session_id) as session:
            (first, _), (last, _) = self._engine.session_latency(session.handle)
        return SessionLatency(LatencySummary.of(first), LatencySummary.of(last))

    def all_stats(self) -> list[tuple[SessionView, SessionStats]]:
        """Every session with its counters, oldest first, read in one pass over the engine."""
        now = self._monotonic_ns()
        with self._lock:
            counters = self._engine.all_session_stats(now)
            sessions = list(self._in_order)
        return [
            (view_of(session, values, now), stats_of(session, values, now))
            for session in sessions
            if (values := counters.get(session.handle)) is not None
        ]

    def expire_idle(self) -> list[SessionView]:
        """Housekeeping, about once a second: ends sessions past the idle timeout.

        Waits for a grace period per session. Returns them as they were.
        """
        now = self._monotonic_ns()
        expired = []
        for handle in self._engine.tick(now, self._session_timeout_ns):
            with self._lock:
                session = self._by_handle.get(handle)
                if session is None:
                    continue  # deleted by a call meanwhile
                expired.append(self._view(session, now))
                self._forget(session)
                self._expired_total += 1
            self._engine.remove_session(handle)
        return expired

    @contextmanager
    def _found(self, session_id: str) -> Iterator[Session]:
        """The session under the lock. Raises InvalidArgumentError, NotFoundError."""
        canonical = _session_id(session_id)
        with self._lock:
            session = self._by_id.get(canonical)
            if session is None:
                raise NotFoundError(f"no session {canonical}", field="session_id")
            yield session

    def _forget(self, session: Session) -> None:
        """No call finds it from here on. The lock is held."""
        del self._by_id[session.session_id]
        del self._by_handle[session.handle]
        del self._in_order[bisect.bisect_left(self._in_order, session.sequence, key=_BY_SEQUENCE)]
        self._total_subscribers -= session.subscribers

    def _view(self, session: Session, now_ns: int) -> SessionView:
        return view_of(session, self._engine.session_stats(session.handle, now_ns), now_ns)

    def _engine_add_session(self, source: Address, ssrc: int, now_ns: int) -> int:
        try:
            return self._engine.add_session(source, ssrc, now_ns)
        except FileExistsError:
            raise AlreadyExistsError(
                f"a session with SSRC {ssrc:#010x} from {source} exists", field="ssrc"
            ) from None
        except BlockingIOError:
            raise LimitError(
                f"there are {self._max_sessions} sessions, as many as max_sessions allows",
                field="max_sessions",
                limit=self._max_sessions,
            ) from None

    def _add(self, session_id: str, records: bytes) -> int:
        """How many of the subscribers are new."""
        with self._found(session_id) as session:
            now = self._monotonic_ns()
            try:
                added = self._engine.add_packed_subscribers(session.handle, records, now)
            except BlockingIOError:
                raise LimitError(
                    f"session {session.session_id} has {session.subscribers} subscribers, and would"
                    f" have more than the {self._max_subscribers} of max_fanout_per_session",
                    field="max_fanout_per_session",
                    limit=self._max_subscribers,
                ) from None
            session.subscribers += added
            self._total_subscribers += added
            return added

    def _remove(self, session_id: str, addresses: list[Address]) -> list[bool]:
        """Which of them were subscribers; waits for a grace period without the lock."""
        with self._found(session_id) as session:
            pass
        try:
            found = self._engine.remove_subscribers(session.handle, addresses)
        except KeyError:  # deleted meanwhile
            raise NotFoundError(f"no session {session.session_id}", field="session_id") from None
        removed = sum(found)
        with self._lock:
            # The count of a session deleted meanwhile left the total as a whole.
            if self._by_id.get(session.session_id) is session:
                session.subscribers -= removed
                self._total_subscribers -= removed
        return found


def _page_size(limit: int) -> int:
    if limit < 0:
        raise InvalidArgumentError(f"{limit} is negative", field="limit")
    return min(limit or DEFAULT_PAGE, LARGEST_PAGE)


def _media_type(text: str) -> MediaType:
    try:
        return MediaType(text)
    except ValueError:
        shown = repr(text if len(text) <= 80 else text[:77] + "...")
        raise InvalidArgumentError(
            f"{shown} is not audio, video or data", field="media_type"
        ) from None


def _session_id(text: str) -> str:
    """In lower case; the other spellings that uuid.UUID takes are refused."""
    canonical = text.lower()
    if _UUID.fullmatch(canonical) is None:
        shown = repr(text if len(text) <= 80 else text[:77] + "...")
        raise InvalidArgumentError(f"{shown} is not a UUID", field="session_id")
    return canonical
