"""SDP (RFC 8866) both ways: what a source's says of its payloads, and what a player is to hear of
a session.

What is read comes from cameras and programs: it is taken apart and only what has the shape of a
parameter is kept, so nothing of it reaches a player that could be another line. No library of the
kind is kept and small: those there are come with a whole WebRTC stack.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rtpfanout.model import Address, IPAddress

LONGEST_SDP = 65_536
LONGEST_FMTP = 4096
MOST_SECTIONS = 64


class _Kind(NamedTuple):
    """What is usual of an encoding. 0: it has to be said, or does not apply."""

    media: str
    clock_rate: int
    channels: int = 0


ENCODINGS: Mapping[str, _Kind] = {
    "H264": _Kind("video", 90_000),
    "H265": _Kind("video", 90_000),
    "VP8": _Kind("video", 90_000),
    "VP9": _Kind("video", 90_000),
    "AV1": _Kind("video", 90_000),
    "JPEG": _Kind("video", 90_000),
    "OPUS": _Kind("audio", 48_000, 2),
    "PCMU": _Kind("audio", 8000, 1),
    "PCMA": _Kind("audio", 8000, 1),
    "MP2T": _Kind("video", 90_000),
    "L16": _Kind("audio", 0),
}
"""By the names of SDP, of which case does not matter."""
_ALIASES = {"HEVC": "H265"}
_STATIC = {
    0: ("PCMU", 8000, 1),
    8: ("PCMA", 8000, 1),
    10: ("L16", 44_100, 2),
    11: ("L16", 44_100, 1),
    26: ("JPEG", 90_000, 0),
    33: ("MP2T", 90_000, 0),
}
"""RFC 3551 section 6, as far as we know the encoding."""
_SET_PARAMETERS = {
    "H264": ("sprop-parameter-sets",),
    "H265": ("sprop-vps", "sprop-sps", "sprop-pps"),
}
"""RFC 6184 section 8.1, RFC 7798 section 7.1: NAL units in base64, separated by commas."""
_H265_SETS = {32: "sprop-vps", 33: "sprop-sps", 34: "sprop-pps"}
_H264_SPS = 7

_LINE = re.compile(r"([a-z])=(.*)")
_MEDIA = re.compile(
    r"([a-z]+) +\d{1,5}(?:/\d+)? +([\w/]*\bRTP/S?AVPF?\b[\w/]*)((?: +\d{1,3})+)", re.A
)
_RTPMAP = re.compile(r"rtpmap: *(\d{1,3}) +([\w.+-]+)/(\d{1,10})(?:/(\d{1,3}))?", re.ASCII)
_FMTP = re.compile(r"fmtp: *(\d{1,3}) +(.+)", re.ASCII)
_SSRC = re.compile(r"ssrc: *(\d{1,10})\b.*", re.ASCII)
_PARAMETER = re.compile(r"[!#-:<-~]*")
"""Visible ASCII without quotation marks and semicolons."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """What packets of a session carry. `payload_type` None: whichever comes first.

    `clock_rate` in Hz; it and `channels` are 0 where nothing is said. `fmtp`: format parameters as
    ``packetization-mode=1; sprop-parameter-sets=...``. See `encoding_of`.
    """

    name: str
    payload_type: int | None = None
    clock_rate: int = 0
    channels: int = 0
    fmtp: str = ""

    @property
    def usual_clock_rate(self) -> int:
        """`clock_rate`, or that of the encoding; 0: nobody knows."""
        return self.clock_rate or ENCODINGS[self.name].clock_rate

    @property
    def has_parameter_sets(self) -> bool:
        """A decoder can begin with what `fmtp` says."""
        parameters = _parameters(self.fmtp)
        wanted = _SET_PARAMETERS.get(self.name, ())
        return bool(wanted) and all(parameters.get(name) for name in wanted)


@dataclass(frozen=True, slots=True)
class Section:
    """One ``m=`` of a description: audio, video or whatever it says, and its packets.

    `encodings` are those of ENCODINGS in its order, `others` the names of those that are not.
    `ssrc`: the first that is told. `is_encrypted`: SRTP.
    """

    media: str
    encodings: tuple[Encoding, ...] = ()
    others: tuple[str, ...] = ()
    ssrc: int | None = None
    is_encrypted: bool = False


def encoding_of(
    name: str,
    payload_type: int | None = None,
    clock_rate: int = 0,
    channels: int = 0,
    fmtp: str = "",
) -> Encoding:
    """From what a request says. Raises ValueError that says what is wrong with it."""
    known = _known(name)
    if known is None:
        raise ValueError(f"{_shown(name)} is none of {', '.join(ENCODINGS)}")
    if payload_type is not None and not 0 <= payload_type <= 127:
        raise ValueError(f"payload_type {payload_type} is not 0 to 127")
    if not 0 <= clock_rate < 2**31:
        raise ValueError(f"clock_rate {clock_rate} is not 0 to {2**31 - 1}")
    if not 0 <= channels <= 255:
        raise ValueError(f"channels {channels} is not 0 to 255")
    if len(fmtp) > LONGEST_FMTP:
        raise ValueError(f"fmtp has {len(fmtp)} characters, more than {LONGEST_FMTP}")
    parameters = _parameters(fmtp)
    if _bare(_joined(parameters)) != _bare(fmtp):
        raise ValueError(f"fmtp {_shown(fmtp)} is not name=value; name=value, each of them once")
    return Encoding(known, payload_type, clock_rate, channels, _joined(parameters))


def read(text: str) -> list[Section]:
    """The sections that are of RTP, in their order. Raises ValueError that says what is wrong.

    What stands before ``v=0`` is passed over: ffmpeg prints ``SDP:`` there.
    """
    if len(text) > LONGEST_SDP:
        raise ValueError(f"it has {len(text)} characters, more than {LONGEST_SDP}")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text)]
    if "v=0" not in lines:
        raise ValueError("it has no line v=0, with which SDP begins")
    sections: list[tuple[re.Match[str], list[str]]] = []
    of_section: list[str] = []  # of the session first, which tells nothing that we need
    for line in lines[lines.index("v=0") + 1 :]:
        match = _LINE.fullmatch(line)
        if match and match[1] == "m":
            of_section = []
            if media := _MEDIA.fullmatch(match[2]):
                sections.append((media, of_section))
        elif match and match[1] == "a":
            of_section.append(match[2])
    if not sections:
        raise ValueError("it has no media of RTP, as in m=video 5004 RTP/AVP 96")
    if len(sections) > MOST_SECTIONS:
        raise ValueError(f"it has {len(sections)} media, more than {MOST_SECTIONS}")
    return [_section(media, attributes) for media, attributes in sections]


def section_for(text: str, media_type: str) -> tuple[Section, Encoding]:
    """The one that a session of `media_type` is about, and its first encoding that we know.

    Of several of that media the first whose encoding we know. Raises ValueError.
    """
    sections = read(text)
    fitting = [section for section in sections if section.media == media_type]
    if not fitting and len(sections) == 1:
        raise ValueError(f"its media is {sections[0].media}; give --media-type to that effect")
    if not fitting:
        raise ValueError(f"it has no {media_type}, only {_listed(s.media for s in sections)}")
    for section in fitting:
        if section.encodings:
            return section, section.encodings[0]
    others = _listed(name for section in fitting for name in section.others) or "nothing"
    raise ValueError(f"of its {media_type}, {others}, none is of {', '.join(ENCODINGS)}")


@dataclass(frozen=True, slots=True)
class Stream:
    """What a player is to hear of one session: a section of the description.

    `payload_type` and `clock_rate` are those of its packets, `parameter_sets` NAL units that came,
    which go before those of `encoding`. `bits_per_second` 0: not known. `has_mux`: RTCP comes to
    the same port. `control`: how RTSP (RFC 2326 section C.1) asks for it, visible ASCII.
    """

    to: Address
    encoding: Encoding
    payload_type: int
    parameter_sets: Sequence[bytes] = ()
    bits_per_second: float = 0.0
    is_encrypted: bool = False
    has_mux: bool = False
    ttl: int = 1
    control: str = ""

    @property
    def fmtp(self) -> str:
        """As in the description."""
        return _joined(self._parameters)

    @property
    def lacks_parameter_sets(self) -> bool:
        """A decoder has to wait for some in the packets."""
        wanted = _SET_PARAMETERS.get(self.encoding.name, ())
        return not all(self._parameters.get(name) for name in wanted)

    @property
    def _parameters(self) -> dict[str, str]:
        name, parameters = self.encoding.name, _parameters(self.encoding.fmtp)
        if name == "H264":
            parameters = {"packetization-mode": "1"} | parameters
        return parameters | _told_sets(name, self.parameter_sets)


def write(title: str, origin: IPAddress | None, number: int, streams: Sequence[Stream]) -> str:
    """A description of `streams` for who receives them, CRLF at the ends of lines.

    `title`: visible ASCII. `origin`: where they come from, None: it isn't known. `number` tells
    descriptions of one title apart, a later one being greater.
    """
    where = [_connection(stream) for stream in streams]
    is_one_place = len(set(where)) == 1
    lines = ["v=0", f"o=- {number} {number} {_network(origin or streams[0].to.ip)}", f"s={title}"]
    lines += where[:1] if is_one_place else []
    lines += ["t=0 0", "a=recvonly"]
    if any(stream.control for stream in streams):
        lines += ["a=control:*", "a=range:npt=now-"]
    for stream, connection in zip(streams, where, strict=True):
        lines += _lines_of(stream, None if is_one_place else connection)
    return "".join(f"{line}\r\n" for line in lines)


def _lines_of(stream: Stream, connection: str | None) -> list[str]:
    encoding, number = stream.encoding, stream.payload_type
    kind = ENCODINGS[encoding.name]
    profile = "SAVP" if stream.is_encrypted else "AVP"
    channels = encoding.channels or kind.channels
    lines = [f"m={kind.media} {stream.to.port} RTP/{profile} {number}"]
    if connection:
        lines.append(connection)
    if stream.bits_per_second >= 1000:
        lines.append(f"b=AS:{round(stream.bits_per_second / 1000)}")
    said_channels = f"/{channels}" if channels > 1 else ""
    name = "opus" if encoding.name == "OPUS" else encoding.name  # RFC 7587 has it so
    lines.append(f"a=rtpmap:{number} {name}/{encoding.usual_clock_rate}{said_channels}")
    if stream.fmtp:
        lines.append(f"a=fmtp:{number} {stream.fmtp}")
    if stream.has_mux:
        lines.append("a=rtcp-mux")
    if stream.control:
        lines.append(f"a=control:{stream.control}")
    return lines


def _network(ip: IPAddress) -> str:
    return f"IN IP{ip.version} {str(ip).partition('%')[0]}"


def _connection(stream: Stream) -> str:
    ip = stream.to.ip
    ttl = f"/{stream.ttl}" if ip.is_multicast and ip.version == 4 else ""
    return f"c={_network(ip)}{ttl}"


def _told_sets(name: str, units: Sequence[bytes]) -> dict[str, str]:
    """Format parameters with these NAL units; empty where there are none."""
    found: dict[str, list[str]] = {}
    parameters = {}
    for unit in units:
        if not unit:
            continue
        encoded = base64.b64encode(unit).decode("ascii")
        if name == "H264":
            found.setdefault("sprop-parameter-sets", []).append(encoded)
            if unit[0] & 0x1F == _H264_SPS and len(unit) > 3:
                parameters["profile-level-id"] = unit[1:4].hex().upper()
        elif name == "H265" and (kind := _H265_SETS.get(unit[0] >> 1 & 0x3F)):
            found.setdefault(kind, []).append(encoded)
    return parameters | {kind: ",".join(values) for kind, values in found.items()}


def _section(media: re.Match[str], attributes: Sequence[str]) -> Section:
    kind, protocol, numbers = media.groups()
    maps: dict[int, tuple[str, int, int]] = {}
    formats: dict[int, str] = {}
    ssrc = None
    for attribute in attributes:
        if match := _RTPMAP.fullmatch(attribute):
            clock_rate = int(match[3]) if int(match[3]) < 2**31 else 0
            maps[int(match[1])] = (match[2], clock_rate, min(255, int(match[4] or 0)))
        elif match := _FMTP.fullmatch(attribute):
            formats[int(match[1])] = match[2]
        elif ssrc is None and (match := _SSRC.fullmatch(attribute)) and int(match[1]) < 2**32:
            ssrc = int(match[1])
    encodings, others = [], []
    for number in map(int, numbers.split()):
        name, clock_rate, channels = maps.get(number) or _STATIC.get(number) or ("", 0, 0)
        known = _known(name)
        if known and number <= 127:
            fmtp = _joined(_parameters(formats.get(number, "")[:LONGEST_FMTP]))
            encodings.append(Encoding(known, number, clock_rate, channels, fmtp))
        else:
            others.append(name or str(number))
    return Section(kind, tuple(encodings), tuple(others), ssrc, "SAVP" in protocol)


def _known(name: str) -> str | None:
    upper = name.upper()
    upper = _ALIASES.get(upper, upper)
    return upper if upper in ENCODINGS else None


def _parameters(fmtp: str) -> dict[str, str]:
    """Those that have the shape of one, the first of each name; of sets those in base64."""
    found: dict[str, str] = {}
    for part in fmtp.split(";"):
        name, _, value = part.strip().partition("=")
        name, value = name.strip().lower(), value.strip()
        if not (name and _PARAMETER.fullmatch(name) and _PARAMETER.fullmatch(value)):
            continue
        if name.startswith("sprop-") and name[6:] in ("parameter-sets", "vps", "sps", "pps"):
            value = ",".join(filter(_is_base64, value.split(",")))
        found.setdefault(name, value)
    return found


def _joined(parameters: Mapping[str, str]) -> str:
    return "; ".join(f"{name}={value}" if value else name for name, value in parameters.items())


def _bare(fmtp: str) -> str:
    return fmtp.replace(" ", "").strip(";").lower()


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False


def _listed(words: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(words))


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def pack_encoding(encoding: Encoding | None) -> str:
    """As it is stored; "" for none."""
    return json.dumps(asdict(encoding)) if encoding else ""


def unpack_encoding(text: str) -> Encoding | None:
    """What `pack_encoding` made. Raises ValueError."""
    try:
        return encoding_of(**json.loads(text)) if text else None
    except TypeError as error:
        raise ValueError(f"its encoding is none: {error}") from None


def recalled_encoding(shown: Mapping[str, Any] | None) -> Encoding | None:
    """From what was shown of one, by whatever version of us."""
    if not shown:
        return None
    known = {each.name for each in fields(Encoding)}
    return Encoding(**{name: value for name, value in shown.items() if name in known})


def completed(encoding: Encoding, payload_type: int, clock_rate: int) -> Encoding:
    """`encoding` with what is known of the packets where it says nothing."""
    name, _, channels = _STATIC.get(payload_type, ("", 0, 0))
    return replace(
        encoding,
        payload_type=payload_type,
        clock_rate=encoding.clock_rate or clock_rate,
        channels=encoding.channels or (channels if name == encoding.name else 0),
    )
