"""By which way the kernel sends to an address, and whether the next host of that way answers."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from rtpfanout.netlink import Message, ask, attribute, attributes, open_netlink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rtpfanout.model import IPAddress

    Answers = tuple[bool | None, float | None]

# linux/rtnetlink.h, linux/neighbour.h
_RTM_NEWROUTE, _RTM_GETROUTE, _RTM_NEWNEIGH, _RTM_GETNEIGH = 24, 26, 28, 30
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_VIA = 1, 2, 4, 5, 7, 18
_NDA_DST, _NDA_CACHEINFO = 1, 3
_RTN_UNICAST, _RTN_LOCAL = 1, 2
_RTN_REFUSALS = {6: errno.EINVAL, 7: errno.EHOSTUNREACH, 8: errno.EACCES}
"""Of IPv6 such routes are an answer like others."""
_NUD_INCOMPLETE, _NUD_REACHABLE, _NUD_STALE = 1, 2, 4
_NUD_DELAY, _NUD_PROBE, _NUD_FAILED = 8, 16, 32
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg
_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # ndmsg
_CACHE = struct.Struct("=III")  # nda_cacheinfo: confirmed, used, updated, in clock ticks ago
_TIMEOUT_SECS = 2.0
_NOBODY = ipaddress.IPv4Address(0)


class Way(NamedTuple):
    """`refusal`: why the kernel sends nothing there (an errno), 0: it does.

    `next_hop` is the host itself where it is on the link, `own` the address that the kernel would
    send from. `answers`: whether that was heard of; None
    where it isn't known, or nobody has to. `heard_secs`: how long ago, where the kernel tells.
    """

    refusal: int = 0
    is_local: bool = False
    interface: str = ""
    next_hop: IPAddress | None = None
    own: IPAddress | None = None
    answers: bool | None = None
    heard_secs: float | None = None


def find_ways(asked: Sequence[tuple[IPAddress, IPAddress | None]]) -> list[Way]:
    """Of each destination, and the address of ours that copies leave from where that is given.

    Of the network namespace of this thread. Raises OSError.
    """
    with open_netlink() as netlink:
        netlink.settimeout(_TIMEOUT_SECS)
        sources = list({source for _, source in asked if source is not None})
        routes = ask(netlink, _RTM_GETROUTE, [_question(source, None) for source in sources])
        ours = {
            ip for ip, answer in zip(sources, routes, strict=True) if _way(answer, ip)[0].is_local
        }
        # Where this host has not got that address the kernel chooses.
        questions = [_question(to, source if source in ours else None) for to, source in asked]
        answers = ask(netlink, _RTM_GETROUTE, questions)
        ways = [_way(answer, to) for answer, (to, _) in zip(answers, asked, strict=True)]
        hops = [(index, way.next_hop) for way, index in ways if index and way.next_hop]
        found = _neighbours(netlink, list(dict.fromkeys(hops)))
    return [_with(way, found.get((index, way.next_hop or _NOBODY))) for way, index in ways]


def _with(way: Way, neighbour: Answers | None) -> Way:
    answers, heard_secs = neighbour or (None, None)
    return way._replace(answers=answers, heard_secs=heard_secs)


def _question(to: IPAddress, source: IPAddress | None) -> bytes:
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    bits = to.max_prefixlen
    is_given = source is not None and source.version == to.version
    body = _ROUTE.pack(family, bits, bits if is_given else 0, 0, 0, 0, 0, 0, 0)
    body += attribute(_RTA_DST, to.packed)
    if source is not None and is_given:
        body += attribute(_RTA_SRC, source.packed)
    scope = to.scope_id if isinstance(to, ipaddress.IPv6Address) else None
    if scope:
        body += attribute(_RTA_OIF, struct.pack("=I", int(scope)))  # of one that has gone: any
    return body


def _way(answer: Message, to: IPAddress) -> tuple[Way, int]:
    """And the index of the interface whose neighbour has to answer; 0: none has to."""
    if answer.errno:
        return Way(refusal=answer.errno), 0
    if answer.kind != _RTM_NEWROUTE:
        return Way(), 0
    kind = _ROUTE.unpack_from(answer.body)[7]
    if kind in _RTN_REFUSALS:
        return Way(refusal=_RTN_REFUSALS[kind]), 0
    told = attributes(answer.body[_ROUTE.size :])
    index = struct.unpack_from("=i", told.get(_RTA_OIF, bytes(4)))[0]
    own = told.get(_RTA_PREFSRC)
    way = Way(
        is_local=kind == _RTN_LOCAL,
        interface=_name(index),
        next_hop=_hop(told, to),
        own=ipaddress.ip_address(own) if own else None,
    )
    return way, index if kind == _RTN_UNICAST else 0


def _hop(told: dict[int, bytes], to: IPAddress) -> IPAddress:
    packed = told.get(_RTA_GATEWAY) or told.get(_RTA_VIA, b"")[2:]  # rtvia: its family goes before
    return ipaddress.ip_address(packed) if len(packed) in (4, 16) else to


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""


def _neighbours(
    netlink: socket.socket, hops: list[tuple[int, IPAddress]]
) -> dict[tuple[int, IPAddress], Answers]:
    """Whether each answers, and how long ago it did. One by one, so what it costs depends on who is
    asked about and not on how many neighbours there are; before Linux 5.0 nothing is known."""
    bodies = [
        _NEIGHBOUR.pack(socket.AF_INET if ip.version == 4 else socket.AF_INET6, index, 0, 0, 0)
        + attribute(_NDA_DST, ip.packed)
        for index, ip in hops
    ]
    answers = ask(netlink, _RTM_GETNEIGH, bodies)
    return {hop: _neighbour(answer) for hop, answer in zip(hops, answers, strict=True)}


def _neighbour(answer: Message) -> Answers:
    if answer.kind != _RTM_NEWNEIGH:  # nothing was sent there lately
        return None, None
    _, _, state, *_ = _NEIGHBOUR.unpack_from(answer.body)
    cache = attributes(answer.body[_NEIGHBOUR.size :]).get(_NDA_CACHEINFO, b"")
    heard = None
    if len(cache) >= _CACHE.size:
        heard = _CACHE.unpack_from(cache)[0] / os.sysconf("SC_CLK_TCK")
    if state & (_NUD_FAILED | _NUD_INCOMPLETE):
        return False, heard
    if state & (_NUD_REACHABLE | _NUD_DELAY | _NUD_PROBE):
        return True, heard
    return None, heard if state & _NUD_STALE else None
