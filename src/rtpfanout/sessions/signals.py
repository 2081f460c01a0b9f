"""The door for datagrams and for notices of the packet path; the doorman has verified them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from rtpfanout.errors import LimitError, NotFoundError, PermissionDeniedError, RtpFanoutError
from rtpfanout.model import Address, ChangeKind, Consent, EventKind, SourcePolicy, SsrcPolicy
from rtpfanout.seldom import Seldom
from rtpfanout.sessions import fields
from rtpfanout.sessions.changes import UNWRITTEN
from rtpfanout.sessions.feeding import engine_followed
from rtpfanout.sessions.names import which
from rtpfanout.sessions.requests import NO_ID
from rtpfanout.sessions.state import Part
from rtpfanout.sessions.subscribers import not_a_subscriber
from rtpfanout.sessions.terms import moved

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rtpfanout.sessions.changes import ChangeLog
    from rtpfanout.sessions.consent import Consents
    from rtpfanout.sessions.record import Session
    from rtpfanout.sessions.requests import Once
    from rtpfanout.sessions.subscribers import Subscribers
    from rtpfanout.sessions.updating import Updating
    from rtpfanout.sessions.views import SessionView
    from rtpfanout.store import Store

    Remove = Callable[[str, Sequence[bytes], Once], list[bool]]

_log = structlog.stdlib.get_logger(__name__)
_MOST_REFUSALS, _MOST_PINS = 10, 1000
"""Lines a minute about those who knock at a latch: anybody can."""


@dataclass(frozen=True, slots=True)
class MoveTarget:
    """A session whose source can sign that it moved; `counter` is the last one accepted."""

    session_id: str
    move_key: bytes
    counter: int


@dataclass(eq=False)
class Signals(Part):
    """Thread-safe. Those that wait, for the store or a grace period: `secret`, `move_source`,
    `join`, `leave` and `on_source_notice`.
    """

    store: Store
    consents: Consents
    subscribers: Subscribers
    updating: Updating
    changes: ChangeLog
    remove: Remove
    """Ends subscribers of a session, kept or served."""

    def __post_init__(self) -> None:
        self.secret = self.store.secret
        self.consent_targets = self.consents.targets
        self._refusals, self._pins = Seldom(_MOST_REFUSALS), Seldom(_MOST_PINS)
        self._ssrcs = Seldom(_MOST_PINS)

    def session_for_move(self, ssrc: int) -> Sequence[MoveTarget]:
        """The sessions of `ssrc` whose source can sign a move."""
        with self.state.lock:
            return [
                MoveTarget(session.session_id, session.terms.move_key, session.terms.move_counter)
                for session in self.state.by_ssrc.get(ssrc, ())
                if session.terms.move_key
            ]

    def move_source(self, session_id: str, address: Address, counter: int, move_key: bytes) -> None:
        """The source of a session signed, with `move_key`, that it is now at `address`.

        An exact source becomes this one, one of policy ip any port of its address; a latch is
        pinned to it; a network has to contain it. Raises InvalidArgumentError, NotFoundError (also
        where it has another key by now), PermissionDeniedError (counter not above the last,
        outside the network), AddressDeniedError, AlreadyExistsError, UnavailableError.
        """
        state = self.state
        self.rules.policy.check_source(address)
        with state.work(session_id) as session:
            terms = session.terms
            if not move_key or move_key != terms.move_key:
                raise NotFoundError(
                    "no session of this SSRC has the key that signed", field="move_key"
                )
            with state.lock:
                reached = state.move_keys.reached(session.ssrc, terms)
            if counter <= reached:
                raise PermissionDeniedError(
                    f"counter {counter} is not above {reached}, which was accepted"
                    " already; count every move up",
                    field="counter",
                )
            self.updating.change(
                session, replace(moved(terms, address), move_counter=counter), NO_ID
            )
        state.count("moved")

    def join(
        self,
        session_id: str,
        address: Address,
        *,
        lease_secs: float,
        subscriber_class: str,
        previous: Address | None = None,
    ) -> None:
        """A subscriber that showed that it is at `address`, whose lease begins anew.

        So it has consented until the lease is over, and copies leave from the address of ours that
        it has spoken to. It takes the place of `previous`, even where
        there is no room for another. Raises as `add_subscriber`.
        """
        kind = fields.subscriber_class_of(subscriber_class)
        terms = fields.Subscription(fields.seconds(lease_secs, "lease_secs"), kind)
        admission = self.rules.admission
        admission.admitted(address.record)
        before = previous.record if previous and previous != address else None

        add = partial(
            self.subscribers.add, session_id, address.record, admission, terms, NO_ID,
            consent_given=True, local=address.spoken_to,
        )  # fmt: skip
        try:
            add()
        except LimitError:
            if before is None or not any(self.subscribers.remove(session_id, [before], NO_ID)):
                raise
            add()
        else:
            if before is not None:
                self.subscribers.remove(session_id, [before], NO_ID)

    def leave(self, session_id: str, address: Address) -> None:
        """It showed that it is there, and wants no more packets.

        Raises InvalidArgumentError, NotFoundError (session or subscriber), UnavailableError.
        """
        canonical = self.state.id_of(session_id)
        if not any(self.remove(canonical, [address.record], NO_ID)):
            raise not_a_subscriber(canonical, address)

    def asks_consent(self, session_id: str) -> bool:
        """Whether subscribers of the session have to consent. Raises as `leave`, RefusedError."""
        with self.state.found(session_id) as session:
            return session.terms.consent is Consent.ECHO

    def consent_given(self, session_id: str, address: Address, until_monotonic: float) -> None:
        """`address` gets the session's packets until then, in seconds of time.monotonic().

        They leave from the address of ours that it has spoken to. Nothing happens if it need not
        consent. Raises InvalidArgumentError, NotFoundError.
        """
        with self.state.found(session_id) as session:
            record = address.record
            self.consents.give(session, [record], until_monotonic, address.spoken_to)

    def on_source_notice(self, handle: int, address: Address) -> bool:
        """A packet from `address` could pin a latch; True if it did."""
        state = self.state
        with state.lock:
            found = state.by_handle.get(handle)
        if found is None:
            return False
        try:
            with state.work(found.session_id) as session:
                if not self._may_pin(session, address):
                    return False
                self.rules.policy.check_source(address)
                self.updating.change(session, replace(session.terms, pinned=address), NO_ID)
        except NotFoundError:
            return False  # deleted meanwhile
        except RtpFanoutError as error:
            state.count("pin_refused")
            self._refusals.write(
                _log.warning,
                "source not pinned",
                **which(found),
                reason=error.message,
            )
            return False
        state.count("pinned")
        self._pins.write(_log.info, "source pinned", **which(found), source=str(address))
        return True

    def on_ssrc_notice(self, handle: int, address: Address) -> None:
        """A session's source sends an SSRC that is new: watchers and the log are told.

        Waits for nobody.
        """
        state = self.state
        with state.lock:
            session = state.by_handle.get(handle)
            if session is None:
                return
            revision = self.changes.begin()
            view = state.view(session)
            labels = session.terms.labels
            self.changes.show(revision, ChangeKind.UPDATED, view, labels, cause="ssrc")
            newest = f"{view.ssrcs[0].ssrc:#010x}" if view.ssrcs else ""
            state.events.tell(EventKind.SSRC_CHANGED, view, detail=newest)
            self._note_followed(session, view)
        if self.changes.given - self.store.revision > UNWRITTEN // 2:
            self.updating.journal.submit([])  # so that a start gives none of these again
        state.count("ssrcs_changed")
        self._ssrcs.write(
            _log.info,
            "its source sends a new SSRC",
            **which(session),
            source=str(address),
            ssrc=newest,
            policy=str(view.terms.ssrc_policy),
        )

    def _note_followed(self, session: Session, view: SessionView) -> None:
        """So that a restart does not take another camera's, which comes first, for it. Not waited
        for. The lock is held.
        """
        if session.terms.ssrc_policy is not SsrcPolicy.FOLLOW or not view.ssrcs:
            return
        newest = view.ssrcs[0]
        followed = engine_followed(newest.ssrc, newest.payload_type)
        if followed != session.followed:
            session.followed = followed
            self.updating.journal.note_followed(session.sequence, followed)

    def _may_pin(self, session: Session, address: Address) -> bool:
        terms = session.terms
        source = terms.source
        if source.policy is not SourcePolicy.LATCH or not source.admits(address):
            return False
        clock = self.clock
        if terms.pinned is None:
            return clock.wall_secs() <= terms.latch_until
        now = clock.monotonic_ns()
        last = self.engine.session_stats(session.handle, now)["last_packet_ns"]
        silence = now - max(int(last), session.fed_since_ns)
        is_pinned = terms.host.ip == address.ip if terms.host else terms.pinned == address
        return not is_pinned and source.relatch_after_ns > 0 and silence >= source.relatch_after_ns
