"""What a session is told to be: each term described once, for requests, store and answers."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as each_field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rtpfanout import sdp
from rtpfanout.errors import PermissionDeniedError
from rtpfanout.model import Address, Consent, LatchScope, SourcePolicy, SsrcPolicy
from rtpfanout.policy import SOURCE_FIELD
from rtpfanout.sessions import fields
from rtpfanout.sessions.source import Source, network_of_one, read_source
from rtpfanout.store import pack_labels, unpack_labels

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable, Mapping

    from rtpfanout.policy import AddressPolicy
    from rtpfanout.sdp import Encoding
    from rtpfanout.store import StoredSession


LARGEST_STORED = 2**63 - 1
LARGEST_COUNT = 2**31 - 1
_LAST_PORT = 65535

SessionKey = tuple[int, bytes, int, int, int]
"""(SSRC, 16 bytes, scope, port, prefix): no two sessions may have the same."""


OF_SOURCE = ("source_policy", "source_address", "latch_window_secs", "relatch_after_secs")
"""What requests say of the source; what they say else is a field of Terms each."""


def _same(value: Any) -> Any:
    return value


def _loaded_name(text: str) -> str:
    if not fields.is_name(text):
        raise ValueError("its name is none")
    return text


def _loaded_timeout(secs: float) -> float | None:
    if not secs <= fields.LONGEST_TTL_SECS:
        raise ValueError("its idle_timeout_secs are too many")
    return None if secs < 0 else secs


def _loaded_port(number: int) -> int:
    if not 0 <= number <= _LAST_PORT:
        raise ValueError(f"its ingest_port is {number}")
    return number


@dataclass(frozen=True, slots=True)
class _Term:
    """One of the terms: its name in requests and in the store is that of its field in Terms."""

    read: Callable[[Any], Any]
    """From what a request says. Raises InvalidArgumentError."""
    change: Callable[[Any, Any], Any] | None = None
    """(the value before, what UpdateSession says), where that is not the value afterwards."""
    store: Callable[[Any], Any] = _same
    load: Callable[[Any], Any] = _same
    """From the store. Raises ValueError."""
    shown_as: str | None = ""
    """Its name in SessionResponse and answers; empty: the same, None: it is not shown."""
    show: Callable[[Any], Any] = _same
    recall: Callable[[Any], Any] = _same
    """From what was shown."""
    at_creation: bool = True
    """Whether CreateSession takes it, too."""


def _term(default: Any, read: Callable[[Any], Any], *, secret: bool = False, **how: Any) -> Any:
    """`default`, or what makes it."""
    begin = "default_factory" if isinstance(default, type) else "default"
    return field(**{begin: default}, repr=not secret, metadata={_Term: _Term(read, **how)})


def _word(default: enum.StrEnum, read: Callable[[str], Any]) -> Any:
    """One of a few; where it is the default, nothing is shown."""

    def known(text: str) -> Any:
        return type(default)(text or default)

    return _term(
        default, read, store=str, load=known, recall=known, show=lambda w: "" if w == default else w
    )


def _choice() -> Any:
    """Yes, no, or None."""
    return _term(
        None,
        bool,
        store=lambda yes: -1 if yes is None else int(yes),
        load=lambda number: None if number < 0 else bool(number),
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """What UpdateSession can change: replaced as a whole, so that readers see one or the other.

    A new one is a line here, a column of StoredSession, and a field of the messages.
    """

    source: Source
    pinned: Address | None = None
    latch_until: float = 0.0
    """Of LATCH: until when the first packet may pin the source; seconds since the epoch."""
    move_counter: int = 0
    """Of the last signed move that was accepted."""
    paused: bool = _term(False, bool, store=int, load=bool, shown_as=None, at_creation=False)
    ingest_limit_bps: int = _term(
        0,
        lambda number: fields.whole(number, "ingest_limit_bps", LARGEST_STORED),
        show=lambda number: max(0, number),
    )
    max_subscribers: int = _term(
        0,
        lambda number: fields.whole(number, "max_subscribers", LARGEST_COUNT),
        show=lambda number: min(max(0, number), LARGEST_COUNT),
    )
    consent: Consent = _term(  # noqa: RUF009
        Consent.NONE,
        fields.consent_of,
        store=str,
        load=lambda text: Consent(text or Consent.NONE),
        recall=Consent,
    )
    move_key: bytes = _term(
        b"",
        fields.move_key_of,
        secret=True,
        shown_as="signed_move",
        show=bool,
        recall=lambda has_key: b"*" if has_key else b"",  # whose it is, no answer tells
    )
    labels: Mapping[str, str] = _term(
        dict,
        fields.labels_of,
        change=fields.changed_labels,
        store=pack_labels,
        load=unpack_labels,
        show=dict,
    )
    name: str = _term("", fields.name_of, load=_loaded_name)
    idle_timeout_secs: float | None = _term(
        None,
        lambda secs: fields.seconds(secs, "idle_timeout_secs"),
        store=lambda secs: -1.0 if secs is None else secs,
        load=_loaded_timeout,
    )
    encoding: Encoding | None = _term(  # noqa: RUF009
        None,
        fields.encoding_of,
        store=sdp.pack_encoding,
        load=sdp.unpack_encoding,
        show=lambda encoding: encoding and asdict(encoding),
        recall=sdp.recalled_encoding,
    )

    ingest_port: int = _term(
        0,
        fields.ingest_port_of,
        load=_loaded_port,
        show=lambda number: number if 0 <= number <= _LAST_PORT else 0,
    )
    """AUTO only on its way to be one."""
    dscp: str = _term("", fields.dscp_of, load=fields.loaded_if(fields.is_dscp))
    keyframe_request: str = _term(
        "", fields.keyframe_request_of, load=fields.loaded_if(fields.is_keyframe_request)
    )
    repair_source: bool = _term(False, bool, store=int, load=bool)
    report_class: str = _term(
        "", fields.report_class_of, load=fields.loaded_if(fields.is_report_class)
    )
    ssrc_policy: SsrcPolicy = _word(SsrcPolicy.EXACT, fields.ssrc_policy_of)  # noqa: RUF009
    latch_scope: LatchScope = _word(LatchScope.ADDRESS, fields.latch_scope_of)  # noqa: RUF009
    srtp: bool = _term(False, bool, store=int, load=bool)
    check_padding: bool | None = _choice()
    rtcp_mux: bool | None = _choice()

    @property
    def waits_until(self) -> float:
        """Until when somebody may be pinned first, as `latch_until`; 0: it waits for nobody."""
        is_waiting = self.source.policy is SourcePolicy.LATCH and self.pinned is None
        return self.latch_until if is_waiting else 0.0

    @property
    def any_ssrc(self) -> bool:
        """Whether it takes others than the one that it was told."""
        return self.ssrc_policy is not SsrcPolicy.EXACT

    @property
    def host(self) -> Address | None:
        """The one address, with port 0, of which any port feeds it; by `feeder` or the source."""
        source = self.source
        if self.pinned is not None and self.latch_scope is LatchScope.IP:
            return Address(self.pinned.ip, 0)
        # One of a link without its interface is a network to the engine.
        if source.policy is SourcePolicy.IP and self.any_ssrc and source.base is not None:
            return None if source.base.ip.is_link_local else source.base
        return None

    @property
    def idle_timeout_ns(self) -> int | None:
        """How long it stays without packets; 0: for ever, None: as the configuration says."""
        if self.idle_timeout_secs is None:
            return 0 if self.name else None
        return max(1, round(self.idle_timeout_secs * 1e9)) if self.idle_timeout_secs else 0

    @property
    def feeder(self) -> Address | None:
        """The one address that packets come from, if there is only one."""
        return self.source.address or self.pinned

    def key(self, ssrc: int) -> SessionKey:
        """What no other session may have: its port, if it has one of its own."""
        if self.ingest_port:
            return -1, bytes(16), 0, self.ingest_port, -3
        if self.any_ssrc:
            ssrc = -1
        if (exact := self.host or self.feeder) is not None:
            return ssrc, exact.packed, exact.scope, exact.port, -1
        network = self.source.network
        if network is None:
            return ssrc, bytes(16), 0, 0, -2
        base = Address(network.network_address, 0)
        offset = 96 if network.version == 4 else 0
        return ssrc, base.packed, base.scope, 0, offset + network.prefixlen

    @property
    def source_scopes(self) -> set[int]:
        """The indexes of the interfaces that its link-local addresses are of."""
        return {address.scope for address in (self.source.base, self.pinned) if address} - {0}


HOW: Mapping[str, _Term] = {f.name: f.metadata[_Term] for f in each_field(Terms) if f.metadata}


def moved(terms: Terms, address: Address) -> Terms:
    """`terms` with a source that signed its move to `address`.

    Raises PermissionDeniedError: a network doesn't move, and `address` is outside.
    """
    source = terms.source
    if source.policy is SourcePolicy.EXACT:
        return replace(terms, source=replace(source, text=str(address), address=address))
    if source.policy is SourcePolicy.IP:
        network = network_of_one(address.ip)
        return replace(terms, source=replace(source, text=str(address.ip), network=network))
    if source.policy is SourcePolicy.LATCH:
        return replace(terms, pinned=address)
    if not source.admits(address):
        raise PermissionDeniedError(
            f"{address} is outside {source.text}, and a source_policy of cidr stays there",
            field=SOURCE_FIELD,
        )
    return terms


def stored_terms(terms: Terms) -> dict[str, Any]:
    """As StoredSession has them."""
    return {
        "source_policy": terms.source.policy.value,
        "source_text": terms.source.text,
        "pinned_source": str(terms.pinned) if terms.pinned else "",
        "latch_window_secs": terms.source.latch_window_secs,
        "relatch_after_secs": terms.source.relatch_after_secs,
        "latch_until_ns": round(terms.latch_until * 1e9),
        "move_counter": min(terms.move_counter, LARGEST_STORED),
        **{name: how.store(getattr(terms, name)) for name, how in HOW.items()},
    }


def terms_of(row: StoredSession, policy: AddressPolicy) -> Terms:
    """What `stored_terms` stored. Raises what today's policy raises about the source."""
    times = row.latch_window_secs, row.relatch_after_secs
    source = read_source(row.source_policy, row.source_text, *times, policy)
    pinned = Address.parse(row.pinned_source) if row.pinned_source else None
    if pinned is not None:
        policy.check_source(pinned)
    return Terms(
        source=source,
        pinned=pinned,
        latch_until=row.latch_until_ns / 1e9,
        move_counter=row.move_counter,
        **{name: how.load(getattr(row, name)) for name, how in HOW.items()},
    )


def unread_terms(row: StoredSession) -> Terms:
    """To be shown, of a row that may be as no call would have it: nothing is checked."""
    times = row.latch_window_secs, row.relatch_after_secs
    source = Source(row.source_policy, row.source_text, None, None, *times)  # type: ignore[arg-type]
    loaded: dict[str, Any] = {}
    for name, how in HOW.items():
        loaded[name] = getattr(row, name)
        with contextlib.suppress(ValueError):
            loaded[name] = how.load(loaded[name])
    return Terms(source=source, **loaded)


def shown_terms(terms: Terms) -> dict[str, Any]:
    """By the names of SessionResponse."""
    return {
        "source_address": terms.source.text,
        "source_policy": terms.source.policy,
        "pinned_source": str(terms.pinned) if terms.pinned else "",
        "latch_window_secs": terms.source.latch_window_secs,
        "relatch_after_secs": terms.source.relatch_after_secs,
        "latch_until": _moment(terms.waits_until),
        **{
            how.shown_as or name: how.show(getattr(terms, name))
            for name, how in HOW.items()
            if how.shown_as is not None
        },
    }


def answered_terms(answer: Mapping[str, Any]) -> Terms:
    """From what was shown of them, by whatever version of us; what it doesn't say is as by default.

    `answer` has source_text and source (the feeder) instead of the addresses of `shown_terms`.
    """
    policy = SourcePolicy(answer.get("source_policy", SourcePolicy.EXACT))
    feeder = Address.parse(answer["source"]) if answer.get("source") else None
    is_exact = policy is SourcePolicy.EXACT
    source = Source(
        policy,
        answer.get("source_text") or str(feeder or ""),
        feeder if is_exact else None,
        None,
        answer.get("latch_window_secs", 0.0),
        answer.get("relatch_after_secs", 0.0),
    )
    read = {
        name: how.recall(answer[shown_as])
        for name, how in HOW.items()
        if how.shown_as is not None and (shown_as := how.shown_as or name) in answer
    }
    until = answer.get("latch_until")
    return Terms(
        source=source,
        pinned=None if is_exact else feeder,
        latch_until=datetime.fromisoformat(until).timestamp() if until else 0.0,
        **read,
    )


def _moment(seconds: float) -> str:
    """RFC 3339, UTC; 0 is none."""
    if not seconds:
        return ""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
