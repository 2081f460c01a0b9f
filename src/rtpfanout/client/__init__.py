"""Clients of the SessionService (layer 4): one that blocks, and one for asyncio.

    with SessionClient("127.0.0.1:50051") as client:
        client.ensure_session("192.0.2.7:5000", 0x1234, "video", name="rover-7/front")
        client.add_subscriber("rover-7/front", "192.0.2.9:6000", ttl_secs=60)

`AsyncSessionClient` has the same calls as coroutines. Both end each call by a deadline,
repeat what is safe to repeat while the server is unavailable (`RetryPolicy`), and raise
the errors of `errors.py`. `watch_sessions` follows every change over reconnects, and
`SessionMirror` makes the current state of it; `watch_events` tells what happens, a line each.
"""

from rtpfanout.client.asynchronous import AsyncEventWatch, AsyncSessionClient, AsyncSessionWatch
from rtpfanout.client.blocking import EventWatch, SessionClient, SessionWatch
from rtpfanout.client.credentials import Credentials
from rtpfanout.client.mirror import SessionChange, SessionMirror
from rtpfanout.client.requests import (
    BATCH_SIZE,
    PAGE_SIZE,
    CreateOptions,
    EventOptions,
    ListOptions,
    SubscribeOptions,
    TermOptions,
    TokenOptions,
    TopOptions,
    UpdateOptions,
)
from rtpfanout.client.retry import NO_RETRIES, RetryPolicy
from rtpfanout.model import ChangeKind

__all__ = [
    "BATCH_SIZE",
    "NO_RETRIES",
    "PAGE_SIZE",
    "AsyncEventWatch",
    "AsyncSessionClient",
    "AsyncSessionWatch",
    "ChangeKind",
    "CreateOptions",
    "Credentials",
    "EventOptions",
    "EventWatch",
    "ListOptions",
    "RetryPolicy",
    "SessionChange",
    "SessionClient",
    "SessionMirror",
    "SessionWatch",
    "SubscribeOptions",
    "TermOptions",
    "TokenOptions",
    "TopOptions",
    "UpdateOptions",
]
