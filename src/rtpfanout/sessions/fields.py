"""Fields of requests: what a value may be. Everything raised names its field."""

from __future__ import annotations

import enum
import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from rtpfanout import sdp
from rtpfanout._fastpath import KEYFRAME_FORMATS
from rtpfanout.errors import InvalidArgumentError
from rtpfanout.model import (
    LABEL,
    NAME,
    REQUEST_ID,
    SESSION_ID,
    Consent,
    LatchScope,
    MediaType,
    Rtcp,
    SsrcPolicy,
    SubscriberClass,
    shown,
)
from rtpfanout.portrange import AUTO

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rtpfanout.model import Pairs
    from rtpfanout.sdp import Encoding, Section

DEFAULT_PAGE = 100
DSCP_COPY = "copy"
LARGEST_PAGE = 1000
LONGEST_TTL_SECS = 30 * 86_400
MOST_LABELS = 16

_LABEL_WORDS = "1 to 63 letters, digits, '-', '_', '.' or '/'"

_Word = TypeVar("_Word", bound=enum.StrEnum)


def given(*, labels: Mapping[str, str] | None = None, **terms: Any) -> dict[str, Any]:
    """What of a request is there, the same whatever the order of its labels."""
    there = {name: value for name, value in terms.items() if value is not None}
    return there | ({"labels": dict(sorted(labels.items()))} if labels else {})


def session_of(text: str) -> str:
    """What a request says of which session it means: an id, in lower case, or a name."""
    if SESSION_ID.fullmatch(text):
        return text.lower()
    if not (text and is_name(text)):
        raise InvalidArgumentError(f"{shown(text)} is not a UUID, nor a name", field="session_id")
    return text


def name_of(text: str) -> str:
    """Of a session; or empty."""
    if not is_name(text):
        raise InvalidArgumentError(
            f"{shown(text)} is not a name: 1 to 128 letters, digits, '.', '_', '-', in parts that"
            " are joined by '/', and no UUID",
            field="name",
        )
    return text


def is_name(text: str) -> bool:
    """Whether a session may have it; also that of one without."""
    digits = text.replace("-", "")
    is_uuid = len(digits) == 32 and set(digits.lower()) <= set("0123456789abcdef")
    return not text or (NAME.fullmatch(text) is not None and not is_uuid)


def request_id_of(text: str) -> str:
    """1 to 64 visible ASCII characters, or empty."""
    if text and REQUEST_ID.fullmatch(text) is None:
        raise InvalidArgumentError(
            f"{shown(text)} is not 1 to 64 visible ASCII characters", field="request_id"
        )
    return text


def media_type_of(text: str) -> MediaType:
    """One of MediaType."""
    return _word(text, MediaType, "media_type")


def consent_of(text: str) -> Consent:
    """One of Consent; empty is NONE."""
    return _word(text or Consent.NONE, Consent, "consent")


def ssrc_policy_of(text: str) -> SsrcPolicy:
    """One of SsrcPolicy; empty is EXACT."""
    return _word(text or SsrcPolicy.EXACT, SsrcPolicy, "ssrc_policy")


def latch_scope_of(text: str) -> LatchScope:
    """One of LatchScope; empty is ADDRESS."""
    return _word(text or LatchScope.ADDRESS, LatchScope, "latch_scope")


def subscriber_class_of(text: str) -> SubscriberClass:
    """One of SubscriberClass; empty is MONITOR."""
    return _word(text or SubscriberClass.MONITOR, SubscriberClass, "subscriber_class")


def encoding_of(said: Mapping[str, Any]) -> Encoding | None:
    """By the fields of the message; without a name: none is told."""
    if not any(said.values()):
        return None
    try:
        return sdp.encoding_of(**said)
    except ValueError as error:
        raise InvalidArgumentError(str(error), field="encoding") from None


def section_of(text: str, media_type: MediaType) -> tuple[Section, Encoding]:
    """What an SDP says of a session's packets."""
    media = "application" if media_type is MediaType.DATA else media_type.value
    try:
        return sdp.section_for(text, media)
    except ValueError as error:
        raise InvalidArgumentError(str(error), field="sdp") from None


def if_exists_of(text: str) -> bool:
    """Whether the session that is there will do."""
    if text not in ("", "error", "return"):
        raise InvalidArgumentError(f"{shown(text)} is not error or return", field="if_exists")
    return text == "return"


def ingest_port_of(text: str) -> int:
    """0 (empty): none, AUTO: any."""
    if text in ("", "auto"):
        return AUTO if text else 0
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 0 < number <= 65535:
        raise InvalidArgumentError(
            f'{shown(text)} is no port; give a number, "auto" for the next free one, or nothing',
            field="ingest_port",
        )
    return number


def loaded_if(is_right: Callable[[str], bool]) -> Callable[[str], str]:
    """What takes a text from the store, and raises ValueError where it isn't right."""

    def loaded(text: str) -> str:
        if not is_right(text):
            raise ValueError(f"{text!r} is stored, which is none")
        return text

    return loaded


def keyframe_request_of(text: str) -> str:
    """Empty, or one of KEYFRAME_FORMATS."""
    if not is_keyframe_request(text):
        raise InvalidArgumentError(
            f"{shown(text)} is not pli, fir or both", field="keyframe_request"
        )
    return text


def is_keyframe_request(text: str) -> bool:
    """As `keyframe_request_of` would have it."""
    return not text or text in KEYFRAME_FORMATS


def report_class_of(text: str) -> str:
    """Empty, or one of SubscriberClass."""
    if not is_report_class(text):
        words = ", ".join(SubscriberClass)
        raise InvalidArgumentError(
            f"{shown(text)} is not one of {words}, nor empty for nobody's reports",
            field="report_class",
        )
    return text


def is_report_class(text: str) -> bool:
    """As `report_class_of` would have it."""
    return not text or text in set(SubscriberClass)


def dscp_of(text: str) -> str:
    """Empty, COPY, or a number from 0 to 63."""
    if not is_dscp(text):
        raise InvalidArgumentError(
            f'{shown(text)} is no DSCP; give 0 to 63, "copy" for that of the source, or nothing',
            field="dscp",
        )
    return text


def is_dscp(text: str) -> bool:
    """As `dscp_of` would have it."""
    return text in ("", DSCP_COPY) or text in map(str, range(64))


def rtcp_of(text: str) -> Rtcp | None:
    """One of Rtcp; empty is None: as it is, and off for one that is new."""
    return _word(text, Rtcp, "rtcp") if text else None


class Subscription(NamedTuple):
    """On which terms somebody gets copies."""

    ttl_secs: float
    kind: SubscriberClass
    rtcp: Rtcp | None = None
    """None: as it is."""


def subscription_of(ttl_secs: float, subscriber_class: str, rtcp: str) -> Subscription:
    """As requests say it."""
    kind = subscriber_class_of(subscriber_class)
    return Subscription(seconds(ttl_secs, "ttl_secs"), kind, rtcp_of(rtcp))


def subscription_said(ttl_secs: float, subscriber_class: str, rtcp: str) -> dict[str, Any]:
    """What of it a request said, the same as versions before have it."""
    said = {"ttl_secs": ttl_secs, "subscriber_class": subscriber_class}
    return said | ({"rtcp": rtcp} if rtcp else {})


def ssrc_of(number: int) -> int:
    """32 bits."""
    return whole(number, "ssrc", 0xFFFFFFFF)


def whole(number: int, field: str, most: int) -> int:
    """0 to `most`."""
    if not 0 <= number <= most:
        raise InvalidArgumentError(f"{number} is not 0 to {most}", field=field)
    return number


def seconds(value: float, field: str, most: float = LONGEST_TTL_SECS) -> float:
    """0 to `most` seconds."""
    if not (math.isfinite(value) and 0 <= value <= most):
        raise InvalidArgumentError(f"{value:g} is not 0 to {most:g} seconds", field=field)
    return value


def move_key_of(key: bytes) -> bytes:
    """16 to 64 bytes, or none."""
    if key and not 16 <= len(key) <= 64:
        raise InvalidArgumentError(
            f"{len(key)} bytes; give 16 to 64, or none for a source that can't move",
            field="move_key",
        )
    return key


def page_size(limit: int) -> int:
    """Entries of a page: 0 means DEFAULT_PAGE, more than LARGEST_PAGE means that."""
    if limit < 0:
        raise InvalidArgumentError(f"{limit} is negative", field="limit")
    return min(limit or DEFAULT_PAGE, LARGEST_PAGE)


def labels_of(labels: Mapping[str, str]) -> dict[str, str]:
    """Those of a new session."""
    return changed_labels({}, {key: _label(value, key) for key, value in labels.items()})


def changed_labels(before: Mapping[str, str], changes: Mapping[str, str]) -> dict[str, str]:
    """`before` with `changes` set or, where the value is empty, removed; sorted by key."""
    after = dict(before)
    for key, value in changes.items():
        if LABEL.fullmatch(key) is None:
            raise InvalidArgumentError(
                f"the key {shown(key)} is not {_LABEL_WORDS}", field="labels"
            )
        if value:
            after[key] = _label(value, key)
        else:
            after.pop(key, None)
    if len(after) > MOST_LABELS:
        raise InvalidArgumentError(
            f"{len(after)} labels; a session has {MOST_LABELS} at most", field="labels"
        )
    return dict(sorted(after.items()))


def _label(value: str, key: str) -> str:
    if LABEL.fullmatch(value) is None:
        raise InvalidArgumentError(
            f"the value {shown(value)} of {shown(key)} is not {_LABEL_WORDS}", field="labels"
        )
    return value


def label_selector_of(text: str) -> Pairs:
    """``vehicle=rover-7,site=north`` as pairs, all of which a session must have; empty: none."""
    pairs = []
    for part in text.split(",") if text else []:
        key, equals, value = part.partition("=")
        if not equals or LABEL.fullmatch(key) is None or LABEL.fullmatch(value) is None:
            raise InvalidArgumentError(
                f"{shown(part)} is not key=value, each of {_LABEL_WORDS};"
                " several are separated by commas",
                field="label_selector",
            )
        pairs.append((key, value))
    return tuple(pairs)


def matches(labels: Mapping[str, str], selector: Pairs) -> bool:
    """Whether a session with `labels` has all of the selector's."""
    return all(labels.get(key) == value for key, value in selector)


def _word(text: str, kind: type[_Word], field: str) -> _Word:
    try:
        return kind(text)
    except ValueError:
        words = [word.value for word in kind]
        expected = f"{', '.join(words[:-1])} or {words[-1]}"
        raise InvalidArgumentError(f"{shown(text)} is not {expected}", field=field) from None
