"""Sockets beside the main one's, between a server and who keeps them: by name, and never lost."""

from __future__ import annotations

import errno
import os
import threading
from typing import TYPE_CHECKING

import pytest

from rtpfanout import _fastpath, kept
from rtpfanout.config import Settings
from rtpfanout.errors import StartError
from rtpfanout.kept import RTCP, KeptSockets, opened_with_rtcp
from rtpfanout.model import Address
from rtpfanout.supervisor.ingress import address_of
from rtpfanout.supervisor.keeping import Keeper, taken, teller
from rtpfanout.supervisor.link import MOST_DESCRIPTORS, Link, close_all

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    one, other = Link.pair()
    yield one, other
    one.close()
    other.close()


def descriptor() -> int:
    return os.memfd_create("kept", 0)


def inode(number: int) -> int:
    return os.fstat(number).st_ino


def heard(keeper: Keeper, link: Link) -> None:
    for message in link.heard():
        assert keeper.heard(message)


def test_what_a_server_opens_is_kept_before_it_is_promised(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    sockets, keeper = KeptSockets(), Keeper()
    sockets.attach(teller(theirs), knows=True)
    pair = [descriptor(), descriptor()]
    sockets.add("7000", pair)
    theirs.close()  # it is killed
    heard(keeper, ours)
    assert list(map(inode, keeper.sockets["7000"])) == list(map(inode, pair))
    assert sockets.names() == {"7000"}
    assert keeper.copy().names() == {"7000"}
    close_all([*pair, *keeper.sockets["7000"]])


def test_what_is_given_up_is_closed_on_both_sides(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    sockets, keeper = KeptSockets(), Keeper()
    sockets.attach(teller(theirs), knows=True)
    mine = descriptor()
    sockets.add("7000", [mine])
    heard(keeper, ours)
    (copy,) = keeper.sockets["7000"]
    sockets.give_up(["7000", "7002"])
    heard(keeper, ours)
    assert not sockets.names()
    assert not keeper.sockets
    for closed in (mine, copy):
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(closed)


def test_another_of_the_name_takes_its_place() -> None:
    keeper, before, after = Keeper(), descriptor(), descriptor()
    for number in (before, after):
        assert keeper.heard({"word": "keep", "name": RTCP, "descriptors": [number]})
    assert keeper.sockets == {RTCP: [after]}
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(before)
    os.close(after)
    assert not keeper.heard({"word": "ready"})


def test_a_supervisor_that_reads_late_is_waited_for(ends: tuple[Link, Link]) -> None:
    ours, theirs = ends
    while not theirs.tell("alive"):
        pass
    sockets, keeper = KeptSockets(), Keeper()
    sockets.attach(teller(theirs), knows=True)
    mine = descriptor()
    adding = threading.Thread(target=sockets.add, args=("7000", [mine]))
    adding.start()
    while "7000" not in keeper.sockets:
        for message in ours.heard():
            keeper.heard(message)
    adding.join()
    close_all([mine, *keeper.sockets["7000"]])


def test_one_that_never_reads_is_no_keeper(
    ends: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtpfanout.supervisor.link._PATIENCE_SECONDS", 0.0)
    _ours, theirs = ends
    while not theirs.tell("alive"):
        pass
    sockets = KeptSockets()
    sockets.attach(teller(theirs), knows=True)
    with pytest.raises(OSError, match="the supervisor can't be told"):
        sockets.add("7000", [0])
    assert not sockets.names()


@pytest.mark.parametrize("count", [0, 1, MOST_DESCRIPTORS // 2, 1000])
def test_who_takes_another_servers_place_is_given_all(ends: tuple[Link, Link], count: int) -> None:
    ours, theirs = ends
    one = descriptor()
    keeper = Keeper({RTCP: [one]} | {str(number): [one, one] for number in range(count)})
    assert keeper.give(ours) == ""
    sockets = KeptSockets()
    for message in theirs.heard():
        assert message["word"] == "take"
        sockets.take(taken(message))
    assert sockets.names() == keeper.sockets.keys()
    for name in keeper.sockets:
        found = sockets.find(name)
        assert found is not None
        assert {inode(number) for number in found} == {inode(one)}
        assert len(found) == len(keeper.sockets[name])
    sockets.give_up(sockets.names())
    os.close(one)


def test_one_that_had_none_of_them_is_told_of_all(ends: tuple[Link, Link]) -> None:
    """A supervisor that took the place of one of the version before."""
    ours, theirs = ends
    mine, keeper = descriptor(), Keeper()
    sockets = KeptSockets({RTCP: [mine]})
    sockets.attach(teller(theirs), knows=False)
    heard(keeper, ours)
    assert inode(keeper.sockets[RTCP][0]) == inode(mine)
    close_all([mine, *keeper.sockets[RTCP]])


def open_main() -> int:
    return _fastpath.open_socket(Address.parse("127.0.0.1:0"), 64)


def test_any_free_port_is_one_with_a_free_one_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(bind_address="127.0.0.1:0")
    refusals = iter([StartError("in use", field="enable_rtcp_port")] * 3)
    open_rtcp, closed = kept.open_rtcp, []

    def sometimes(settings: Settings, bound: Address) -> int:
        for refusal in refusals:
            raise refusal
        return open_rtcp(settings, bound)

    monkeypatch.setattr(kept, "open_rtcp", sometimes)
    main, rtcp = opened_with_rtcp(settings, open_main, address_of, closed.append)
    assert len(closed) == 3
    assert rtcp is not None
    assert address_of(rtcp).port == address_of(main).port + 1
    close_all([main, rtcp, *closed])


def test_a_port_that_somebody_has_is_an_error_that_names_the_key() -> None:
    main, rtcp = opened_with_rtcp(
        Settings(bind_address="127.0.0.1:0"), open_main, address_of, os.close
    )
    assert rtcp is not None
    os.close(main)
    settings = Settings(bind_address=f"127.0.0.1:{address_of(rtcp).port - 1}")

    def again() -> int:
        return _fastpath.open_socket(settings.bind_address, 64)

    closed: list[int] = []
    with pytest.raises(StartError, match=r"in use.*enable_rtcp_port = false") as refused:
        opened_with_rtcp(settings, again, address_of, closed.append)
    assert refused.value.field == "enable_rtcp_port"
    assert len(closed) == 1
    without = settings.model_copy(update={"enable_rtcp_port": False})
    main, none = opened_with_rtcp(without, lambda: closed.pop(), address_of, os.close)
    assert none is None
    close_all([main, rtcp])
