"""SessionManager: the rules about sessions; the only caller of Engine's control calls."""

from __future__ import annotations

import base64
import bisect
import re
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING

from rtpfanout.errors import (
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
)
from rtpfanout.model import ACTIVE_WINDOW_NS, Address, MediaType, SessionStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rtpfanout._fastpath import Engine
    from rtpfanout.policy import AddressPolicy

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000

_CURSOR_VERSION = b"\x01"
_CURSOR_BYTES = 9  # version and a 64-bit sequence number: 12 characters without padding
_BY_SEQUENCE = attrgetter("sequence")
_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # RFC 9562 section 4


@dataclass(frozen=True, slots=True)
class SessionView:
    """A session as it was when asked. `created_at` is in UTC."""

    session_id: str
    source: Address
    ssrc: int
    media_type: MediaType
    subscriber_count: int
    created_at: datetime
    status: SessionStatus


@dataclass(frozen=True, slots=True)
class SessionStats:
    """A session's counters since its creation; bytes are of UDP payload."""

    session_id: str
    packets_received: int
    packets_sent: int
    bytes_received: int
    bytes_sent: int
    send_failures: int
    subscriber_count: int
    uptime_seconds: float
    packets_per_second: float
    seconds_since_last_packet: float | None


@dataclass(slots=True)
class _Session:
    """What the engine does not keep; `subscribers` changes under the manager's lock."""

    session_id: str
    sequence: int
    handle: int
    source: Address
    ssrc: int
    media_type: MediaType
    created_at: datetime
    subscribers: int = 0


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
        self._max_sessions = max_sessions
        self._max_subscribers = max_subscribers
        self._session_timeout_ns = session_timeout_ns
        self._monotonic_ns = monotonic_ns
        self._utc_now = utc_now
        self._lock = threading.Lock()
        self._by_id: dict[str, _Session] = {}
        self._by_handle: dict[int, _Session] = {}
        self._in_order: list[_Session] = []  # by sequence, which only grows
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
        source = _address(source_text, "source_address")
        kind = _media_type(media_type)
        if not 0 <= ssrc <= 0xFFFFFFFF:
            raise InvalidArgumentError(f"{ssrc} is not 0 to {0xFFFFFFFF}", field="ssrc")
        self._policy.check_source(source)
        with self._lock:
            handle = self._engine_add_session(source, ssrc)
            self._created_total += 1
            session = _Session(
                session_id=str(uuid.uuid4()),
                sequence=self._created_total,
                handle=handle,
                source=source,
                ssrc=ssrc,
                media_type=kind,
                created_at=self._utc_now(),
            )
            self._by_id[session.session_id] = session
            self._by_handle[handle] = session
            self._in_order.append(session)
            return self._view(session, self._monotonic_ns())

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
        if limit < 0:
            raise InvalidArgumentError(f"{limit} is negative", field="limit")
        size = min(limit or DEFAULT_PAGE, LARGEST_PAGE)
        after = _read_cursor(cursor) if cursor else 0
        with self._lock:
            start = bisect.bisect_right(self._in_order, after, key=_BY_SEQUENCE)
            page = self._in_order[start : start + size]
            is_last = start + size >= len(self._in_order)
            now = self._monotonic_ns()
            views = [self._view(session, now) for session in page]
        return views, "" if is_last else _cursor(page[-1].sequence)

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
        address = _address(address_text, "subscriber_address")
        self._policy.check_subscriber(address)
        with self._found(session_id) as session:
            added = self._engine_add_subscriber(session, address)
            session.subscribers += added
            self._total_subscribers += added
            return added

    def remove_subscriber(self, session_id: str, address_text: str) -> None:
        """Returns when no further packet will leave to `address_text`.

        Raises InvalidArgumentError, NotFoundError (session or subscriber).
        """
        address = _address(address_text, "subscriber_address")
        with self._found(session_id) as session:
            pass
        try:
            self._engine.remove_subscriber(session.handle, address)
        except KeyError:
            with self._found(session_id):  # or else it is the session that is gone
                raise NotFoundError(
                    f"session {session_id} has no subscriber {address}", field="subscriber_address"
                ) from None
        with self._lock:
            # The count of a session deleted meanwhile left the total as a whole.
            if self._by_id.get(session.session_id) is session:
                session.subscribers -= 1
                self._total_subscribers -= 1

    def stats(self, session_id: str) -> SessionStats:
        """Raises InvalidArgumentError, NotFoundError."""
        with self._found(session_id) as session:
            now = self._monotonic_ns()
            return _stats(session, self._engine.session_stats(session.handle, now), now)

    def all_stats(self) -> list[tuple[SessionView, SessionStats]]:
        """Every session with its counters, oldest first, read in one pass over the engine."""
        now = self._monotonic_ns()
        with self._lock:
            counters = self._engine.all_session_stats(now)
            sessions = list(self._in_order)
        return [
            (_view(session, values, now), _stats(session, values, now))
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
    def _found(self, session_id: str) -> Iterator[_Session]:
        """The session under the lock. Raises InvalidArgumentError, NotFoundError."""
        canonical = _session_id(session_id)
        with self._lock:
            session = self._by_id.get(canonical)
            if session is None:
                raise NotFoundError(f"no session {canonical}", field="session_id")
            yield session

    def _forget(self, session: _Session) -> None:
        """No call finds it from here on. The lock is held."""
        del self._by_id[session.session_id]
        del self._by_handle[session.handle]
        del self._in_order[bisect.bisect_left(self._in_order, session.sequence, key=_BY_SEQUENCE)]
        self._total_subscribers -= session.subscribers

    def _view(self, session: _Session, now_ns: int) -> SessionView:
        return _view(session, self._engine.session_stats(session.handle, now_ns), now_ns)

    def _engine_add_session(self, source: Address, ssrc: int) -> int:
        try:
            return self._engine.add_session(source, ssrc, self._monotonic_ns())
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

    def _engine_add_subscriber(self, session: _Session, address: Address) -> bool:
        try:
            return self._engine.add_subscribers(session.handle, [address])[0]
        except BlockingIOError:
            raise LimitError(
                f"session {session.session_id} has {self._max_subscribers} subscribers, "
                "as many as max_fanout_per_session allows",
                field="max_fanout_per_session",
                limit=self._max_subscribers,
            ) from None


def _view(session: _Session, values: Mapping[str, float], now_ns: int) -> SessionView:
    last = values["last_packet_ns"]
    is_active = last > 0 and now_ns - last <= ACTIVE_WINDOW_NS
    return SessionView(
        session_id=session.session_id,
        source=session.source,
        ssrc=session.ssrc,
        media_type=session.media_type,
        subscriber_count=int(values["subscribers"]),
        created_at=session.created_at,
        status=SessionStatus.ACTIVE if is_active else SessionStatus.IDLE,
    )


def _stats(session: _Session, values: Mapping[str, float], now_ns: int) -> SessionStats:
    last = values["last_packet_ns"]
    return SessionStats(
        session_id=session.session_id,
        packets_received=int(values["packets_received"]),
        packets_sent=int(values["packets_sent"]),
        bytes_received=int(values["bytes_received"]),
        bytes_sent=int(values["bytes_sent"]),
        send_failures=int(values["send_failures"]),
        subscriber_count=int(values["subscribers"]),
        uptime_seconds=(now_ns - values["created_ns"]) / 1e9,
        packets_per_second=values["packets_per_second"],
        # A packet may have come in since the clock was read.
        seconds_since_last_packet=max(0.0, (now_ns - last) / 1e9) if last else None,
    )


def _address(text: str, field: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise InvalidArgumentError(str(error), field=field) from None


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


def _cursor(sequence: int) -> str:
    raw = _CURSOR_VERSION + sequence.to_bytes(_CURSOR_BYTES - 1, "big")
    return base64.urlsafe_b64encode(raw).decode()


def _read_cursor(text: str) -> int:
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii"))
    except ValueError:  # UnicodeEncodeError and binascii.Error are kinds of it
        raw = b""
    sequence = int.from_bytes(raw[1:_CURSOR_BYTES], "big")
    if text != _cursor(sequence):  # the decoder overlooks much, the encoder nothing
        raise InvalidArgumentError(
            "not a next_cursor of ListSessions: leave it empty for the first page", field="cursor"
        )
    return sequence
