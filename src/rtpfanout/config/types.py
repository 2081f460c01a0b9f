"""What a value may be, in terms pydantic and a reader understand."""

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator
from pydantic_settings import NoDecode

from rtpfanout.model import LABEL, Address, EventKind, parse_ip, unmapped
from rtpfanout.multicast import IngestGroup
from rtpfanout.networks import Network, NetworkSet
from rtpfanout.portrange import PortRange

MOST_SERIES_LABELS = 8


@dataclass(frozen=True, slots=True)
class Expected:
    """Metadata of a field: what its value must be, in words."""

    text: str


def setting(default: Any, description: str) -> Any:
    """A key of the configuration."""
    return Field(default=default, description=description)


def number(default: float, bounds: tuple[float, float], description: str) -> Any:
    """The same of a number: from one bound to the other, both included."""
    return Field(default=default, ge=bounds[0], le=bounds[1], description=description)


def _parse_endpoint(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("not a text")
    return Address.parse(value)


def _parse_no_endpoint(value: object) -> Address | None:
    return None if value in (None, "") else _parse_endpoint(value)


def _parse_ports(value: object) -> PortRange:
    if isinstance(value, PortRange):
        return value
    if not isinstance(value, str):
        raise ValueError("not a text")
    return PortRange.parse(value)


def _parse_ip_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    ip = unmapped(parse_ip(value)) if value else None
    if ip is not None and (ip.is_unspecified or ip.is_multicast):
        raise ValueError(f"{value!r} is no address of a host")
    return str(ip or "")


def _entries(value: object) -> list[Any] | tuple[Any, ...]:
    """A list; as a flag or in the environment a JSON list or comma-separated text."""
    if isinstance(value, str):
        value = _split_list(value)
    if not isinstance(value, list | tuple):
        raise ValueError("not a list")
    return value


def _parse_networks(value: object) -> NetworkSet:
    if isinstance(value, NetworkSet):
        return value
    return NetworkSet.read(_entries(value), _parse_network)


def _parse_groups(value: object) -> tuple[IngestGroup, ...]:
    groups, wrong = [], []
    for entry in _entries(value):
        try:
            groups.append(_parse_group(entry))
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError(", ".join(wrong))
    return tuple(groups)


def _parse_group(entry: object) -> IngestGroup:
    if isinstance(entry, IngestGroup):
        return entry
    if not isinstance(entry, str):
        raise ValueError(f"{entry!r} is not a group")
    return IngestGroup.parse(entry)


def _parse_cpus(value: object) -> tuple[int, ...]:
    return tuple(map(_parse_cpu, _entries(value)))


def _parse_cpu(entry: object) -> int:
    if isinstance(entry, str) and entry.isascii() and entry.isdigit() and len(entry) <= 4:
        entry = int(entry)
    if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry < 8192:
        raise ValueError(f"{entry!r} is not the number of a CPU")
    return entry


def _parse_texts(value: object) -> tuple[str, ...]:
    entries = _entries(value)
    if not all(isinstance(entry, str) for entry in entries):
        raise ValueError("not a list of texts")
    return tuple(entries)


def series_label(key: str) -> str:
    """How a series names a session's label of that key: Prometheus has no '.', '/' or '-' there."""
    return "label_" + re.sub("[^A-Za-z0-9_]", "_", key)


def _parse_label_keys(value: object) -> tuple[str, ...]:
    keys = _parse_texts(value)
    for key in keys:
        if not LABEL.fullmatch(key):
            raise ValueError(f"{key!r} is no key of a label")
    names = [series_label(key) for key in keys]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"more than one of them would be {', '.join(sorted(twice))}")
    if len(keys) > MOST_SERIES_LABELS:
        raise ValueError(f"{len(keys)} of them; {MOST_SERIES_LABELS} are the most")
    return keys


def _split_list(text: str) -> object:
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"not a JSON list ({error})") from None
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_network(entry: object) -> Network:
    if isinstance(entry, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return entry
    if not isinstance(entry, str) or "%" in entry:
        raise ValueError(f"{entry!r} is not a network")
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        raise ValueError(f"{entry!r} is not a network") from None
    if "/" in entry and ipaddress.ip_address(entry.partition("/")[0]) != network.network_address:
        raise ValueError(f"{entry!r} has host bits set, did you mean {str(network)!r}?")
    return network


def _parse_path(value: object) -> object:
    if isinstance(value, str) and (not value.strip() or "\0" in value):
        raise ValueError(f"{value!r} is not a path")
    return value


def _parse_url(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    if not value:
        return value
    if not re.fullmatch(r"[\x21-\x7e]+", value):
        raise ValueError("it has spaces, control characters, or others that a URL has to encode")
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("no http:// or https:// with a host")
    if parts.port == 0:  # of others that are none it raises ValueError
        raise ValueError("0 is no port")
    if parts.username is not None or parts.fragment:
        raise ValueError("neither user names nor fragments are sent")
    return value


def _parse_kinds(value: object) -> tuple[str, ...]:
    kinds = _parse_texts(value)
    if unknown := [kind for kind in kinds if kind not in set(EventKind)]:
        raise ValueError(f"{unknown[0]!r} is no kind of event; there are {', '.join(EventKind)}")
    return kinds


def _not_bool(value: object) -> object:
    # Python counts True as the number 1; `max_sessions = true` is a mistake.
    if isinstance(value, bool):
        raise ValueError("not a number")
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


Endpoint = Annotated[
    Address,
    NoDecode,
    PlainValidator(_parse_endpoint),
    PlainSerializer(lambda address: str(address)),
    Expected("ip:port or [ipv6]:port, without host names"),
]
OptionalEndpoint = Annotated[
    Address | None,
    NoDecode,
    PlainValidator(_parse_no_endpoint),
    PlainSerializer(lambda address: str(address or "")),
    Expected("ip:port or [ipv6]:port, without host names, or nothing"),
]
Ports = Annotated[
    PortRange,
    NoDecode,
    PlainValidator(_parse_ports),
    PlainSerializer(str),
    Expected('a range such as "6000-7999", or nothing'),
]
IpText = Annotated[
    str,
    PlainValidator(_parse_ip_text),
    Expected("an IPv4 or IPv6 address, or nothing"),
]
Networks = Annotated[
    NetworkSet,
    NoDecode,
    PlainValidator(_parse_networks),
    PlainSerializer(NetworkSet.texts),
    Expected('a list of networks such as ["10.0.0.0/8", "2001:db8::/32"]'),
]
Groups = Annotated[
    tuple[IngestGroup, ...],
    NoDecode,
    PlainValidator(_parse_groups),
    PlainSerializer(lambda groups: [str(group) for group in groups]),
    Expected(
        'a list of multicast groups such as ["239.1.2.3", "ff15::7%eth0", '
        '"192.0.2.7@232.1.2.3%eth0"]'
    ),
]
Cpus = Annotated[
    tuple[int, ...],
    NoDecode,
    PlainValidator(_parse_cpus),
    PlainSerializer(list),
    Expected("a list of CPU numbers such as [0, 1]"),
]
Text = Annotated[str, Expected("a text")]
Texts = Annotated[
    tuple[str, ...],
    NoDecode,
    PlainValidator(_parse_texts),
    PlainSerializer(list),
    Expected('a list of texts such as ["one", "two"]'),
]
LabelKeys = Annotated[
    tuple[str, ...],
    NoDecode,
    PlainValidator(_parse_label_keys),
    PlainSerializer(list),
    Expected('a list of keys of labels such as ["vehicle", "site"]'),
]
Url = Annotated[str, PlainValidator(_parse_url), Expected("an http:// or https:// URL, or nothing")]
Kinds = Annotated[
    tuple[str, ...],
    NoDecode,
    PlainValidator(_parse_kinds),
    PlainSerializer(list),
    Expected('a list of kinds of events such as ["silent", "back"]'),
]
StorePath = Annotated[str, BeforeValidator(_parse_path), Expected('a path, "auto" or ":memory:"')]
Switch = Annotated[bool, Expected("true or false")]
Number = Annotated[int, BeforeValidator(_not_bool)]
Seconds = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
LogFormat = Annotated[Literal["auto", "console", "json"], BeforeValidator(_lower)]
