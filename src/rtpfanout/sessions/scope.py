"""Which sessions exist for the call that is being carried out.

Set by whoever takes calls, once it knows the caller; looked at where a session is found by its
id, under the lock. So each call answers for a foreign session as for none, in the same words and
at the same point of its checks, also when labels change meanwhile.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rtpfanout.model import Pairs

SCOPE: ContextVar[Pairs] = ContextVar("rtpfanout_scope", default=())
"""Labels that a session must have; none where the server itself is at work."""
