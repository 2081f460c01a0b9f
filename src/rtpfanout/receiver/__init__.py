"""Receiving from a server: by a join token, also behind NAT, or as a subscriber who consents.

`Membership` is the protocol without any input or output: it is told the time and what
arrived, and says what to send and when. `Receiver` puts a UDP socket to it, and
`AsyncReceiver` one of an asyncio loop. docs/api.md has the protocol.
"""

from rtpfanout.receiver.membership import (
    FIRST_RETRY_SECS,
    LONGEST_RETRY_SECS,
    MEMBER_RETRY_SECS,
    REFRESH_SECS,
    SILENCE_SECS,
    Membership,
    MemberState,
)
from rtpfanout.receiver.sockets import AsyncReceiver, Receiver

__all__ = [
    "FIRST_RETRY_SECS",
    "LONGEST_RETRY_SECS",
    "MEMBER_RETRY_SECS",
    "REFRESH_SECS",
    "SILENCE_SECS",
    "AsyncReceiver",
    "MemberState",
    "Membership",
    "Receiver",
]
