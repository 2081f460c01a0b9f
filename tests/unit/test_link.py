"""What supervisor and server say to each other: any length, never lost without a word."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rtpfanout.supervisor.link import INLINE, Link, readable_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    one, other = Link.pair()
    yield one, other
    one.close()
    other.close()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("length", [0, 1, INLINE - 100, INLINE, 300_000, 5_000_000])
def test_messages_of_any_length(ends: tuple[Link, Link], length: int) -> None:
    one, other = ends
    before = open_descriptors()
    texts = [letter * length for letter in "abc"]
    for text in texts:
        assert one.tell("word", text=text, number=7) == ""
    heard = list(other.heard())
    assert heard == [{"word": "word", "text": text, "number": 7} for text in texts]
    assert open_descriptors() == before


@pytest.mark.parametrize("length", [1, 300_000])
def test_descriptors_come_with_a_message(ends: tuple[Link, Link], length: int) -> None:
    one, other = ends
    read, write = os.pipe()
    assert one.tell("word", text="x" * length, descriptors=[write]) == ""
    os.close(write)
    (message,) = other.heard()
    (descriptor,) = message["descriptors"]
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, b"hello")
    os.close(descriptor)
    assert os.read(read, 10) == b"hello"
    os.close(read)


def test_what_finds_no_room_is_told(ends: tuple[Link, Link]) -> None:
    """The other end is stopped; nobody waits for it."""
    one, other = ends
    said = 0
    while not (reason := one.tell("word", number=said)):
        said += 1
    assert reason == os.strerror(errno.EAGAIN)
    assert [message["number"] for message in other.heard()] == list(range(said))
    assert one.tell("word") == ""


def test_a_descriptor_that_can_not_be_had_is_told(
    ends: tuple[Link, Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", fail)
    one, other = ends
    assert one.tell("word", text="x" * INLINE) == os.strerror(errno.EMFILE)
    assert list(other.heard()) == []


def test_the_end_of_the_other_is_news_itself(ends: tuple[Link, Link]) -> None:
    one, other = ends
    other.close()
    assert one.tell("word") == ""
    assert list(one.heard()) == []
    assert one.closed
    assert one.tell("word") == ""


def test_a_message_of_the_first_version(ends: tuple[Link, Link]) -> None:
    """One datagram of JSON each way, which both versions read."""
    one, other = ends
    assert one.sock.type == socket.SOCK_SEQPACKET
    one.sock.send(b'{"word": "reloaded", "needs_restart": []}')
    assert list(other.heard()) == [{"word": "reloaded", "needs_restart": []}]
    assert other.tell("suspend") == ""
    assert one.sock.recv(100) == b'{"word": "suspend"}'


def test_any_number_of_descriptors_is_waited_for(ends: tuple[Link, Link]) -> None:
    """select(2) knows none from 1,024 on."""
    one, other = ends
    first, last = os.dup(other.sock.fileno()), fcntl.fcntl(other.sock.fileno(), fcntl.F_DUPFD, 1500)
    assert last >= 1500
    assert readable_of([first, last], 0.0) == []
    one.tell("word")
    assert readable_of([last, first], 3600.0) == [last, first]
    one.close()
    assert readable_of([last], float("inf")) == [last]
    os.close(first)
    os.close(last)
