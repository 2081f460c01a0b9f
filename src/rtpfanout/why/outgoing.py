"""From the server to a viewer: is it subscribed, do copies leave, and does anything come back?"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from rtpfanout.why.finding import Evidence, Fields, Finding, Level, Station

if TYPE_CHECKING:
    from collections.abc import Iterator

MUCH_LOST = 0.01
REPORTS_BY_SECS = 15.0
"""Who has RTCP, and is sent copies, has reported by then: most do it every 5 s."""


def missing(e: Evidence) -> Finding:
    """Of one that is asked about, or of all."""
    if not e.wanted:
        return Finding(
            Station.SUBSCRIBER,
            Level.CAUSE,
            "no_subscriber",
            "it has no subscriber: nobody is sent anything",
            (f"rtpfanout subscriber add {e.name} IP:PORT",),
        )
    text = f"{e.wanted} is no subscriber: it was never added, was removed, or its lease is over"
    host = e.wanted.rpartition(":")[0]
    alike = [
        each["subscriber_address"]
        for each in e.subscribers
        if each["subscriber_address"].rpartition(":")[0] == host
    ]
    if alike:
        text += f"; {', '.join(alike[:3])} is one: does the viewer listen at another port?"
    cure = f"rtpfanout subscriber add {e.name} {e.wanted}"
    return Finding(Station.SUBSCRIBER, Level.CAUSE, "not_subscribed", text, (cure,), e.wanted)


def subscriber(e: Evidence, of: Fields) -> Iterator[Finding]:
    """Is it to get copies?"""
    state, address = of["state"], of["subscriber_address"]
    found = {
        "awaiting_consent": (
            "it gets nothing before it echoes a cookie, and it does not: no receiver that knows"
            " consent runs there, or its echoes do not come back",
            f"rtpfanout recv, or rtpfanout session update {e.name} --consent none",
        ),
        "shed": (
            f"it is shed: the server is overloaded, and {of['subscriber_class']}s go before others",
            f"rtpfanout subscriber add {e.name} {address} --class pilot",
        ),
        "refused": (f"it is refused: {of['refused_reason']}", ""),
    }.get(state)
    if found:
        text, cure = found
        yield Finding(
            Station.SUBSCRIBER, Level.CAUSE, state, text, (cure,) if cure else (), address
        )
        return
    text = f"{address}, {of['subscriber_class'] or 'monitor'}, for {_age(of['since']):.0f} s"
    if of["expires_at"]:
        left = -_age(of["expires_at"])
        text += f"; its lease ends in {left:.0f} s unless it is renewed"
    yield Finding(Station.SUBSCRIBER, Level.OK, "there", text, (), address)


def egress(e: Evidence, of: Fields, before: Fields | None) -> Iterator[Finding]:
    """Does the kernel take the copies?"""
    address = of["subscriber_address"]
    if before is None or of["state"] not in ("", "sending"):
        return
    sent = of["packets_sent"] - before["packets_sent"]
    failed = of["send_failures"] - before["send_failures"]
    if failed > 0:
        text = f"the kernel refused {failed} of {sent + failed} copies in {e.seconds:.1f} s"
        reasons = _reasons(e)
        cures = tuple(_CURES[reason] for reason in reasons if reason in _CURES)
        if reasons:
            text += f" ({', '.join(reasons)}: of all subscribers' meanwhile)"
        yield Finding(Station.EGRESS, Level.CAUSE, "send_failures", text, cures, address)
    elif sent > 0:
        text = f"{sent} copies left in {e.seconds:.1f} s, none was refused"
        yield Finding(Station.EGRESS, Level.OK, "leaves", text, (), address)
    elif e.flows:
        text = "no copy left though packets came: was it added just now?"
        yield Finding(Station.EGRESS, Level.NOTE, "no_copies", text, (), address)
    else:
        text = "nothing leaves, as nothing comes"
        yield Finding(Station.EGRESS, Level.NOTE, "nothing_comes", text, (), address)


_CURES = {
    "would_block": "a send buffer is full: rtpfanout doctor (net.core.wmem_max)",
    "no_buffer": "the interface's queue is full: the link is slower than what is sent",
    "unreachable": "ip route get ADDRESS  # on the server's host",
    "denied": "nft list ruleset  # on the server's host: a rule for output refuses them",
    "too_big": "packets are longer than the interface's MTU takes",
}


def _reasons(e: Evidence) -> list[str]:
    before, after = e.before["server"], e.after["server"]
    if not before or not after:
        return []
    known = before["send_failures"]
    grown = {name: n - known.get(name, 0) for name, n in after["send_failures"].items()}
    return [name for name, number in grown.items() if number > 0]


def reach(of: Fields) -> Iterator[Finding]:
    """Does anybody say that copies do not get there?"""
    state, detail = of["reach"], of["reach_detail"]
    address = of["subscriber_address"]
    if not state or of["state"] not in ("", "sending"):
        return
    host, _, port = address.rpartition(":")
    watch = f"tcpdump -ni any udp port {port}  # on the viewer's host: do copies get there?"
    causes = {
        "no_arp": (
            "its host is not there: off, another address, or another network",
            f"ip neigh show {host.strip('[]')}  # on the server's host",
        ),
        "no_route": ("no way leads there", f"ip route get {host.strip('[]')}"),
        "port_closed": (
            "nobody takes it: its program has ended or listens elsewhere",
            f"ss -lunp 'sport = :{port}'  # on the viewer's host",
        ),
        "silent_receiver": (
            "it went silent: its program ended or hangs, or a firewall drops what goes there or"
            " comes back; which of these can't be told from here",
            watch,
        ),
    }
    if state in causes:
        text, cure = causes[state]
        level = Level.EITHER if state == "silent_receiver" else Level.CAUSE
        yield Finding(Station.REACH, level, state, f"{text}; {detail}", (cure,), address)
    elif of["report"] or "echoes" in detail:
        yield Finding(Station.REACH, Level.OK, state, detail, (), address)
    else:
        yield Finding(Station.REACH, Level.NOTE, state, detail, (watch,), address)


def report(e: Evidence, of: Fields) -> Iterator[Finding]:
    """What the receiver itself says of what it gets."""
    address = of["subscriber_address"]
    if of["state"] not in ("", "sending") or of["rtcp"] in ("", "off"):
        return
    told = of["report"]
    if not told:
        if (
            e.flows
            and _age(of["since"]) > REPORTS_BY_SECS
            and of["reach"] in ("reachable", "unknown")
        ):
            port = address.rpartition(":")[2]
            yield Finding(
                Station.REPORT,
                Level.EITHER,
                "never_reported",
                "it has RTCP, is sent copies, and never reported: a firewall drops what goes there"
                " or what comes back, or its program does not report; which of these can't be told"
                " from here",
                (f"tcpdump -ni any udp port {port}  # on the viewer's host: do copies get there?",),
                address,
            )
        return
    lost, ours = told["fraction_lost"], _lost_before(e)
    if lost < MUCH_LOST:
        text = f"it reports {100 * lost:.2g} % lost"
        if told["round_trip_seconds"] is not None:
            text += f", round trip {1000 * told['round_trip_seconds']:.3g} ms"
        yield Finding(Station.REPORT, Level.OK, "reports", text, (), address)
    elif lost - ours < MUCH_LOST:
        text = f"it reports {100 * lost:.2g} % lost, which were lost before they left from here"
        yield Finding(Station.REPORT, Level.NOTE, "lost_before", text, (), address)
    else:
        text = f"it reports {100 * lost:.2g} % lost"
        if ours >= MUCH_LOST:
            text += f", of which {100 * ours:.2g} % were lost before they left from here: the rest"
        cure = "the path to it: Wi-Fi, its downlink, a bitrate beyond the link's"
        yield Finding(
            Station.REPORT,
            Level.CAUSE,
            "lost_on_the_way",
            f"{text} on the way to it",
            (cure,),
            address,
        )


def _lost_before(e: Evidence) -> float:
    """A share: what never came here is missing in its numbering, too."""
    lost, expected = e.grown_in("reception", "lost"), e.grown_in("reception", "expected")
    return lost / expected if expected else 0.0


def _age(moment: str) -> float:
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    except ValueError:
        return 0.0
