"""The header Transport (RFC 2326 section 12.39): what a client offers, and what is taken of it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from rtpfanout.model import IPAddress, Rtcp, unmapped
from rtpfanout.rtsp.wire import RefusedRequest

_PROFILE = re.compile(r"RTP/(S?AVPF?)(?:/(UDP|TCP))?")
_PAIR = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_MOST_OFFERS = 16


@dataclass(frozen=True, slots=True)
class Transport:
    """One that can be served.

    Over UDP `ports` are the client's, RTP and RTCP; over its connection `channels` are.
    """

    profile: str
    ports: tuple[int, int] = (0, 0)
    channels: tuple[int, int] | None = None
    is_interleaved: bool = False
    wants_mux: bool = False

    @property
    def rtcp(self) -> Rtcp:
        """What RTCP a client of these ports gets."""
        rtp, rtcp = self.ports
        if self.wants_mux or self.is_interleaved or rtcp == rtp:
            return Rtcp.MUX
        return Rtcp.NEXT_PORT if rtcp == rtp + 1 else Rtcp.OFF


def choose(header: str, peer: IPAddress) -> Transport:
    """The first offer that can be served. Raises RefusedRequest with what is wrong with the last.

    Nothing is ever sent to anybody but the `peer`.
    """
    offers = header.split(",", _MOST_OFFERS)[:_MOST_OFFERS]
    refusal = RefusedRequest(461, "no Transport is offered")
    for offer in offers:
        try:
            return _read(offer.strip(), peer)
        except RefusedRequest as error:
            if error.status == 403:
                raise
            refusal = error
    raise refusal


def answer(chosen: Transport, server_ports: tuple[int, int], source: str = "") -> str:
    """The header of the response; `source` where packets leave from another address."""
    parts = [chosen.profile, "unicast"]
    if chosen.is_interleaved:
        assert chosen.channels
        parts.append(f"interleaved={chosen.channels[0]}-{chosen.channels[1]}")
    else:
        rtp, rtcp = chosen.ports
        parts.append(f"client_port={rtp}-{rtcp}" if rtcp else f"client_port={rtp}")
        parts.append(f"server_port={server_ports[0]}-{server_ports[1]}")
        parts += [f"source={source}"] if source else []
        parts += ["RTCP-mux"] if chosen.wants_mux else []
    return ";".join([*parts, 'mode="PLAY"'])


def _read(offer: str, peer: IPAddress) -> Transport:
    name, *parts = (part.strip() for part in offer.split(";"))
    match = _PROFILE.fullmatch(name.upper())
    if match is None:
        raise RefusedRequest(461, "expected Transport: RTP/AVP or RTP/AVP/TCP")
    said = {}
    for part in parts:
        key, _, value = part.partition("=")
        said[key.strip().lower()] = value.strip().strip('"')
    if "multicast" in said:
        raise RefusedRequest(461, "expected unicast: nothing is sent to groups by RTSP")
    if said.get("mode", "PLAY").upper() not in ("PLAY", ""):
        raise RefusedRequest(501, "this server only plays; mode=PLAY is all there is")
    _refuse_others(said, peer)
    is_interleaved = match[2] == "TCP" or "interleaved" in said
    if is_interleaved:
        channels = _pair(said.get("interleaved", ""), "interleaved", 255)
        return Transport(f"RTP/{match[1]}/TCP", channels=channels, is_interleaved=True)
    ports = _pair(said.get("client_port", ""), "client_port", 65_535)
    if ports is None or 0 in ports[:1]:
        raise RefusedRequest(461, "expected client_port=RTP-RTCP, or interleaved=RTP-RTCP")
    has_one = "-" not in said["client_port"]
    wants_mux = "rtcp-mux" in said
    return Transport(name.upper(), (ports[0], 0) if has_one else ports, wants_mux=wants_mux)


def _refuse_others(said: dict[str, str], peer: IPAddress) -> None:
    for key in ("destination", "dest_addr"):
        if key in said and not _is(said[key], peer):
            raise RefusedRequest(
                403, f"{key} is not the address that you connect from, which alone gets packets"
            )


def _is(text: str, peer: IPAddress) -> bool:
    try:
        return unmapped(ipaddress.ip_address(text)) == peer
    except ValueError:
        return False


def _pair(text: str, what: str, most: int) -> tuple[int, int] | None:
    """None where nothing is said. Of one number the next is the other."""
    if not text:
        return None
    match = _PAIR.fullmatch(text)
    first = int(match[1]) if match else most + 1
    second = int(match[2]) if match and match[2] else first + 1
    if match is None or first > most or second > most:
        raise RefusedRequest(461, f"{what} is not a pair of numbers up to {most}")
    return first, second
