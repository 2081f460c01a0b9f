"""SessionManager: the rules about sessions; the only caller of Engine's control calls."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Unpack

from rtpfanout.errors import UnavailableError
from rtpfanout.ingest_ports import IngestPorts
from rtpfanout.overload import HighWater
from rtpfanout.sessions import fields, tokens
from rtpfanout.sessions.asked import new_terms, said_terms
from rtpfanout.sessions.changes import UNWRITTEN, ChangeLog
from rtpfanout.sessions.clock import Clock
from rtpfanout.sessions.conditions import Conditions
from rtpfanout.sessions.consent import Consents
from rtpfanout.sessions.deadlines import Deadlines
from rtpfanout.sessions.describing import Describing, with_sdp
from rtpfanout.sessions.guests import Guests
from rtpfanout.sessions.health import Health
from rtpfanout.sessions.history import History
from rtpfanout.sessions.housekeeping import Housekeeping
from rtpfanout.sessions.journal import Journal
from rtpfanout.sessions.judge import Judge
from rtpfanout.sessions.kept import RefusedSessions
from rtpfanout.sessions.knocks import Knock, knocks
from rtpfanout.sessions.life import Life
from rtpfanout.sessions.overview import Overview
from rtpfanout.sessions.pages import Wanted, all_stats, sessions_page
from rtpfanout.sessions.reaching import Reaching
from rtpfanout.sessions.removal import Removal
from rtpfanout.sessions.renumbering import Renumbering
from rtpfanout.sessions.reporting import request_keyframe, with_feedback
from rtpfanout.sessions.requests import Requests
from rtpfanout.sessions.restore import Restoring
from rtpfanout.sessions.rules import Rules
from rtpfanout.sessions.shedding import Shedding
from rtpfanout.sessions.signals import Signals
from rtpfanout.sessions.state import State
from rtpfanout.sessions.subscribers import Subscribers
from rtpfanout.sessions.updating import Updating
from rtpfanout.sessions.views import (
    LatencySummary,
    SessionStats,
    SessionView,
    SubscriberView,
    stats_of,
)
from rtpfanout.sessions.zones import Zones

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rtpfanout._fastpath import Engine
    from rtpfanout.policy import AddressPolicy
    from rtpfanout.sessions.entry import Restored
    from rtpfanout.sessions.rules import Limits
    from rtpfanout.store import Store

_NO_INTERFACES: Mapping[str, int] = {}


class SessionManager:
    """Creates, finds and ends sessions. Every method may be called from any thread.

    Everything raised is of `errors.py`. What changes something returns when the change is in the
    store and in the engine, and raises UnavailableError, nothing being changed, if the store
    can't take it. Those methods wait, so they are no business of an event loop; all others
    answer at once. Methods with a `request_id` carry out a call once (see `requests`).
    """

    def __init__(
        self,
        engine: Engine,
        policy: AddressPolicy,
        store: Store,
        *,
        limits: Limits,
        ports: IngestPorts | None = None,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`limits.sessions` and `limits.fanout` are the engine's."""
        self._utc_now = utc_now
        self._clock = Clock(monotonic_ns, utc_now, store.kept_clock)
        self.store = store
        store.keep_clock(self._clock.kept)
        # A store that is new begins at the time, in µs: a watcher of what was here before it
        # must not find its revision among ours.
        first = store.revision or int(utc_now().timestamp() * 1e6)
        self.changes = ChangeLog(first + UNWRITTEN)
        self._engine, clock, log = engine, self._clock, self.changes
        self._rules = rules = Rules(policy, limits)
        self._state = state = State(engine, clock)
        self.events = state.events
        self._requests = Requests(clock.wall_secs)
        water = HighWater(limits.overload)
        journal = Journal(store, log)
        self._zones, self._health = (zones := Zones(journal)), Health(engine)
        self._consents = consents = Consents(state, engine, journal, zones)
        due: Deadlines[int] = Deadlines()
        self.ports = ports or IngestPorts.none(engine)
        core = state, engine, clock, rules, self.ports
        subscribers = Subscribers(*core, journal, zones, water, due, consents)
        updating = Updating(*core, journal, log, zones, consents)
        life = Life(*core, journal, log, zones, water, subscribers)
        self.describing, self.reaching = Describing(*core), Reaching(*core)
        self.guests = Guests(*core, subscribers, self.describing)
        self.overview = Overview(*core, History(engine, clock.monotonic_ns))
        self._subscribers, self._updating, self._life = subscribers, updating, life

        def new_restoring() -> Restoring:
            return Restoring(*core, journal, subscribers, consents, zones, due)

        self._new_restoring = new_restoring
        self._restoring: Restoring | None = None
        self._refused = refused = RefusedSessions(*core, journal, log, new_restoring)
        self._removal = Removal(state, self._requests, refused, subscribers)
        self._remove = self._removal.of_records
        self.signals = Signals(*core, store, consents, subscribers, updating, log, self._remove)
        renumbering = Renumbering(*core, journal, zones, consents, subscribers, updating, refused)
        self.conditions = Conditions(*core, log, journal)
        self.housekeeping = Housekeeping(
            *core, store, log, renumbering, water, consents, Shedding(*core), life, subscribers,
            due, Judge(*core), refused, self.conditions,
        )  # fmt: skip

    def restore_packets(self, interfaces: Mapping[str, int] = _NO_INTERFACES) -> None:
        """The engine gets what the store has; `restore` has to follow before any call.

        To be called once, before anything else. `interfaces` has their indexes by their names:
        link-local addresses get the one that their interface has now.
        """
        if interfaces:
            with contextlib.suppress(UnavailableError):  # then they are as they were
                self._zones.restore(self.store.place_interfaces(interfaces))
        self._restoring = self._new_restoring()
        self._restoring.packets(self.store)

    def restore(self) -> Restored:
        """What the store has, for packets and calls. To be called once, before any call."""
        if self._restoring is None:
            self.restore_packets()
        assert self._restoring
        self._requests.restore(self.store.answers())
        restored = self._restoring.calls(self.store)
        self.housekeeping.keep_clock()
        self._restoring = None
        return restored

    def reconfigure(self, policy: AddressPolicy, limits: Limits) -> None:
        """Judge by other rules from now on; Housekeeping.judge_policy applies them to what exists.

        `limits.sessions` and `limits.fanout` must be what they were: they are the engine's.
        """
        with self._state.lock:
            counted = self._rules.limits.subscribers_per_ip
            self._rules.replace(policy, limits)
            if limits.subscribers_per_ip and not counted:
                self._subscribers.count_anew()

    @property
    def active_sessions(self) -> int:
        """Sessions that exist, whether packets arrive or not; refused ones aside."""
        return len(self._state.by_id)

    @property
    def refused(self) -> tuple[int, int]:
        """Sessions and subscribers that are kept, and refused by the configuration."""
        return len(self._state.refused), self._state.refused_subscribers

    @property
    def total_subscribers(self) -> int:
        """Subscribers of all sessions."""
        return self._state.total_subscribers

    @property
    def counts(self) -> Mapping[str, int]:
        """Since the start: sessions "created", "deleted", "expired"; sources "pinned", "moved", and
        pins refused ("pin_refused"); "leases_expired", "consents_lapsed"; "restore_refused" at the
        start, subscribers "refused" since ("loops_withheld", "policy_withheld"), and "readmitted".
        """
        return self._state.counts

    def create(
        self,
        source_address: str,
        ssrc: int,
        media_type: str,
        *,
        request_id: str = "",
        if_exists: str = "",
        **terms: Any,
    ) -> SessionView:
        """Let packets of `ssrc` from `source_address` in; the session has no subscriber yet.

        Every argument is as in CreateSessionRequest of session.proto. Raises
        InvalidArgumentError, AlreadyExistsError (same name, or same SSRC and source), LimitError,
        UnavailableError, and what the address policy raises.
        """
        given = fields.given(source_address=source_address, **terms)
        asked = said_terms(given)
        said = {"ssrc": ssrc, "media_type": media_type, "if_exists": if_exists, **asked}
        with self._requests.once("CreateSession", request_id, **said) as once:
            if once.earlier is not None:
                return SessionView.from_json(once.earlier)
            kind = fields.media_type_of(media_type)
            described_ssrc, given = with_sdp(given, kind)
            or_find = fields.if_exists_of(if_exists)
            new = new_terms(given, self._rules.policy, self._clock.wall_secs())
            return self._life.create(
                fields.ssrc_of(ssrc or described_ssrc), kind, new, once, or_find=or_find
            )

    def update(
        self, session_id: str, *, request_id: str = "", if_revision: int = 0, **terms: Any
    ) -> SessionView:
        """Change what is given and nothing else; a label with an empty value is removed.

        Every argument is as in UpdateSessionRequest; None is not given. Raises as `create`, and
        NotFoundError, AbortedError (`if_revision` is not the session's), AddressDeniedError (the
        new source is a subscriber).
        """
        changes = fields.given(**terms)
        named = fields.session_of(session_id)
        said = {"session_id": named, "changes": changes, "if_revision": if_revision}
        with self._requests.once("UpdateSession", request_id, **said) as once:
            if once.earlier is not None:
                return SessionView.from_json(once.earlier)
            return self._updating.update(named, changes, if_revision, once)

    def get(self, session_id: str) -> SessionView:
        """Raises InvalidArgumentError (not a UUID, nor a name), NotFoundError."""
        if refused := self._refused.find(session_id):
            return refused.view(self._clock)
        with self._state.found(session_id) as session:
            return self._state.view(session)

    def list_page(
        self, limit: int = 0, cursor: str = "", label_selector: str = "", **prefixes: str
    ) -> tuple[list[SessionView], str]:
        """Up to `limit` sessions, oldest first, and the cursor of the next page, or "".

        `prefixes` are name_prefix and id_prefix of ListSessionsRequest.

        A limit of 0 means DEFAULT_PAGE, more than LARGEST_PAGE means LARGEST_PAGE. Sessions
        that exist throughout appear exactly once, whatever comes and goes between pages.
        Raises InvalidArgumentError.
        """
        wanted = Wanted(fields.label_selector_of(label_selector), **prefixes)
        return sessions_page(self._state, self._clock, limit, cursor, wanted)

    def delete(self, session_id: str, *, request_id: str = "") -> None:
        """Returns when no further packet of the session will leave.

        Of concurrent calls for one session exactly one succeeds. Raises
        InvalidArgumentError, NotFoundError, UnavailableError.
        """
        named = fields.session_of(session_id)
        with self._requests.once("DeleteSession", request_id, session_id=named) as once:
            if once.earlier is None:
                canonical = self._state.id_of(named)
                if not self._refused.delete(canonical, once):
                    self._life.delete(canonical, once)

    def issue_join_token(
        self, session_id: str, **asked: Unpack[tokens.Asked]
    ) -> tuple[str, datetime]:
        """The token by which a receiver joins the session itself, and when it ends.

        Raises InvalidArgumentError, NotFoundError, UnavailableError.
        """
        canonical = self.get(session_id).session_id
        secret = self.store.secret(tokens.JOIN_SECRET)
        return tokens.issue(secret, canonical, self._utc_now(), **asked)

    def add_subscriber(
        self,
        session_id: str,
        address_text: str,
        *,
        ttl_secs: float = 0.0,
        subscriber_class: str = "",
        rtcp: str = "",
        request_id: str = "",
    ) -> bool:
        """Copy the session to `address_text` too; True if it was not a subscriber before.

        Adding it again sets its lease and class anew, and its RTCP if that is given.

        Raises InvalidArgumentError, NotFoundError, LimitError, AddressDeniedError,
        UnavailableError.
        """
        named = fields.session_of(session_id)
        said = {"session_id": named, "subscriber_address": address_text}
        terms = fields.subscription_said(ttl_secs, subscriber_class, rtcp)
        with self._requests.once("AddSubscriber", request_id, **said, **terms) as once:
            if once.earlier is not None:
                return once.earlier == "1"
            canonical = self._state.id_of(named)
            admission = self._rules.admission
            read = fields.subscription_of(ttl_secs, subscriber_class, rtcp)
            record = admission.record(address_text)
            return self._subscribers.add(canonical, record, admission, read, once) == 1

    def add_subscribers(
        self,
        session_id: str,
        address_texts: Sequence[str],
        *,
        ttl_secs: float = 0.0,
        subscriber_class: str = "",
        rtcp: str = "",
        request_id: str = "",
    ) -> int:
        """The same for 1 to LARGEST_BATCH addresses, all or none; how many are new."""
        named = fields.session_of(session_id)
        said = {"session_id": named, "subscriber_addresses": list(address_texts)}
        terms = fields.subscription_said(ttl_secs, subscriber_class, rtcp)
        with self._requests.once("BatchAddSubscribers", request_id, **said, **terms) as once:
            if once.earlier is not None:
                return int(once.earlier)
            canonical = self._state.id_of(named)
            admission = self._rules.admission
            read = fields.subscription_of(ttl_secs, subscriber_class, rtcp)
            records = admission.records(address_texts)
            return self._subscribers.add(canonical, records, admission, read, once, is_batch=True)

    def remove_subscriber(
        self, session_id: str, address_text: str, *, request_id: str = ""
    ) -> None:
        """Returns when no further packet will leave to `address_text`.

        Raises InvalidArgumentError, NotFoundError (session or subscriber), UnavailableError.
        """
        self._removal.one(session_id, address_text, request_id)

    def remove_subscribers(
        self, session_id: str, address_texts: Sequence[str], *, request_id: str = ""
    ) -> list[str]:
        """The same for 1 to LARGEST_BATCH addresses; those that were no subscribers.

        Raises InvalidArgumentError, NotFoundError (session), UnavailableError.
        """
        return self._removal.batch(session_id, address_texts, request_id)

    def list_subscribers(
        self, session_id: str, limit: int = 0, cursor: str = ""
    ) -> tuple[list[SubscriberView], str]:
        """Up to `limit` subscribers, in order of arrival, and the next page's cursor, or "".

        Limits and stability are those of `list_page`. Raises InvalidArgumentError, NotFoundError.
        """
        found = self._refused.page(session_id, limit, cursor)
        return found or self._subscribers.page(session_id, limit, cursor)

    def stats(self, session_id: str) -> SessionStats:
        """Raises InvalidArgumentError, NotFoundError."""
        if refused := self._refused.find(session_id):
            return refused.stats(self._clock)
        with self._state.found(session_id) as session:
            now = self._clock.monotonic_ns()
            values = self._engine.session_stats(session.handle, now)
            reception = self._engine.session_reception(session.handle, now)
            stats = stats_of(session, values, reception, now)
            first, last = (of for of, _ in self._engine.session_latency(session.handle))
            stats = with_feedback(stats, self._engine, session, now)
            wrong = self._engine.wrong_source(session.handle)
        return replace(
            stats,
            last_wrong_source=str(wrong) if wrong else "",
            first_copy_latency=LatencySummary.of(first),
            last_copy_latency=LatencySummary.of(last),
            server=self._health.look(self.housekeeping.overload_marks),
        )

    def request_keyframe(self, session_id: str) -> None:
        """Its source is asked for one as if a pilot had: by its next packet, and not more often
        than every half a second.

        Raises InvalidArgumentError, NotFoundError, PreconditionError (it takes packets of more
        than one address: nobody is asked who may not have sent any).
        """
        with self._state.found(session_id) as session:
            request_keyframe(self._engine, session)

    def knocks(self, limit: int = 0) -> list[Knock]:
        """Who sends packets that no session admits, the latest first; see session.proto.

        Raises InvalidArgumentError.
        """
        return knocks(self._state, self._engine, self._clock, limit)

    def all_stats(self) -> Iterator[tuple[SessionView, SessionStats]]:
        """Every session with its counters, oldest first, each as it is when it is taken."""
        return all_stats(self._state, self._engine, self._clock)
