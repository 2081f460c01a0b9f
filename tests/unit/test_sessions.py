"""SessionManager over a real engine whose clock is the test's."""

from __future__ import annotations

import contextlib
import gc
import re
import threading
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st
from managers import MOMENT, SECOND, SOURCE, SUBSCRIBER, Clock, manager_of
from support import eventually, udp_socket

from rtpfanout._fastpath import Engine
from rtpfanout.errors import (
    AddressDeniedError,
    AlreadyExistsError,
    InvalidArgumentError,
    LimitError,
    NotFoundError,
    RtpFanoutError,
)
from rtpfanout.model import ACTIVE_WINDOW_NS, Address, MediaType, SessionStatus
from rtpfanout.sessions import LARGEST_PAGE, SessionManager
from rtpfanout.sessions.cursor import CursorKind
from rtpfanout.traffic import rtp


def test_a_new_session(manager: SessionManager) -> None:
    view = manager.create("[::ffff:192.0.2.1]:5000", 0xFFFFFFFF, "audio")
    assert uuid.UUID(view.session_id).version == 4
    assert view.source == Address.parse(SOURCE)
    assert (view.ssrc, view.media_type) == (0xFFFFFFFF, MediaType.AUDIO)
    assert (view.subscriber_count, view.status) == (0, SessionStatus.IDLE)
    assert view.created_at == MOMENT
    assert manager.get(view.session_id) == view
    assert manager.get(view.session_id.upper()) == view
    assert (manager.active_sessions, manager.counts["created"]) == (1, 1)


@pytest.mark.parametrize("ssrc", [-1, 2**32])
def test_ssrc_is_32_bits(manager: SessionManager, ssrc: int) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        manager.create(SOURCE, ssrc, "video")
    assert error.value.field == "ssrc"


def test_a_refused_create_leaves_nothing_behind(manager: SessionManager) -> None:
    for source, media_type in (("x", "video"), (SOURCE, ""), ("192.0.2.1:0", "video")):
        with pytest.raises(InvalidArgumentError):
            manager.create(source, 1, media_type)
    assert (manager.active_sessions, manager.counts["created"]) == (0, 0)
    manager.create(SOURCE, 1, "video")
    with pytest.raises(AlreadyExistsError):
        manager.create(SOURCE, 1, "video")
    assert (manager.active_sessions, manager.counts["created"]) == (1, 1)


AN_ID = uuid.UUID("0320f0f1-5711-4a58-bdbf-ef4080342d0c")


@pytest.mark.parametrize(
    "text",
    ["", "1", "g" * 36, f"{AN_ID} ", f"urn:uuid:{AN_ID}", AN_ID.hex],
)
def test_only_canonical_uuids_are_ids(manager: SessionManager, text: str) -> None:
    for call in (manager.get, manager.delete, manager.stats):
        with pytest.raises(InvalidArgumentError) as error:
            call(text)
        assert error.value.field == "session_id"


@pytest.mark.parametrize(
    "cursor", ["x", "A" * 12, "AQAAAAAAAAAB=", "AQAAAAAAAAA", "é", "AQAA AAAA AAB", "A" * 4000]
)
def test_a_foreign_cursor_is_refused(manager: SessionManager, cursor: str) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        manager.list_page(0, cursor)
    assert error.value.field == "cursor"


@given(st.text())
def test_no_text_breaks_the_parsers(text: str) -> None:
    engine = Engine(
        Address.parse("127.0.0.1:0"), max_sessions=1, max_subscribers=1, receive_queue_packets=64
    )
    manager = manager_of(engine, Clock(), sessions=1, fanout=1)
    for call in (
        lambda: manager.get(text),
        lambda: manager.create(text, 1, "video"),
        lambda: manager.create(SOURCE, 1, text),
        lambda: manager.add_subscriber(str(uuid.uuid4()), text),
        lambda: manager.list_page(0, text),
    ):
        with contextlib.suppress(RtpFanoutError):  # anything else is a crash
            call()


def test_pages(manager: SessionManager) -> None:
    assert manager.list_page() == ([], "")
    views = [manager.create(SOURCE, n, "video") for n in range(7)]
    first, cursor = manager.list_page(3)
    second, cursor2 = manager.list_page(3, cursor)
    third, end = manager.list_page(3, cursor2)
    assert first + second + third == views
    assert end == ""
    assert manager.list_page(7) == (views, "")
    assert manager.list_page(LARGEST_PAGE + 1) == (views, "")
    assert re.fullmatch(r"[-\w]+", cursor)
    with pytest.raises(InvalidArgumentError):
        manager.list_page(-1)


def test_a_page_after_everything_is_gone_is_empty(manager: SessionManager) -> None:
    views = [manager.create(SOURCE, n, "video") for n in range(4)]
    _page, cursor = manager.list_page(2)
    for view in views:
        manager.delete(view.session_id)
    assert manager.list_page(2, cursor) == ([], "")


def test_limits(manager: SessionManager) -> None:
    views = [manager.create(SOURCE, n, "video") for n in range(50)]
    with pytest.raises(LimitError) as error:
        manager.create(SOURCE, 50, "video")
    assert error.value.limit == 50
    manager.delete(views[0].session_id)
    manager.create(SOURCE, 50, "video")
    for n in range(3):
        assert manager.add_subscriber(views[1].session_id, f"127.0.0.1:{6000 + n}")
    with pytest.raises(LimitError) as error:
        manager.add_subscriber(views[1].session_id, "127.0.0.1:6003")
    assert error.value.limit == 3
    assert not manager.add_subscriber(views[1].session_id, "127.0.0.1:6000")
    assert manager.total_subscribers == 3


def test_the_subscriber_total_follows(manager: SessionManager) -> None:
    one, two = (manager.create(SOURCE, n, "video").session_id for n in range(2))
    assert manager.add_subscriber(one, SUBSCRIBER)
    assert not manager.add_subscriber(one, SUBSCRIBER)
    manager.add_subscriber(two, SUBSCRIBER)
    manager.add_subscriber(two, "127.0.0.1:6001")
    assert manager.total_subscribers == 3
    manager.remove_subscriber(two, SUBSCRIBER)
    with pytest.raises(NotFoundError) as error:
        manager.remove_subscriber(two, SUBSCRIBER)
    assert error.value.field == "subscriber_address"
    assert manager.total_subscribers == 2
    manager.delete(one)
    assert manager.total_subscribers == 1
    assert manager.get(two).subscriber_count == 1


def test_the_address_policy_decides(manager: SessionManager, engine: Engine) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    for address in ("224.0.0.1:6000", str(engine.bound)):
        with pytest.raises(AddressDeniedError):
            manager.add_subscriber(session_id, address)
    with pytest.raises(InvalidArgumentError):
        manager.add_subscriber(session_id, "[2001:db8::1]:6000")  # the socket sends no IPv6


def test_delete_wins_once_and_holds_nobody_up(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a delete waits for its grace period, every other call goes on."""
    session_id = manager.create(SOURCE, 1, "video").session_id
    other = manager.create(SOURCE, 2, "video").session_id
    waiting, may_go_on = threading.Event(), threading.Event()
    engine = manager._life.engine

    class SlowEngine:
        def __getattr__(self, name: str) -> object:
            return getattr(engine, name)

        def remove_session(self, handle: int) -> None:
            waiting.set()
            assert may_go_on.wait(30)
            engine.remove_session(handle)

    monkeypatch.setattr(manager._life, "engine", SlowEngine())
    deleting = threading.Thread(target=manager.delete, args=[session_id])
    deleting.start()
    assert waiting.wait(30)
    for call in (manager.delete, manager.get, manager.stats):
        with pytest.raises(NotFoundError):
            call(session_id)
    manager.add_subscriber(other, SUBSCRIBER)
    manager.remove_subscriber(other, SUBSCRIBER)
    assert [view.session_id for view in manager.list_page()[0]] == [other]
    assert manager.housekeeping.expire_idle() == []
    assert len(list(manager.all_stats())) == 1
    may_go_on.set()
    deleting.join()
    assert manager.counts["deleted"] == 1
    manager.create(SOURCE, 1, "video")


def test_idle_sessions_expire(manager: SessionManager, clock: Clock) -> None:
    old = manager.create(SOURCE, 1, "video")
    manager.add_subscriber(old.session_id, SUBSCRIBER)
    clock.now += 29 * SECOND
    young = manager.create(SOURCE, 2, "video")
    assert manager.housekeeping.expire_idle() == []
    clock.now += SECOND
    (expired,) = manager.housekeeping.expire_idle()
    assert (expired.session_id, expired.subscriber_count) == (old.session_id, 1)
    with pytest.raises(NotFoundError):
        manager.get(old.session_id)
    assert [view.session_id for view in manager.list_page()[0]] == [young.session_id]
    assert (manager.counts["expired"], manager.counts["deleted"]) == (1, 0)
    assert (manager.active_sessions, manager.total_subscribers) == (1, 0)


def test_stats_and_status_follow_the_packets(manager: SessionManager, clock: Clock) -> None:
    with udp_socket() as source, udp_socket() as subscriber:
        host, port = source.getsockname()
        clock.now = time.monotonic_ns()
        session_id = manager.create(f"{host}:{port}", 1, "video").session_id
        manager.add_subscriber(session_id, "{}:{}".format(*subscriber.getsockname()))
        assert manager.stats(session_id).seconds_since_last_packet is None
        ingress = manager._rules.policy.ingress
        packet = rtp.build(b"x" * 88, ssrc=1, sequence=1, timestamp=1)
        for _ in range(10):
            source.sendto(packet, (str(ingress.ip), ingress.port))
            subscriber.recv(2048)
    clock.now += SECOND
    stats = manager.stats(session_id)
    assert (stats.packets_received, stats.bytes_received) == (10, 1000)
    assert stats.uptime_seconds == 1
    assert stats.packets_per_second == 10
    assert stats.seconds_since_last_packet is not None
    assert stats.seconds_since_last_packet <= 1
    assert manager.get(session_id).status is SessionStatus.ACTIVE
    ((view, same),) = manager.all_stats()
    assert view.session_id == same.session_id == session_id
    assert same.packets_received == 10
    clock.now += 60 * SECOND + ACTIVE_WINDOW_NS
    assert manager.get(session_id).status is SessionStatus.IDLE


def test_no_python_object_per_subscriber(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscriber(session_id, SUBSCRIBER)
    gc.collect()
    held = [a for a in gc.get_objects() if isinstance(a, Address) and str(a) == SUBSCRIBER]
    assert held == []


def test_a_batch_is_added_whole_or_not_at_all(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscriber(session_id, SUBSCRIBER)
    two = ["127.0.0.1:6001", "[::ffff:127.0.0.1]:6001", SUBSCRIBER]
    assert manager.add_subscribers(session_id, two) == 1
    for texts, kind in (
        (["127.0.0.1:6002", "127.0.0.1:6003"], LimitError),  # three is the limit
        (["127.0.0.1:6002", "x"], InvalidArgumentError),
        (["127.0.0.1:6002", "224.0.0.1:6000"], AddressDeniedError),
        ([], InvalidArgumentError),
    ):
        with pytest.raises(kind):
            manager.add_subscribers(session_id, texts)
        assert manager.get(session_id).subscriber_count == manager.total_subscribers == 2
    with pytest.raises(NotFoundError):
        manager.add_subscribers(str(uuid.uuid4()), two)


def test_a_batch_of_removals_tells_who_was_not_there(manager: SessionManager) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    manager.add_subscribers(session_id, [f"127.0.0.1:{port}" for port in (6000, 6001, 6002)])
    asked = ["127.0.0.1:6002", "127.0.0.1:7", SUBSCRIBER, SUBSCRIBER]
    assert manager.remove_subscribers(session_id, asked) == ["127.0.0.1:7", SUBSCRIBER]
    assert manager.get(session_id).subscriber_count == manager.total_subscribers == 1
    with pytest.raises(InvalidArgumentError) as error:
        manager.remove_subscribers(session_id, ["127.0.0.1:6001", "x"])
    assert error.value.field == "subscriber_addresses[1]"
    assert manager.total_subscribers == 1
    manager.delete(session_id)
    with pytest.raises(NotFoundError) as gone:
        manager.remove_subscribers(session_id, [SUBSCRIBER])
    assert gone.value.field == "session_id"


def test_subscribers_are_listed_in_pages_that_stay_stable(
    manager: SessionManager, clock: Clock
) -> None:
    session_id = manager.create(SOURCE, 1, "video").session_id
    assert manager.list_subscribers(session_id) == ([], "")
    clock.now += 2 * SECOND
    texts = [f"127.0.0.1:{port}" for port in (6000, 6001, 6002)]
    manager.add_subscribers(session_id, texts[:2])
    clock.now += SECOND
    manager.add_subscriber(session_id, texts[2])
    views, end = manager.list_subscribers(session_id, 3)
    assert ([str(view.address) for view in views], end) == (texts, "")
    assert [(view.since - MOMENT).total_seconds() for view in views] == [2, 2, 3]
    assert {(view.packets_sent, view.send_failures) for view in views} == {(0, 0)}

    (first,), cursor = manager.list_subscribers(session_id, 1)
    manager.remove_subscribers(session_id, texts[:2])
    manager.add_subscriber(session_id, "127.0.0.1:6003")
    rest, end = manager.list_subscribers(session_id, 1000, cursor)
    assert [str(view.address) for view in (first, *rest)] == [*texts[::2], "127.0.0.1:6003"]
    assert end == ""
    _page, other = manager.list_page(1)
    for wrong in ({"limit": -1}, {"cursor": "x"}, {"cursor": CursorKind.SESSIONS.write(1)}):
        with pytest.raises(InvalidArgumentError) as error:
            manager.list_subscribers(session_id, **wrong)
        assert error.value.field in wrong
    assert other == ""


def test_latency_of_a_session(manager: SessionManager) -> None:
    with udp_socket() as source, udp_socket() as one, udp_socket() as two:
        host, port = source.getsockname()
        session_id = manager.create(f"{host}:{port}", 1, "video").session_id
        assert manager.stats(session_id).last_copy_latency is None
        manager.add_subscribers(
            session_id, ["{}:{}".format(*sock.getsockname()) for sock in (one, two)]
        )
        ingress = manager._rules.policy.ingress
        for n in range(10):
            packet = rtp.build(b"x", ssrc=1, sequence=n, timestamp=n)
            source.sendto(packet, (str(ingress.ip), ingress.port))
            one.recv(100)
            two.recv(100)
    stats = eventually(
        lambda: manager.stats(session_id),
        lambda found: found.last_copy_latency and found.last_copy_latency.count == 10,
        "ten packets measured",
    )
    first, last = stats.first_copy_latency, stats.last_copy_latency
    assert first is not None
    assert last is not None
    assert first.count == 10
    assert 0 < first.p50_seconds <= first.max_seconds
    assert first.p50_seconds <= last.p50_seconds
