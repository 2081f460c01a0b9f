"""What the engine is told of a session's payloads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtpfanout.model import MediaType

if TYPE_CHECKING:
    from rtpfanout._fastpath import Engine
    from rtpfanout.sessions.terms import Terms

VIDEO_CLOCK_RATE = 90_000
"""Of nearly all video (RFC 3551 section 5), until there is something better."""


def set_media(engine: Engine, handle: int, terms: Terms, media_type: MediaType) -> None:
    """What was told, or what the media type lets assume."""
    encoding = terms.encoding
    assumed = VIDEO_CLOCK_RATE if media_type is MediaType.VIDEO else 0
    if encoding is None:
        engine.set_media(handle, assumed_clock_rate=assumed, sealed=terms.srtp)
        return
    engine.set_media(
        handle,
        encoding.name,
        payload_type=encoding.payload_type,
        clock_rate=encoding.usual_clock_rate,
        assumed_clock_rate=assumed,
        sealed=terms.srtp,
        has_parameter_sets=encoding.has_parameter_sets,
    )
