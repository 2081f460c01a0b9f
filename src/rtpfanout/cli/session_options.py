"""What describes a session on the command line: the options of `create` and `update`."""

import inspect
import ipaddress
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from rtpfanout import model
from rtpfanout.cli.session_choice import choose, complete_session
from rtpfanout.cli.session_choice import connect as connect  # the same for every command
from rtpfanout.cli.session_rtcp import RTCP_TERMS
from rtpfanout.model import Consent, LatchScope, SourcePolicy, SsrcPolicy

_Command = TypeVar("_Command", bound=Callable[..., None])
ANYBODY = "any"
"""As SOURCE: whoever sends first."""
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_ENCODING = re.compile(
    r"(?:(?P<payload_type>\d{1,3}):)?(?P<name>\w*)"
    r"(?:/(?P<clock_rate>\d{1,9})(?:/(?P<channels>\d{1,3}))?)?",
    re.ASCII,
)
_RATE = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[kMG]?)")


def parse_bits(text: str) -> int:
    """Bits per second: ``8000000``, ``8M`` or ``1.5G``; 0 is no limit."""
    match = _RATE.fullmatch(text)
    bits = round(float(match["number"]) * _UNITS[match["unit"]]) if match else -1
    if not 0 <= bits < 2**64:
        raise typer.BadParameter(f"{text!r} is not bits per second such as 8M or 2500000")
    return bits


def parse_encoding(text: str) -> dict[str, Any]:
    """``H264``, ``96:H264/90000`` or ``97:L16/44100/2``, as rtpmap has it; empty: none."""
    match = _ENCODING.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not [PT:]NAME[/HZ[/CHANNELS]], such as 96:H264")
    said = {
        name: int(match[name]) for name in ("payload_type", "clock_rate", "channels") if match[name]
    }
    return {"name": match["name"], **said}


def parse_label(text: str) -> tuple[str, str]:
    """``key=value``; the server judges the two."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


def read_text(path: Path) -> str:
    """Of a file, or of standard input. Raises typer.BadParameter."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(errors="replace")
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="'--sdp'") from None
    if not text.strip():
        raise typer.BadParameter(f"{path} is empty: not written yet?", param_hint="'--sdp'")
    return text


def read_key(path: Path) -> bytes:
    """The file's bytes as they are. Raises typer.BadParameter."""
    try:
        return path.read_bytes()
    except OSError as error:
        hint = "'--move-key-file'"
        raise typer.BadParameter(f"{path}: {error.strerror}", param_hint=hint) from None


SessionId = Annotated[
    str,
    typer.Argument(
        metavar="SESSION",
        help="Its name, its id, or a beginning that only its id has.",
        autocompletion=complete_session,
        callback=choose,
    ),
]
SessionIds = Annotated[
    list[str],
    typer.Argument(
        metavar="SESSION",
        help="Names, ids, or beginnings that one id alone has.",
        autocompletion=complete_session,
        callback=choose,
    ),
]
TERMS: dict[str, Any] = {
    "name": Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Such as rover-7/front. With a name it stays until it is deleted; without it ends "
            "after session_timeout_secs without packets.",
        ),
    ],
    "idle_timeout_secs": Annotated[
        float | None,
        typer.Option(
            "--idle-timeout",
            min=0,
            metavar="SECONDS",
            help="Delete it after so long without packets, whether it has a name or not; 0: never.",
        ),
    ],
    "ingest_port": Annotated[
        str | None,
        typer.Option(
            metavar="PORT",
            help="A port of its own, of the server's ingest_ports: a number, or auto for the next "
            "free one. SOURCE feeds it there, whatever its SSRC.",
        ),
    ],
    **RTCP_TERMS,
    "dscp": Annotated[
        str | None,
        typer.Option(
            metavar="DSCP",
            help="How copies are marked: 0 to 63, or copy for what their packet came with.",
        ),
    ],
    "sdp": Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What its packets carry, as ffmpeg prints it or a camera ships it; - is standard "
            "input.",
        ),
    ],
    "encoding": Annotated[
        Any,
        typer.Option(
            parser=parse_encoding,
            metavar="[PT:]NAME[/HZ[/CHANNELS]]",
            help="The same in a word: H264, or 97:L16/44100/2. Without either, its packets tell.",
        ),
    ],
    "source_policy": Annotated[
        str | None,
        typer.Option(
            help="What SOURCE names: exact (one address), ip (any port of one), cidr (a network) "
            "or latch (whoever sends first).",
            autocompletion=lambda: [each.value for each in SourcePolicy],
        ),
    ],
    "latch_window_secs": Annotated[
        float | None,
        typer.Option(
            "--latch-window",
            min=0,
            metavar="SECONDS",
            help="Of latch: how long the first packet may pin the source.",
        ),
    ],
    "relatch_after_secs": Annotated[
        float | None,
        typer.Option(
            "--relatch-after",
            min=0,
            metavar="SECONDS",
            help="Of latch: a silence after which another may be pinned.",
        ),
    ],
    "latch_scope": Annotated[
        str | None,
        typer.Option(
            help="Of latch: the first packet pins its address and port, or with ip any port of it.",
            autocompletion=lambda: [each.value for each in LatchScope],
        ),
    ],
    "ssrc_policy": Annotated[
        str | None,
        typer.Option(
            help="follow (one SSRC at a time, and the next when the encoder restarts), exact (that "
            "of --ssrc alone) or any (several at once).",
            autocompletion=lambda: [each.value for each in SsrcPolicy],
        ),
    ],
    "srtp": Annotated[
        bool | None, typer.Option(help="The payload is encrypted: nothing of it is looked at.")
    ],
    "check_padding": Annotated[
        bool | None,
        typer.Option(help="Drop what has padding that does not fit; else as the server says."),
    ],
    "rtcp_mux": Annotated[
        bool | None,
        typer.Option(help="--no-rtcp-mux: payload types 64 to 95 with marker are RTP, not RTCP."),
    ],
    "labels": Annotated[
        list[Any] | None,
        typer.Option("--label", parser=parse_label, metavar="KEY=VALUE", help="May be repeated."),
    ],
    "ingest_limit_bps": Annotated[
        int | None,
        typer.Option(
            "--ingest-limit",
            parser=parse_bits,
            metavar="BITS/S",
            help="Most that is let in: 8M. 0: any.",
        ),
    ],
    "max_subscribers": Annotated[
        int | None, typer.Option(min=0, metavar="N", help="0: as many as the server allows.")
    ],
    "consent": Annotated[
        str | None,
        typer.Option(
            help="none, or echo: subscribers get packets only while they echo a cookie.",
            autocompletion=lambda: [each.value for each in Consent],
        ),
    ],
    "move_key": Annotated[
        Path | None,
        typer.Option(
            "--move-key-file",
            metavar="FILE",
            help="16 to 64 bytes with which the source signs that it moved.",
        ),
    ],
}
"""The options of `create` and `update`, by what SessionClient calls them; see `takes_terms`."""
SubscriberClass = Annotated[
    str,
    typer.Option(
        "--class",
        help="pilot, recorder or monitor: under overload monitors go first, pilots last.",
        autocompletion=lambda: [each.value for each in model.SubscriberClass],
    ),
]
Selector = Annotated[
    list[str] | None,
    typer.Option("--label", metavar="KEY=VALUE", help="Only with this label; may be repeated."),
]


def parse_ssrc(text: str) -> int:
    """``0x1234abcd`` or decimal."""
    try:
        ssrc = int(text, 0)
    except ValueError:
        ssrc = -1
    if not 0 <= ssrc < 2**32:
        raise typer.BadParameter(f"{text!r} is not 0 to 4294967295 or 0x0 to 0xffffffff")
    return ssrc


Ssrc = Annotated[
    int | None,
    typer.Option("--ssrc", parser=parse_ssrc, metavar="SSRC", help="Decimal, or hex with 0x."),
]


def creation(source: str, ssrc: int | None, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What people mean who give a source, perhaps an SSRC, and `options`: (address, options)."""
    policy = options.setdefault("ssrc_policy", SsrcPolicy.FOLLOW.value)
    if policy == SsrcPolicy.EXACT and ssrc is None:
        raise typer.BadParameter("--ssrc-policy exact takes one, so give --ssrc")
    if source == ANYBODY:
        if options.setdefault("source_policy", SourcePolicy.LATCH.value) != SourcePolicy.LATCH:
            raise typer.BadParameter("SOURCE any is of --source-policy latch alone")
        source = ""
    if options.get("source_policy") == SourcePolicy.LATCH:
        options.setdefault("latch_scope", LatchScope.IP.value if not source else "")
    return source, options


def instead_of(source: str) -> str:
    """What may be meant by a SOURCE that is no address with its port; else nothing."""
    kind = ""
    with suppress(ValueError):
        ipaddress.ip_network(source, strict=False)
        kind = "cidr" if "/" in source else "ip"
    if kind:
        return f"; for any port of it give --source-policy {kind}"
    if any(character in source for character in ".:"):
        return ""
    return "; for whoever sends first give any"


def takes_terms(*, after: str) -> Callable[[_Command], _Command]:
    """A command with `**terms` gets the options TERMS, behind its parameter `after`."""

    def decorate(command: _Command) -> _Command:
        signature = inspect.signature(command)
        parameters = []
        for own in signature.parameters.values():
            if own.kind is not inspect.Parameter.VAR_KEYWORD:
                parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            if own.name == after:
                parameters += [
                    inspect.Parameter(
                        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind
                    )
                    for name, kind in TERMS.items()
                ]
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def given(terms: Mapping[str, Any]) -> Any:
    """Those that were given, for SessionClient. Raises typer.BadParameter."""
    said = {name: value for name, value in terms.items() if value not in (None, [])}
    if "labels" in said:
        said["labels"] = dict(said["labels"])
    if "sdp" in said:
        said["sdp"] = read_text(said["sdp"])
    if "move_key" in said:
        said["move_key"] = read_key(said["move_key"])
    return said


def selector(labels: Sequence[str] | None) -> str:
    """As the API spells it."""
    return ",".join(labels or ())
