"""What a client has set up: tracks, one for each session, that are played together.

RFC 2326 calls it a session; here that word has another meaning.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rtpfanout.rtsp.outlet import Dropped, Outlet

if TYPE_CHECKING:
    from rtpfanout.rtsp.credentials import Grant
    from rtpfanout.rtsp.relay import Relay
    from rtpfanout.rtsp.transport import Transport
    from rtpfanout.sessions import Guest, Place


@dataclass(eq=False, slots=True)
class Track:
    """One session for one client: a guest of it while it plays, as long as `grant` is good."""

    session_id: str
    grant: Grant
    transport: Transport
    place: Place
    relay: Relay | None = None
    outlet: Outlet | None = None
    guest: Guest | None = None

    def close(self) -> None:
        """Its sockets; the guest is removed elsewhere."""
        if self.relay:
            self.relay.close()


@dataclass(eq=False, slots=True)
class Playback:
    """`grant` is of who began it. `alive_at` and `renewed_at` are seconds of time.monotonic(): of
    the last sign of life, and of that up to which leases were prolonged."""

    grant: Grant
    alive_at: float
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    tracks: dict[str, Track] = field(default_factory=dict)
    dropped: Dropped = field(default_factory=Dropped)
    is_playing: bool = False
    began_at: float = 0.0
    renewed_at: float = 0.0
    looked_at: float = 0.0

    @property
    def guests(self) -> list[Guest]:
        """Of those tracks that have one."""
        return [track.guest for track in list(self.tracks.values()) if track.guest]

    @property
    def is_interleaved(self) -> bool:
        """Packets go over the client's connection."""
        return any(track.relay for track in self.tracks.values())

    def by_channel(self, channel: int) -> Track | None:
        """Whose RTCP comes on that channel."""
        for track in self.tracks.values():
            channels = track.transport.channels
            if channels and channels[1] == channel:
                return track
        return None

    def free_channels(self) -> tuple[int, int]:
        """The next two that no track has."""
        used = {c for track in self.tracks.values() for c in track.transport.channels or ()}
        first = next(c for c in range(0, 256, 2) if not used & {c, c + 1})
        return first, first + 1
