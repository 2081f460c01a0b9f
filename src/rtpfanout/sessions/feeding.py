"""Who feeds a session, and how its packets are read, as the engine takes it."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rtpfanout._fastpath import CLASSES, READINGS
from rtpfanout.errors import AlreadyExistsError, LimitError
from rtpfanout.ingest_ports import port_taken
from rtpfanout.model import SourcePolicy
from rtpfanout.sessions import fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.model import Address
    from rtpfanout.sessions.terms import Terms

SSRC_NETWORKS, SENDER_NETWORKS = 16, 64
"""The most sessions of one SSRC, and of those that take any, that a network feeds: the engine's."""


def engine_source(terms: Terms) -> tuple[Address | None, dict[str, Any]]:
    """The arguments of Engine.move_session."""
    source, pinned = terms.source, terms.pinned
    options: dict[str, Any] = {"ssrc_policy": terms.ssrc_policy.value} if terms.any_ssrc else {}
    if terms.ingest_port:
        options["at_own_port"] = True
    if source.policy is not SourcePolicy.LATCH:
        if terms.host is not None:
            return terms.host, options
        return source.base, options | {"prefix": source.prefix}
    if pinned is None:
        return source.base, options | {"prefix": source.prefix, "latch": True}
    if source.relatch_after_ns:
        assert source.prefix is not None
        options |= {
            "relatch_after_ns": source.relatch_after_ns,
            "relatch": (source.base, source.prefix),
        }
    return terms.host or pinned, options


def engine_followed(ssrc: int, payload_type: int) -> int:
    """As Engine.add_session takes it."""
    return 1 << 40 | payload_type << 32 | ssrc


def engine_dscp(text: str) -> int:
    """As Engine.mark_session takes it."""
    return 64 if text == fields.DSCP_COPY else int(text or -1)


def engine_class(text: str) -> int | None:
    """As Engine.set_report_class takes it."""
    return CLASSES[text] if text else None


def engine_reading(terms: Terms) -> int:
    """The bits of Engine.read_session."""
    checked = False if terms.srtp else terms.check_padding
    bits = READINGS["srtp"] if terms.srtp else 0
    if checked is not None:
        bits |= READINGS["padding"] if checked else READINGS["no_padding"]
    return bits | (READINGS["no_rtcp"] if terms.rtcp_mux is False else 0)


@contextmanager
def engine_judges(ssrc: int, terms: Terms) -> Iterator[None]:
    """What the engine says against a source, as AlreadyExistsError and LimitError."""
    try:
        yield
    except FileExistsError:
        raise source_taken(ssrc, terms) from None
    except OSError as error:
        if error.errno != errno.EMLINK:
            raise
        most = SENDER_NETWORKS if terms.any_ssrc else SSRC_NETWORKS
        which = "that take any SSRC" if terms.any_ssrc else f"with SSRC {ssrc:#010x}"
        raise LimitError(
            f"{most} sessions {which} are fed by networks or latches already, the most there can"
            " be; name an address, or an SSRC of its own",
            field="source_policy",
            limit=most,
        ) from None


def source_taken(ssrc: int, terms: Terms, holder: str = "") -> AlreadyExistsError:
    """To be raised. `holder` is the session that has it, as who asks may know it."""
    if terms.ingest_port:
        return port_taken(terms.ingest_port)
    source = (terms.host and terms.host.ip) or terms.feeder or terms.source.text or "anybody"
    if terms.any_ssrc and terms.source.policy is SourcePolicy.LATCH and terms.pinned is None:
        return AlreadyExistsError(
            f"{holder or 'a session'} takes other SSRCs from {source}, and waits for its first"
            " packet, as this one would; let its source come first, or give this one the address"
            " of its own (`rtpfanout knocks` lists who sends), or a port of its own (ingest_port)",
            field="ssrc_policy",
        )
    if terms.any_ssrc:
        return AlreadyExistsError(
            f"{holder or 'a session'} takes other SSRCs from {source}; where one source sends"
            " several, give each its ssrc and ssrc_policy exact",
            field="ssrc_policy",
        )
    return AlreadyExistsError(
        f"a session with SSRC {ssrc:#010x} from {source} exists", field="ssrc"
    )
