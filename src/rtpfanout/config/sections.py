"""The sections of the configuration: keys that stand together, below a name of their own."""

from pydantic import BaseModel, ConfigDict, Field

from rtpfanout.config.types import (
    LogFormat,
    LogLevel,
    Networks,
    Number,
    Seconds,
    StorePath,
    Switch,
    Text,
    Texts,
)
from rtpfanout.networks import NetworkSet


class Section(BaseModel):
    """What all have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Section):
    """Files in PEM; when they change they are read again, without a restart."""

    certificate: Text = Field(
        default="", description="The server's certificate chain. Empty: no TLS."
    )
    key: Text = Field(default="", description="The key of that certificate.")
    client_ca: Text = Field(
        default="",
        description="Callers need a certificate of this authority. Empty: they need none.",
    )


class AuthSettings(Section):
    """Without keys and without tls.client_ca every caller may do everything."""

    jwt_keys: Text = Field(
        default="",
        description="File with the keys that bearer tokens are signed with: a JWKS, or public keys "
        "in PEM. Empty: no tokens are taken.",
    )
    issuer: Text = Field(default="", description="What `iss` of a token must be. Empty: anything.")
    audience: Text = Field(
        default="", description="What `aud` of a token must hold. Empty: it must have none."
    )
    certificate_roles: Texts = Field(
        default=(),
        description="What callers with a certificate and no token may do: common or alternative "
        'name, role, and labels that confine it, such as "wall-2 viewer site=north". * is any '
        'other name. Empty: "* admin" or, with jwt_keys, nothing.',
    )


class AddressPolicySettings(Section):
    """Where subscribers may be. See `policy` for the rules that always hold."""

    allow: Networks = Field(
        default=NetworkSet(),
        description="Networks that subscribers may be in; empty: any. Multicast, link-local and "
        "loopback addresses also need an entry inside those ranges here, for instance "
        '["239.0.0.0/8", "0.0.0.0/0", "::/0"] for one multicast range beside all else.',
    )
    deny: Networks = Field(
        default=NetworkSet(),
        description="Networks that subscribers may not be in. Wins over allow.",
    )


class ConsentSettings(Section):
    """For sessions with consent = "echo"."""

    timeout_secs: Seconds = Field(
        default=30,
        ge=5,
        le=30,
        allow_inf_nan=False,
        description="A subscriber that must consent gets no more packets when its last echo is "
        "this many seconds ago (RFC 7675 asks for 30 at the most).",
    )


class LimitsSettings(Section):
    """Caps over all sessions. What is beyond is refused with RESOURCE_EXHAUSTED."""

    max_subscribers: Number = Field(
        default=10_000_000,
        ge=1,
        le=100_000_000,
        description="Subscribers of all sessions together.",
    )
    max_subscribers_per_ip: Number = Field(
        default=0,
        ge=0,
        le=100_000_000,
        description="Subscriptions of one IP address, over all sessions and ports. 0: any number.",
    )


class StoreSettings(Section):
    """A SQLite file that one server has to itself."""

    path: StorePath = Field(
        default="auto",
        description="The file that sessions and subscribers are kept in over a restart. auto is "
        "sessions-PORT.db in $STATE_DIRECTORY, for root in /var/lib/rtpfanout, else in "
        "~/.local/state/rtpfanout. :memory: keeps nothing, and neither does auto at port 0.",
    )


class OverloadSettings(Section):
    """High-water marks; below four fifths of a mark for two seconds it is open again."""

    busy: Seconds = Field(
        default=0.95,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of its time that the busiest worker may be sending before new sessions "
        "and subscribers are refused. 0: not watched.",
    )
    kernel_drops: Seconds = Field(
        default=1,
        ge=0,
        le=1e9,
        allow_inf_nan=False,
        description="Datagrams a second lost in a full receive queue, three seconds in a row and "
        "a thousandth of what comes, before new sessions and subscribers are refused. 0: not "
        "watched.",
    )
    memory_mib: Number = Field(
        default=0,
        ge=0,
        le=1_048_576,
        description="Resident memory in MiB before new sessions and subscribers are refused. 0: "
        "not watched.",
    )
    shed: Switch = Field(
        default=True,
        description="Where packets of a session go on being dropped for overload, stop sending to "
        "some of its subscribers instead: monitors first, then recorders, pilots never.",
    )


class LogSettings(Section):
    """The server's own log, on stderr."""

    level: LogLevel = Field(default="info", description="The least severe level that is logged.")
    format: LogFormat = Field(
        default="auto", description="auto is console on a terminal and json everywhere else."
    )
