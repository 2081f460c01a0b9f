"""The sections of the configuration: keys that stand together, below a name of their own."""

from pydantic import BaseModel, ConfigDict

from rtpfanout.config.types import (
    Kinds,
    LogFormat,
    LogLevel,
    Networks,
    Number,
    Seconds,
    StorePath,
    Switch,
    Text,
    Texts,
    Url,
    number,
    setting,
)
from rtpfanout.networks import NetworkSet


class Section(BaseModel):
    """What all have in common."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSettings(Section):
    """Files in PEM; when they change they are read again, without a restart."""

    certificate: Text = setting("", "The server's certificate chain. Empty: no TLS.")
    key: Text = setting("", "The key of that certificate.")
    client_ca: Text = setting(
        "", "Callers need a certificate of this authority. Empty: they need none."
    )


class AuthSettings(Section):
    """Without keys and without tls.client_ca every caller may do everything."""

    jwt_keys: Text = setting(
        "",
        "File with the keys that bearer tokens are signed with: a JWKS, or public keys in PEM. "
        "Empty: no tokens are taken.",
    )
    issuer: Text = setting("", "What `iss` of a token must be. Empty: anything.")
    audience: Text = setting("", "What `aud` of a token must hold. Empty: it must have none.")
    certificate_roles: Texts = setting(
        (),
        "What callers with a certificate and no token may do: common or alternative name, role, "
        'and labels that confine it, such as "wall-2 viewer site=north". * is any other name. '
        'Empty: "* admin" or, with jwt_keys, nothing.',
    )


class AddressPolicySettings(Section):
    """Where subscribers may be. See `policy` for the rules that always hold."""

    allow: Networks = setting(
        NetworkSet(),
        "Networks that subscribers may be in; empty: any. Multicast, link-local and loopback "
        'addresses also need an entry inside those ranges here, for instance ["239.0.0.0/8", '
        '"0.0.0.0/0", "::/0"] for one multicast range beside all else.',
    )
    deny: Networks = setting(
        NetworkSet(), "Networks that subscribers may not be in. Wins over allow."
    )


class ConsentSettings(Section):
    """For sessions with consent = "echo"."""

    timeout_secs: Seconds = number(
        30,
        (5, 30),
        "A subscriber that must consent gets no more packets when its last echo is this many "
        "seconds ago (RFC 7675 asks for 30 at the most).",
    )


class LimitsSettings(Section):
    """Caps over all sessions. What is beyond is refused with RESOURCE_EXHAUSTED."""

    max_subscribers: Number = number(
        10_000_000, (1, 100_000_000), "Subscribers of all sessions together."
    )
    max_subscribers_per_ip: Number = number(
        0,
        (0, 100_000_000),
        "Subscriptions of one IP address, over all sessions and ports. 0: any number.",
    )


class StoreSettings(Section):
    """A SQLite file that one server has to itself."""

    path: StorePath = setting(
        "auto",
        "The file that sessions and subscribers are kept in over a restart. auto is "
        "sessions-PORT.db in $STATE_DIRECTORY, for root in /var/lib/rtpfanout, else in "
        "~/.local/state/rtpfanout. :memory: keeps nothing, and neither does auto at port 0.",
    )


class OverloadSettings(Section):
    """High-water marks; below four fifths of a mark for two seconds it is open again."""

    busy: Seconds = number(
        0.95,
        (0, 1),
        "Share of its time that the busiest worker may be sending before new sessions and "
        "subscribers are refused. 0: not watched.",
    )
    kernel_drops: Seconds = number(
        1,
        (0, 1e9),
        "Datagrams a second lost in a full receive queue, three seconds in a row and a thousandth "
        "of what comes, before new sessions and subscribers are refused. 0: not watched.",
    )
    memory_mib: Number = number(
        0,
        (0, 1_048_576),
        "Resident memory in MiB before new sessions and subscribers are refused. 0: not watched.",
    )
    shed: Switch = setting(
        True,
        "Where packets of a session go on being dropped for overload, stop sending to some of its "
        "subscribers instead: monitors first, then recorders, pilots never.",
    )


class EventSettings(Section):
    """Hooks: who is told what happens. Off without a URL."""

    webhook: Url = setting(
        "",
        "URL that events are posted to as JSON, up to 100 at a time, again and again until it "
        "answers 2xx. No redirect is followed, and no proxy asked. Empty: none.",
    )
    webhook_secret: Text = setting(
        "",
        "File with the secret that each delivery is signed with, as Standard Webhooks has it: "
        "whsec_ and base64, or any text of 16 bytes or more; a line for each that is in use. Read "
        "again for each delivery. Empty: they are not signed.",
    )
    webhook_kinds: Kinds = setting(
        (),
        'Only events of these kinds: ["silent", "frozen", "back", "overload"]. Empty: all.',
    )


class LogSettings(Section):
    """The server's own log, on stderr."""

    level: LogLevel = setting("info", "The least severe level that is logged.")
    format: LogFormat = setting("auto", "auto is console on a terminal and json everywhere else.")
