"""Subscribers that get no copies for now, leases and classes."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

import pytest
from engine_support import running_engine
from fastpath.engines import add, bound_to, engine, local, records_of, running, subscribe
from fastpath.test_removal import Camera
from support import eventually, queued, receive, rtp_packet, target

from rtpfanout._fastpath import CLASSES, WITHHELD
from rtpfanout.model import Address

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from rtpfanout._fastpath import Engine

CONSENT, SHED, REFUSED = WITHHELD.values()
PILOT, RECORDER, MONITOR = CLASSES.values()


def terms_of(e: Engine, handle: int) -> dict[Address, tuple[int, int, int]]:
    """Class, lease_until and withheld of each subscriber."""
    return {row[0]: (row[4], row[5], row[6]) for row in e.subscribers(handle, 0, 1000)}


def add_on(e: Engine, handle: int, *addresses: Address, **terms: int) -> int:
    return e.add_subscribers(handle, records_of(*addresses), time.monotonic_ns(), **terms)


def test_terms_are_kept_and_renewed() -> None:
    e = engine()
    handle = e.add_session(local(1), 1, 0)
    a, b, c = local(10), local(11), local(12)
    assert add_on(e, handle, a, b, lease_until=100, subscriber_class=RECORDER, withheld=1) == 2
    assert subscribe(e, handle, c) == 1
    assert terms_of(e, handle) == {a: (1, 100, 1), b: (1, 100, 1), c: (MONITOR, 0, 0)}
    assert add_on(e, handle, b, lease_until=200, subscriber_class=PILOT, withheld=2) == 0
    assert add_on(e, handle, b, c, local(13), lease_until=300, subscriber_class=PILOT) == 1
    assert terms_of(e, handle) == {
        a: (1, 100, 1),
        b: (PILOT, 300, 1),
        c: (PILOT, 300, 0),
        local(13): (PILOT, 300, 0),
    }
    e.remove_subscribers(handle, [a])
    assert add_on(e, handle, a) == 1
    assert terms_of(e, handle)[a] == (MONITOR, 0, 0)


def test_what_is_refused_changes_no_terms() -> None:
    e = engine(max_subscribers=2)
    handle = e.add_session(local(1), 1, 0)
    add_on(e, handle, local(10), local(11), lease_until=7)
    with pytest.raises(BlockingIOError):
        add_on(e, handle, local(10), local(12), lease_until=99)
    with pytest.raises(OSError, match="Invalid argument"):
        add_on(e, handle, local(10), lease_until=99, subscriber_class=3)
    with pytest.raises(OverflowError):
        add_on(e, handle, local(10), lease_until=-1)
    assert {lease for _, lease, _ in terms_of(e, handle).values()} == {7}
    with pytest.raises(ValueError, match="records are of 24 bytes"):
        e.withhold(handle, b"short", CONSENT, True)
    for call in (
        lambda: e.withhold(99, b"", CONSENT, True),
        lambda: e.expired_subscribers(99, 1),
        lambda: e.subscriber_records(99),
    ):
        with pytest.raises(KeyError):
            call()


def test_expired_subscribers_are_told_and_stay() -> None:
    e = engine()
    handle = e.add_session(local(1), 1, 0)
    add_on(e, handle, local(10), lease_until=100)
    add_on(e, handle, local(11), lease_until=101)
    add_on(e, handle, local(12))
    assert e.expired_subscribers(handle, 99) == b""
    assert e.expired_subscribers(handle, 100) == records_of(local(10))
    assert e.expired_subscribers(handle, 2**32 - 1) == records_of(local(10), local(11))
    add_on(e, handle, local(10), lease_until=102)
    assert e.expired_subscribers(handle, 101) == records_of(local(11))
    assert len(terms_of(e, handle)) == 3


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 128, 200])
def test_records_of_all_subscribers(count: int) -> None:
    e = engine()
    handle = e.add_session(local(1), 1, 0)
    records = records_of(*(local(10 + n) for n in range(count)))
    if records:
        e.add_subscribers(handle, records, 5)
    assert e.subscriber_records(handle) == records


def test_bits_are_set_and_cleared_each_for_itself() -> None:
    e = engine()
    handle = e.add_session(local(1), 1, 0)
    a, b, stranger = local(10), local(11), local(99)
    add_on(e, handle, a, subscriber_class=MONITOR, withheld=CONSENT)
    add_on(e, handle, b, subscriber_class=RECORDER)
    assert e.withhold(handle, records_of(a), SHED, True) == 1
    assert e.withhold(handle, records_of(a), SHED, True) == 0
    assert e.withhold(handle, records_of(stranger), SHED, True) == 0
    assert e.withhold(handle, records_of(a, b, stranger), CONSENT, True) == 1
    assert {t[2] for t in terms_of(e, handle).values()} == {CONSENT | SHED, CONSENT}
    assert e.withhold(handle, records_of(a), CONSENT, False) == 1
    assert e.withhold(handle, records_of(a), CONSENT, False) == 0
    assert terms_of(e, handle)[a][2] == SHED
    assert e.withhold(handle, records_of(a), SHED, False) == 1
    assert terms_of(e, handle)[a][2] == 0


def test_who_is_refused_is_there_without_a_packet(udp: Callable[..., socket.socket]) -> None:
    """Beyond the limit, and of a family that the socket can't reach; served when that is over."""
    camera, viewer, other = udp(), udp(), udp()
    e = engine(max_subscribers=1)
    handle = e.add_session(bound_to(camera), 1, 0)
    six = Address.parse("[2001:db8::1]:9")
    assert add_on(e, handle, six, bound_to(other), withheld=REFUSED) == 2
    with pytest.raises(BlockingIOError):
        add_on(e, handle, bound_to(viewer))
    assert add_on(e, handle, bound_to(viewer), withheld=REFUSED) == 1
    assert e.withhold(handle, bound_to(viewer).record, REFUSED, False) == 1
    assert e.withheld_records(handle, REFUSED) == records_of(six, bound_to(other))
    assert e.withheld_records(handle, CONSENT) == b""
    with pytest.raises(KeyError):
        e.withheld_records(99, REFUSED)
    with running_engine(e):
        camera.sendto(rtp_packet(1, 1), target(e.bound))
        receive(viewer, 1)
        e.withhold(handle, bound_to(other).record, REFUSED, False)
        camera.sendto(rtp_packet(1, 2), target(e.bound))
        receive(viewer, 1)
        assert receive(other, 1) == [rtp_packet(1, 2)]
    stats = e.stats()
    assert (stats["copies_attempted"], stats["copies_withheld"]) == (3, 3)
    assert e.remove_subscribers(handle, [six]) == [True]


def test_a_refused_subscriber_of_another_family_hides_no_loop(
    udp: Callable[..., socket.socket],
) -> None:
    """The first in the list decides nothing about the family of the others."""
    camera = udp()
    e = engine()
    handle = e.add_session(Address.parse("127.0.0.0:0"), 1, 0, prefix=8)
    add_on(e, handle, Address.parse("[2001:db8::1]:9"), withheld=REFUSED)
    add_on(e, handle, bound_to(camera))
    with running_engine(e):
        camera.sendto(rtp_packet(1, 1), target(e.bound))
        eventually(lambda: e.stats()["dropped_loop"], bool, "the loop to be dropped")


@pytest.mark.parametrize("workers", [1, 2])
def test_only_the_withheld_get_nothing_and_everything_is_counted(
    udp: Callable[..., socket.socket], workers: int
) -> None:
    """Every set of five withheld, all of them and none among them: copies, counters and one
    latency to the first and one to the last subscriber for each packet that had one."""
    camera, viewers = udp(), [udp() for _ in range(5)]
    # Shares of a turn are cut from two send entries on.
    with running(workers=workers, split_threshold=2) as e:
        handle = add(e, camera, 1, *viewers)
        sequence = observed = withheld = 0
        for mask in itertools.product([False, True], repeat=5):
            for viewer, off in zip(viewers, mask, strict=True):
                e.withhold(handle, records_of(bound_to(viewer)), CONSENT, off)
            for _ in range(3):  # the rotation moves on
                packet = rtp_packet(1, sequence)
                camera.sendto(packet, target(e.bound))
                sequence += 1
                for viewer, off in zip(viewers, mask, strict=True):
                    if not off:
                        assert receive(viewer, 1) == [packet]
                withheld += sum(mask)
                observed += not all(mask)
                _eventually_handled(e, sequence)
                assert [queued(v) for v in viewers] == [[]] * 5
        stats = eventually(
            e.stats,
            lambda s: s["copies_withheld"] == withheld,
            "all copies that were withheld are counted",
        )
        assert stats["copies_attempted"] + withheld == 5 * sequence
        session = e.session_stats(handle, time.monotonic_ns())
        assert session["copies_withheld"] == withheld
        assert session["copies_attempted"] == stats["copies_attempted"]
        for counts, total_ns in e.latency():
            assert sum(counts) == observed
            assert counts[0] < observed, "not all of them took no time"
            assert total_ns < observed * 10**9
        first, last = e.session_latency(handle)
        assert first[1] <= last[1]


def _eventually_handled(e: Engine, packets: int) -> None:
    def handled(s: dict[str, int]) -> bool:
        return (
            s["packets_forwarded"] == packets
            and s["copies_attempted"] + s["copies_withheld"] == 5 * packets
        )

    eventually(e.stats, handled, f"{packets} packets are through")


def test_nothing_leaves_after_the_call(udp: Callable[..., socket.socket]) -> None:
    """Under traffic: as soon as the call is back, none of them gets anything more, and the
    other one all of it."""
    e, camera, viewer, other = engine(), udp(), udp(), udp()
    traffic = Camera(camera, e, 1)
    heard: list[bytes] = []
    calls: Sequence[Callable[[bool], int]]
    with running_engine(e):
        handle = add(e, camera, 1, viewer)
        add_on(e, handle, bound_to(other), subscriber_class=PILOT)
        calls = (
            lambda on: e.withhold(handle, records_of(bound_to(viewer)), CONSENT, on),
            lambda on: e.withhold(handle, records_of(bound_to(viewer)), SHED, on),
        )
        traffic.start()
        for race in range(100):
            receive(viewer, 1)
            assert calls[race % 2](True) == 1
            queued(viewer)
            before = e.stats()["packets_forwarded"]
            eventually(
                lambda: e.stats()["packets_forwarded"],
                lambda now, before=before: now > before + 8,  # type: ignore[misc]
                "packets keep coming",
            )
            assert queued(viewer) == []
            assert calls[race % 2](False) == 1
            heard += queued(other)
        traffic.stop()
        eventually(
            lambda: len(_heard_and(heard, other)),
            lambda n: n == traffic.sent,
            "the other has all",
        )


def _heard_and(heard: list[bytes], sock: socket.socket) -> list[bytes]:
    """What was heard so far and what is queued now."""
    heard += queued(sock)
    return heard
