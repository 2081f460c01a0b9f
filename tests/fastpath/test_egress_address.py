"""A host with several addresses: copies and answers leave from the one they are to leave from."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from engine_support import engine_identities
from fastpath.engines import add, bound_to, packet_of, running, subscribe
from netns import hosts, inside, link, run
from support import eventually, requires, requires_root, send_segmented

from rtpfanout import netif, signed
from rtpfanout.model import Address, parse_ip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rtpfanout._fastpath import Engine

    Udp = Callable[..., socket.socket]

HELLO = signed.build_hello(b"nonce...")
SSRC = 7
NOWHERE = "192.0.2.1"
"""No address of this host (RFC 5737)."""


def packed(text: str) -> bytes:
    return Address(parse_ip(text), 0).packed


def senders(viewer: socket.socket, packets: list[bytes]) -> set[str]:
    """Where exactly these packets came from."""
    came = [viewer.recvfrom(65536) for _ in packets]
    assert [data for data, _ in came] == packets
    return {name[0].removeprefix("::ffff:") for _, name in came}


def frames(first: int) -> list[list[bytes]]:
    """A frame of 13 packets and a shorter one, and one packet."""
    sizes = [1200] * 13 + [400]
    frame = [packet_of(size, SSRC, first + i) for i, size in enumerate(sizes)]
    return [frame, [packet_of(300, SSRC, first + 14)]]


def served_from(
    e: Engine, camera: socket.socket, to: str, *viewers: socket.socket
) -> list[set[str]]:
    """From which addresses each viewer gets what the camera sends to that address."""
    found: list[set[str]] = [set() for _ in viewers]
    for packets in frames(e.stats()["packets_received"]):
        send_segmented(camera, packets, (to, e.bound.port))
        for addresses, viewer in zip(found, viewers, strict=True):
            addresses |= senders(viewer, packets)
    return found


@contextmanager
def lived_in(*cidrs: str) -> Iterator[tuple[str, str, str]]:
    """Namespaces of a server, a host on its first network and one on a second; the server has
    `cidrs` on its interface to the first."""
    requires("ip")
    requires_root()
    with hosts("sv", "near", "far") as ns:
        link(ns["sv"], "10.1.0.1/24", ns["near"], "10.1.0.9/24")
        link(ns["sv"], "10.2.0.1/24", ns["far"], "10.2.0.9/24")
        run("ip", "-n", ns["near"], "route", "add", "default", "via", "10.1.0.1")
        for cidr in cidrs:
            address(ns["sv"], "add", cidr, ns["near"])
        run("ip", "-n", ns["near"], "address", "add", "fd01::9/64", "dev", f"to-{ns['sv']}"[:15],
            "nodad")  # fmt: skip
        yield ns["sv"], ns["near"], ns["far"]


def address(namespace: str, what: str, cidr: str, towards: str) -> None:
    more = ["nodad"] if what == "add" else []
    run("ip", "-n", namespace, "address", what, cidr, "dev", f"to-{towards}"[:15], *more)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def tell_addresses(e: Engine) -> None:
    """As housekeeping does, in the namespace of the engine."""
    found = netif.local_addresses()
    e.set_local_addresses([Address(ip, 0) for ip in found], list(found.values()))
    e.follow_sources()


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
@pytest.mark.parametrize("workers", [1, 3])
def test_copies_leave_from_where_each_subscriber_is_to_be_served_from(
    workers: int, bind: str, udp: Udp
) -> None:
    """Frames and single packets, of sessions as wide as are shared between workers."""
    camera, told, other, usual = udp(), udp(), udp(), udp()
    with running(bind, workers=workers, split_threshold=2) as e:
        handle = add(e, camera, SSRC, told, other, usual)
        e.deliver_from(handle, bound_to(told).record, packed("127.0.0.2"))
        e.deliver_from(handle, bound_to(other).record, packed("127.0.0.3"))
        for _ in range(20):
            assert served_from(e, camera, "127.0.0.1", told, other, usual) == [
                {"127.0.0.2"},
                {"127.0.0.3"},
                {"127.0.0.1"},
            ]
        e.deliver_from(handle, bound_to(told).record, packed("127.0.0.3"))
        assert served_from(e, camera, "127.0.0.1", told, other, usual)[0] == {"127.0.0.3"}
        engine_identities(e)
        assert e.stats()["egress_address_missing"] == 0


def test_who_is_added_as_told_is_served_from_there_at_once(udp: Udp) -> None:
    camera, viewer = udp(), udp()
    with running("0.0.0.0:0") as e:
        handle = e.add_session(bound_to(camera), SSRC, time.monotonic_ns())
        record = bound_to(viewer).record
        e.add_subscribers(handle, record, 1, local=packed("127.0.0.2"))
        assert served_from(e, camera, "127.0.0.1", viewer) == [{"127.0.0.2"}]
        e.add_subscribers(handle, record, 2)  # a lease that is renewed: it stays so
        assert served_from(e, camera, "127.0.0.1", viewer) == [{"127.0.0.2"}]
        e.add_subscribers(handle, record, 3, local=packed("127.0.0.4"))
        assert served_from(e, camera, "127.0.0.1", viewer) == [{"127.0.0.4"}]


def test_more_addresses_than_a_session_has_numbers_for(udp: Udp) -> None:
    """Those that nobody is served from any more make room; else the kernel chooses."""
    camera, viewers = udp(), [udp() for _ in range(33)]
    with running("0.0.0.0:0") as e:
        handle = add(e, camera, SSRC, *viewers)
        for i, viewer in enumerate(viewers):
            e.deliver_from(handle, bound_to(viewer).record, packed(f"127.0.0.{i + 2}"))
        wanted = [{f"127.0.0.{i + 2}"} for i in range(31)] + [{"127.0.0.1"}] * 2
        assert served_from(e, camera, "127.0.0.1", *viewers) == wanted
        e.remove_subscribers(handle, [bound_to(viewers[4])])
        e.deliver_from(handle, bound_to(viewers[32]).record, packed("127.0.0.99"))
        viewers.pop(4)
        wanted.pop(4)
        wanted[-1] = {"127.0.0.99"}
        assert served_from(e, camera, "127.0.0.1", *viewers) == wanted


@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
def test_a_notice_tells_where_it_came_to_and_an_answer_leaves_from_there(
    bind: str, udp: Udp
) -> None:
    asker = udp()
    with running(bind) as e:
        asker.sendto(HELLO, ("127.0.0.5", e.bound.port))
        ((_, source, _),) = eventually(e.stranger_notices, bool, "a notice")
        assert source == bound_to(asker)
        assert source.spoken_to == packed("127.0.0.5")
        assert e.send(source, b"well")
        assert asker.recvfrom(100) == (b"well", ("127.0.0.5", e.bound.port))
        assert e.send(Address(source.ip, source.port, packed(NOWHERE)), b"gone")
        assert asker.recv(100) == b"gone", "that address is ours no more"


def test_bound_to_one_address_nothing_is_told(udp: Udp) -> None:
    asker = udp()
    with running("127.0.0.5:0") as e:
        asker.sendto(HELLO, ("127.0.0.5", e.bound.port))
        ((_, source, _),) = eventually(e.stranger_notices, bool, "a notice")
        assert source.spoken_to == b""


@pytest.mark.parametrize("segmentation", [True, False])
@pytest.mark.parametrize("bind", ["0.0.0.0:0", "[::]:0"])
def test_an_address_that_is_not_ours_costs_no_packet(
    bind: str, segmentation: bool, udp: Udp
) -> None:
    camera, lame, told, usual = udp(), udp(), udp(), udp()
    with running(bind, segmentation=segmentation) as e:
        handle = add(e, camera, SSRC, lame, told, usual)
        e.deliver_from(handle, bound_to(lame).record, packed(NOWHERE))
        e.deliver_from(handle, bound_to(told).record, packed("127.0.0.2"))
        for round_ in range(1, 4):
            assert served_from(e, camera, "127.0.0.1", lame, told, usual) == [
                {"127.0.0.1"},
                {"127.0.0.2"},
                {"127.0.0.1"},
            ]
            stats = eventually(
                e.stats, lambda s, n=round_: s["packets_sent"] == n * 45, "all are counted"
            )
            assert stats["egress_address_missing"] == round_ * 15
            assert not any(n for k, n in stats.items() if k.startswith(("failed_", "gso_fall")))
        engine_identities(e)


def test_who_says_nothing_is_served_from_where_its_source_speaks_to(udp: Udp) -> None:
    """If that is an address of the interface to it; from the very first packet."""
    with lived_in("10.1.0.100/24") as (sv, near, far):
        with inside(near):
            camera, viewer = udp("10.1.0.9"), udp("10.1.0.9")
        with inside(far):
            beyond = udp("10.2.0.9")
        with inside(sv), running("0.0.0.0:0") as e:
            tell_addresses(e)
            add(e, camera, SSRC, viewer, beyond)
            for to in ("10.1.0.100", "10.1.0.1", "10.1.0.100"):
                assert served_from(e, camera, to, viewer, beyond) == [{to}, {"10.2.0.1"}]
            # 10.2.0.1 is no address of the interface to the viewer; 10.1.0.1 is the kernel's
            assert served_from(e, camera, "10.2.0.1", viewer, beyond) == [
                {"10.1.0.1"},
                {"10.2.0.1"},
            ]
            engine_identities(e)


def test_a_second_address_comes_and_goes(udp: Udp) -> None:
    with lived_in() as (sv, near, _far):
        with inside(near):
            camera, viewer, joined = udp("10.1.0.9"), udp("10.1.0.9"), udp("10.1.0.9")
        with inside(sv), running("0.0.0.0:0") as e:
            tell_addresses(e)
            handle = add(e, camera, SSRC, viewer, joined)
            assert served_from(e, camera, "10.1.0.1", viewer, joined) == [{"10.1.0.1"}] * 2
            address(sv, "add", "10.1.0.100/24", near)
            tell_addresses(e)
            e.deliver_from(handle, bound_to(joined).record, packed("10.1.0.100"))
            assert served_from(e, camera, "10.1.0.100", viewer, joined) == [{"10.1.0.100"}] * 2
            address(sv, "del", "10.1.0.100/24", near)
            assert served_from(e, camera, "10.1.0.1", viewer, joined) == [{"10.1.0.1"}] * 2
            assert eventually(e.stats, lambda s: s["egress_address_missing"] == 15, "counted")
            address(sv, "add", "10.1.0.100/24", near)
            eventually(  # it is looked for again after a second
                lambda: served_from(e, camera, "10.1.0.1", viewer, joined),
                lambda found: found == [{"10.1.0.1"}, {"10.1.0.100"}],
                "it is there again",
            )
            engine_identities(e)


def test_an_older_ipv6_address_goes_on_when_a_newer_comes(udp: Udp) -> None:
    """Of equals the kernel takes the newest."""
    with lived_in("fd01::1/64") as (sv, near, _far):
        with inside(near):
            camera, viewer, joined = udp("fd01::9"), udp("fd01::9"), udp("fd01::9")
        with inside(sv), running("[::]:0") as e:
            tell_addresses(e)
            handle = add(e, camera, SSRC, viewer, joined)
            e.deliver_from(handle, bound_to(joined).record, packed("fd01::1"))
            assert served_from(e, camera, "fd01::1", viewer, joined) == [{"fd01::1"}] * 2
            address(sv, "add", "fd01::2/64", near)
            tell_addresses(e)
            assert served_from(e, camera, "fd01::1", viewer, joined) == [{"fd01::1"}] * 2
            engine_identities(e)


def test_the_address_that_is_configured_goes_before_the_sources(udp: Udp) -> None:
    with lived_in("10.1.0.100/24", "10.1.0.200/24") as (sv, near, far):
        with inside(near):
            camera, viewer, joined = udp("10.1.0.9"), udp("10.1.0.9"), udp("10.1.0.9")
        with inside(far):
            run("ip", "-n", far, "route", "add", "default", "via", "10.2.0.1")
            beyond = udp("10.2.0.9")
        with inside(sv), running("0.0.0.0:0", egress_address=parse_ip("10.1.0.200")) as e:
            tell_addresses(e)
            handle = add(e, camera, SSRC, viewer, beyond)
            e.add_subscribers(
                handle, bound_to(joined).record, time.monotonic_ns(), local=packed("10.1.0.1")
            )
            assert served_from(e, camera, "10.1.0.100", viewer, beyond, joined) == [
                {"10.1.0.200"},
                {"10.1.0.200"},
                {"10.1.0.1"},
            ]


def test_what_a_source_sends_to_all_is_no_address_to_leave_from(udp: Udp) -> None:
    with lived_in("10.1.0.100/24") as (sv, near, _far):
        with inside(near):
            camera, viewer = udp("10.1.0.9"), udp("10.1.0.9")
            camera.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        for bind in ("0.0.0.0:0", "[::]:0"):
            with inside(sv), running(bind) as e:
                tell_addresses(e)
                add(e, camera, SSRC, viewer)
                assert served_from(e, camera, "10.1.0.255", viewer) == [{"10.1.0.1"}]
                assert e.stats()["egress_address_missing"] == 0


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit"])
def test_a_route_that_takes_nothing_is_no_invalid_destination(kind: str, udp: Udp) -> None:
    """The kernel says EINVAL of a blackhole, as of segments that are too long."""
    expected = "denied" if kind == "prohibit" else "unreachable"
    with lived_in() as (sv, near, _far):
        with inside(near):
            camera, viewer = udp("10.1.0.9"), udp("10.1.0.9")
        run("ip", "-n", sv, "route", "add", kind, "10.3.0.0/24")
        run("ip", "-n", sv, "-6", "route", "add", kind, "fd03::/64")
        lost = [Address.parse("10.3.0.9:5000"), Address.parse("[fd03::9]:5000")]
        with inside(sv), running("[::]:0") as e:
            handle = add(e, camera, SSRC, viewer)
            subscribe(e, handle, *lost)
            served_from(e, camera, "10.1.0.1", viewer)
            stats = eventually(e.stats, lambda s: s["copies_attempted"] == 45, "all are counted")
            failed = {k: n for k, n in stats.items() if k.startswith("failed_") and n}
            assert failed == {f"failed_{expected}": 30}
            assert not any(n for k, n in stats.items() if k.startswith("gso_fall"))
            engine_identities(e)


def test_file_descriptors_are_given_back(udp: Udp) -> None:
    """Those by which it is found how a subscriber is reached."""
    with lived_in("10.1.0.100/24") as (sv, near, _far):
        with inside(near):
            camera, viewer = udp("10.1.0.9"), udp("10.1.0.9")
        with inside(sv), running("0.0.0.0:0") as e:
            tell_addresses(e)
            handle = add(e, camera, SSRC)
            before = open_files()
            for _ in range(50):
                subscribe(e, handle, viewer)
                e.follow_sources()
                e.remove_subscribers(handle, [bound_to(viewer)])
            assert open_files() == before
