"""Hooks over a real HTTP receiver: what is posted, and what is done when it fails or hangs."""

from __future__ import annotations

import ssl
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hook_receivers import receiving
from pki import Authority
from structlog.testing import capture_logs
from support import eventually, free_tcp_port

from rtpfanout.hooks import Hook, Secrets, post
from rtpfanout.model import EventKind
from rtpfanout.sessions import EventLog, Wanted
from rtpfanout.sessions.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hook_receivers import Receiver


@pytest.fixture
def log() -> EventLog:
    return EventLog(Clock(time.monotonic_ns, lambda: datetime.now(UTC)), 50)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def hook_of(url: str, log: EventLog, **options: Any) -> Hook:
    arguments = {"secrets": Secrets(None), "wanted": Wanted(), "server": "us:5004"} | options
    return Hook(url, log=log, wait=lambda failures: 0.01 * failures, **arguments)


@contextmanager
def posting(receiver: Receiver, log: EventLog, **options: Any) -> Iterator[Hook]:
    hook = hook_of(f"http://127.0.0.1:{receiver.port}/x?y=z", log, **options)
    hook.start()
    try:
        yield hook
    finally:
        hook.stop(30)


def settled(hook: Hook, **counts: int) -> None:
    eventually(lambda: {k: hook.counts[k] for k in counts}, lambda c: c == counts, "the counts")


def test_what_is_posted(log: EventLog, receiver: Receiver) -> None:
    log.tell(EventKind.OVERLOAD, detail="busy")
    with posting(receiver, log) as hook:
        first = receiver.until(lambda p: len(p) == 1)[0]
        settled(hook, delivered=1, sent=2)
        log.tell(EventKind.OVERLOAD_OVER)
        second = receiver.until(lambda p: len(p) == 2)[1]
        settled(hook, delivered=2, sent=3, failed=0, refused=0, dropped=0)
        assert hook.waiting == 0
    assert first.path == "/x?y=z"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["user-agent"].startswith("rtpfanout/")
    assert "webhook-signature" not in first.headers
    assert abs(int(first.headers["webhook-timestamp"]) - time.time()) < 60
    assert first.body.keys() == {"type", "timestamp", "server", "dropped", "events"}
    assert (first.body["type"], first.body["server"]) == ("rtpfanout.events", "us:5004")
    assert first.body["dropped"] == 0
    assert first.body["events"] == [each.as_dict() for each in log.after(0).events[:2]]
    assert (first.kinds, second.kinds) == (["started", "overload"], ["overload_over"])
    assert first.headers["webhook-id"] != second.headers["webhook-id"]


def test_a_burst_makes_few_posts_and_kinds_choose(log: EventLog, receiver: Receiver) -> None:
    with posting(receiver, log, wanted=Wanted(kinds=frozenset([EventKind.OVERLOAD]))) as hook:
        for _ in range(20):
            log.tell(EventKind.OVERLOAD_OVER)
            log.tell(EventKind.OVERLOAD)
        settled(hook, sent=20, dropped=0)
        assert hook.counts["delivered"] < 20
        eventually(lambda: hook.waiting, lambda n: n == 0, "all were looked at")
    assert receiver.kinds() == ["overload"] * 20


def test_who_fails_is_asked_again_with_the_same(
    log: EventLog, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(post, "SECONDS", 1.0)
    receiver.answers = [
        500, 404, (503, {"Retry-After": "0"}), 429, receiver.close, receiver.hang, receiver.drip,
        (301, {"Location": f"http://127.0.0.1:{receiver.port}/elsewhere"}),
    ]  # fmt: skip
    number = len(receiver.answers)
    with capture_logs() as lines, posting(receiver, log) as hook:
        posts = receiver.until(lambda p: len(p) > number)
        settled(hook, delivered=1, sent=1, dropped=0, refused=0)
    assert hook.counts["failed"] >= number
    assert {each.path for each in posts} == {"/x?y=z"}, "no redirect is followed"
    assert len({(each.headers["webhook-id"], each.raw) for each in posts}) == 1
    told = [(line["log_level"], line["event"].split(";")[0]) for line in lines]
    assert told == [("warning", "events are not delivered"), ("info", "events are delivered again")]
    assert lines[0]["reason"] == "it answers 500"
    assert lines[0]["host"] == "127.0.0.1", "the rest of a URL may be a secret"


def test_nobody_waits_for_a_receiver_that_hangs(log: EventLog, receiver: Receiver) -> None:
    """Not who tells an event, nor who stops the server."""
    receiver.answers = [receiver.hang]
    hook = hook_of(f"http://127.0.0.1:{receiver.port}/", log)
    hook.start()
    receiver.until(lambda p: len(p) == 1)
    for _ in range(1000):
        log.tell(EventKind.OVERLOAD)
    with capture_logs() as lines:
        hook.stop(0.3)
    assert hook._thread is None
    assert not log._listeners
    assert hook.waiting == 1000
    assert lines == [], "it has not failed"
    hook.start()  # it goes on where it was, as after an upgrade that came to nothing
    posts = receiver.until(lambda p: len(p) == 3)
    assert [each.kinds[:1] for each in posts] == [["started"], ["started"], ["overload"]]
    assert posts[2].body["dropped"] == 950
    hook.stop(30)
    assert hook.counts["dropped"] == 950


def test_what_is_not_kept_any_more_is_told(log: EventLog) -> None:
    port = free_tcp_port()
    hook = hook_of(f"http://127.0.0.1:{port}/", log)
    with capture_logs() as lines:
        hook.start()
        eventually(lambda: hook.counts["failed"], lambda n: n > 1, "nobody is there")
        for _ in range(70):
            log.tell(EventKind.OVERLOAD)
        with receiving(port) as receiver:
            posts = receiver.until(lambda p: len(p) == 2)
            log.tell(EventKind.OVERLOAD_OVER)
            receiver.until(lambda p: len(p) == 3)
            settled(hook, delivered=3)
        hook.stop(30)
    assert [each.body["dropped"] for each in posts] == [0, 20]
    assert receiver.posts[2].body["dropped"] == 0, "it was told"
    assert receiver.kinds() == ["started", *["overload"] * 50, "overload_over"]
    assert (hook.counts["sent"], hook.counts["dropped"]) == (52, 20)
    (dropped,) = [line for line in lines if line["event"] == "events dropped"]
    assert (dropped["count"], dropped["log_level"]) == (20, "warning")


def test_what_is_refused_holds_up_nothing(log: EventLog, receiver: Receiver) -> None:
    receiver.answers = [400]
    with posting(receiver, log) as hook:
        settled(hook, refused=1, dropped=1, failed=0)
        log.tell(EventKind.OVERLOAD)
        settled(hook, delivered=1, sent=1)
    assert [each.body["dropped"] for each in receiver.posts] == [0, 1]
    assert receiver.posts[1].kinds == ["overload"]


def test_what_happened_last_leaves_at_the_end(log: EventLog, receiver: Receiver) -> None:
    hook = hook_of(f"http://127.0.0.1:{receiver.port}/", log)
    hook.start()
    receiver.until(lambda p: len(p) == 1)
    log.tell(EventKind.OVERLOAD)
    hook.stop(30)
    assert receiver.kinds() == ["started", "overload"]


def test_tls_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority()
    chain, key = authority.issue("localhost")
    (tmp_path / "chain.pem").write_bytes(chain)
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")
    with receiving(tls=tls) as receiver:
        stranger = post.Poster(f"https://localhost:{receiver.port}/")
        assert "CERTIFICATE_VERIFY_FAILED" in stranger.post(b"{}", {}).reason
        assert receiver.posts == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert post.Poster(f"https://localhost:{receiver.port}/").post(b"{}", {}) == post.Outcome()
        assert len(receiver.posts) == 1


def test_a_host_that_is_not_there() -> None:
    assert post.Poster("http://nowhere.invalid/").post(b"{}", {}).reason
    assert post.Poster(f"http://127.0.0.1:{free_tcp_port()}/").post(b"{}", {}).reason == (
        "Connection refused"
    )


def test_what_a_fault_of_ours_takes_is_counted(log: EventLog, receiver: Receiver) -> None:
    class Faulty(Secrets):
        def headers(self, *_args: object) -> dict[str, str]:
            raise RuntimeError("on purpose")

    log.tell(EventKind.OVERLOAD)
    with capture_logs() as lines, posting(receiver, log, secrets=Faulty(None)) as hook:
        settled(hook, dropped=2, sent=0, failed=0)
    assert [line["event"] for line in lines][:2] == ["the hook failed", "events dropped"]
