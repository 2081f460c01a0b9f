"""Who calls the control API, what their role lets them do, and which sessions they see.

An identity comes from a bearer token (a JWT, RFC 7519) or from the client certificate. It has a
role, and perhaps labels that confine it: sessions without those labels do not exist for it.
"""

from rtpfanout.auth.access import FAILURES, Access, Caller, certificate_roles
from rtpfanout.auth.keys import ALGORITHMS, Keys
from rtpfanout.auth.rules import (
    ANYBODY,
    LOCAL,
    OPERATING,
    READING,
    SUBSCRIBING,
    UNCONFINED,
    Identity,
    Role,
    confine,
)

__all__ = [
    "ALGORITHMS",
    "ANYBODY",
    "FAILURES",
    "LOCAL",
    "OPERATING",
    "READING",
    "SUBSCRIBING",
    "UNCONFINED",
    "Access",
    "Caller",
    "Identity",
    "Keys",
    "Role",
    "certificate_roles",
    "confine",
]
