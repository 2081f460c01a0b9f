"""What is submitted to the store is there after it was opened again, wholly or not at all."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from store_support import contents, record, records, session, split

from rtpfanout.errors import StartError, UnavailableError
from rtpfanout.model import Address
from rtpfanout.store import (
    MEMORY,
    Store,
    StoredAnswer,
    StoredConsent,
    default_path,
    files,
    pack_labels,
    runs_of,
    unpack_labels,
    writer,
)
from rtpfanout.store.writes import (
    drop_move_counters,
    drop_session,
    drop_subscribers,
    put_answer,
    put_consents,
    put_move_counter,
    put_secret,
    put_session,
    put_subscribers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rtpfanout.store import Change

SECOND = 10**9


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "made" / "s.db")


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, path: str) -> Iterator[Store]:
    with Store(path if request.param == "file" else MEMORY) as opened:
        yield opened


def write(store: Store, *changes: Change, revision: int = 0) -> int:
    return store.submit(changes, revision).result(30)


def test_everything_of_a_session_comes_back(path: str) -> None:
    full = session(
        7,
        pinned_source="[2001:db8::1]:5",
        latch_window_secs=1.5,
        relatch_after_secs=2.5,
        latch_until_ns=3,
        paused=1,
        ingest_limit_bps=2**63 - 1,
        max_subscribers=4,
        consent="echo",
        move_key=bytes(range(64)),
        move_counter=2**63 - 1,
        labels=pack_labels({"vehicle": "rover-7", "site": "north"}),
        ssrc=2**32 - 1,
    )
    with Store(path) as store:
        assert write(store, put_session(full), revision=41) == 41
        assert write(store) == 41
    with Store(path) as store:
        assert store.sessions() == [full]
        assert (store.revision, store.sequence) == (41, 7)
        assert unpack_labels(full.labels) == {"vehicle": "rover-7", "site": "north"}


def test_numbers_are_not_given_again_after_the_last_session_went(path: str) -> None:
    with Store(path) as store:
        write(store, put_session(session(9)), revision=5)
        write(store, drop_session(9), revision=6)
    with Store(path) as store:
        assert store.sessions() == []
        assert (store.revision, store.sequence) == (6, 9)


def test_subscribers_come_back_in_the_order_they_came(store: Store) -> None:
    backwards = records(range(2500, 0, -1))
    write(store, put_session(session(1)), put_subscribers(1, backwards, 5 * SECOND))
    write(store, put_subscribers(1, record(1) + record(9000), 9 * SECOND, 77, 0))
    (rows,) = store.subscribers()
    runs = list(runs_of(rows))
    # The one that came again has a new lease and class, and keeps its place.
    assert [(r.since_ns, r.lease_ns, r.subscriber_class) for r in runs] == [
        (5 * SECOND, 0, 2),
        (5 * SECOND + 2499, 77, 0),
        (9 * SECOND + 1, 77, 0),
    ]
    assert runs[0].records == backwards[:-24]
    assert runs[1].records == record(1)


def test_subscribers_go_alone_and_with_their_session(store: Store) -> None:
    write(store, put_session(session(1)), put_session(session(2)))
    write(store, put_subscribers(1, records(range(3000)), 0), put_subscribers(2, record(1), 0))
    write(store, drop_subscribers(1, records(range(1, 3000)) + record(99_999)))
    assert contents(store) == {session(1): {record(0): (0, 2)}, session(2): {record(1): (0, 2)}}
    write(store, drop_session(1))
    write(store, put_session(session(1)))
    assert contents(store) == {session(1): {}, session(2): {record(1): (0, 2)}}


def test_a_session_that_is_gone_gets_no_subscribers(store: Store) -> None:
    write(store, put_subscribers(3, record(1), 0))
    write(store, put_session(session(3)))
    assert contents(store) == {session(3): {}}


def test_consents_come_back_in_their_boot_and_time(path: str) -> None:
    with Store(path) as store:
        write(
            store, put_session(session(1, consent="echo")), put_subscribers(1, records([1, 2]), 0)
        )
        assert list(store.consents(b"b", 0)) == []
        first, second = StoredConsent(1, record(1), 7), StoredConsent(1, record(2), 2**63 - 1)
        write(store, put_consents(b"b", [first._replace(until_ns=5), second]))
        write(store, put_consents(b"b", [first]))
    with Store(path) as store:
        assert sorted(store.consents(b"b", 6)) == [first, second]
        assert list(store.consents(b"b", 7)) == [second]
        assert list(store.consents(b"c", 0)) == []
        write(store, put_consents(b"c", [first]))  # after the host has started again
        assert list(store.consents(b"c", 0)) == [first]
        assert list(store.consents(b"b", 0)) == [second]


@pytest.mark.parametrize(
    "change",
    [
        drop_session(1),
        drop_subscribers(1, records(range(3000))),
        put_session(session(1, consent="none")),
        put_session(session(1, consent="")),
    ],
)
def test_consents_go_with_what_they_are_for(store: Store, change: Change) -> None:
    asking = put_session(session(1, consent="echo"))
    there = put_subscribers(1, records(range(2500)), 0)
    given = [StoredConsent(1, one, 9) for one in split(records(range(2500)))]
    other = StoredConsent(2, record(1), 9)
    write(store, asking, put_session(session(2, consent="echo")), there)
    write(store, put_subscribers(2, record(1), 0), put_consents(b"b", [*given, other]))
    write(store, put_session(session(1, consent="echo", paused=1)))
    assert len(list(store.consents(b"b", 0))) == 2501
    write(store, change)
    assert list(store.consents(b"b", 0)) == [other]
    # Nobody is there who could have given one, or none is asked for; and then nothing comes back.
    write(store, put_consents(b"b", given[:3]))
    assert list(store.consents(b"b", 0)) == [other]
    write(store, asking, there)
    assert list(store.consents(b"b", 0)) == [other]


def test_counters_of_move_keys_only_grow_and_outlive_their_sessions(path: str) -> None:
    a, b, c = (bytes([n]) * 16 for n in range(3))
    with Store(path) as store:
        write(store, put_session(session(1)), put_move_counter(a, 2**63), put_move_counter(b, 7))
        write(store, put_move_counter(c, 0), put_move_counter(a, 2**63 - 1), put_move_counter(b, 7))
        write(store, drop_session(1), put_move_counter(a, 2**64 - 1))
    with Store(path) as store:
        assert list(store.move_counters()) == [(b, 7), (c, 0), (a, 2**64 - 1)]
        write(store, drop_move_counters([b, b"nobody's" * 2]))
        assert list(store.move_counters()) == [(c, 0), (a, 2**64 - 1)]
        with pytest.raises(UnavailableError):
            write(store, put_move_counter(b"short", 1))


def test_answers_and_secrets_come_back(path: str) -> None:
    late, early = StoredAnswer("b", b"\0", "x", 2e10), StoredAnswer("a", b"\1", "", 1e10)
    with Store(path) as store:
        write(store, put_answer(late), put_answer(early), put_secret("n", b"1"))
        made = store.secret("cookie")
        assert len(made) == 32
        assert made == store.secret("cookie") != store.secret("other")
    with Store(path) as store:
        assert store.answers() == [early, late]
        assert store.secret("cookie") == made
        assert store.secret("n") == b"1"


def test_expired_answers_are_forgotten(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(writer, "FORGET_EVERY_SECS", 0.0)
    stays = StoredAnswer("b", b"", "", time.time() + 1000)
    with Store(path) as store:
        write(store, put_answer(StoredAnswer("a", b"", "", time.time() - 1)), put_answer(stays))
    with Store(path) as store:
        assert store.answers() == [stays]


def test_what_comes_during_an_fsync_is_written_with_one(path: str) -> None:
    with Store(path) as store:
        gate = threading.Event()
        write_now = store._database.write

        def slow(changes: object, revision: int) -> None:
            gate.wait(30)
            write_now(changes, revision)  # type: ignore[arg-type]

        store._database.write = slow  # type: ignore[method-assign]
        futures = [store.submit([put_session(session(n))], n) for n in range(1, 301)]
        gate.set()
        assert futures[-1].result(30) == 300
        assert all(future.done() for future in futures)
        counts = store.counts()
        assert counts["commits"] == 300
        assert counts["transactions"] <= 2


def test_of_a_group_only_the_bad_submission_fails(path: str) -> None:
    with Store(path) as store:
        good = [store.submit([put_session(session(n))]) for n in range(1, 50)]
        bad = store.submit([put_session(session(50)), put_session(session(51, ssrc=2**63))])
        with pytest.raises(ValueError, match="whole number"):
            put_subscribers(1, bytes(23), 0)
        late = [store.submit([put_session(session(n))]) for n in range(60, 99)]
        for future in good + late:
            future.result(30)
        with pytest.raises(UnavailableError, match="nothing was changed"):
            bad.result(30)
        assert store.counts()["failures"] == 1
    with Store(path) as store:
        assert [s.sequence for s in store.sessions()] == [*range(1, 50), *range(60, 99)]


def test_a_full_queue_and_a_closed_store_refuse(path: str) -> None:
    store = Store(path, most_queued=2)
    gate = threading.Event()
    write_now = store._database.write
    store._database.write = lambda c, r: (gate.wait(30), write_now(c, r))[1]  # type: ignore[method-assign,func-returns-value]
    futures = [store.submit([put_session(session(n))]) for n in range(1, 9)]
    refused = [f for f in futures if f.done()]
    assert 5 <= len(refused) <= 6
    gate.set()
    store.close()
    for future in futures:
        if future in refused:
            with pytest.raises(UnavailableError, match="does not keep up"):
                future.result(0)
        else:
            future.result(0)
    with pytest.raises(UnavailableError, match="closed"):
        store.submit([]).result(0)
    store.close()


def test_the_file_is_for_its_owner_only(path: str) -> None:
    with Store(path) as store:
        write(store, put_session(session(1)))
        modes = {p.name: p.stat().st_mode & 0o777 for p in Path(path).parent.iterdir()}
    assert modes == {"s.db": 0o600, "s.db-wal": 0o600, "s.db.lock": 0o600}
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700


def test_the_log_stays_small_under_churn(path: str) -> None:
    with Store(path) as store:
        write(store, *(put_session(session(n)) for n in range(100)))
        largest = 0
        for round_ in range(400):
            batch = records(range(round_ * 100, round_ * 100 + 100))
            write(store, put_subscribers(round_ % 100, batch, round_))
            write(store, drop_subscribers(round_ % 100, batch))
            largest = max(largest, Path(path + "-wal").stat().st_size)
        assert largest < 8_000_000
        assert Path(path).stat().st_size < 8_000_000


def test_one_process_has_a_file_until_it_closes_it(path: str) -> None:
    code = (
        "import sys, time\nfrom rtpfanout.store import Store\ns = Store(sys.argv[1])\n"
        "print('open', flush=True)\nsys.stdin.read()\ns.close()\nprint('closed', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "open\n"
        with pytest.raises(StartError, match=f"in use by process {child.pid}") as caught:
            Store(path)
        assert caught.value.field == "store.path"
        # An upgrade: the new process waits, the old one lets go and lives on.
        threading.Timer(0.2, child.stdin.close).start()
        with Store(path, wait_secs=30) as store:
            write(store, put_session(session(1)))
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize("where", ["/proc/none/s.db", "directory"])
def test_a_file_that_cant_be_had_is_a_start_error(where: str, tmp_path: Path) -> None:
    if where == "directory":
        where = str(tmp_path / "d")
        Path(where).mkdir()
    with pytest.raises(StartError, match="cannot be used") as caught:
        Store(where)
    assert caught.value.field == "store.path"


def test_where_the_file_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/one:{tmp_path}/two")
    assert default_path(Address.parse("0.0.0.0:5004")) == f"{tmp_path}/one/sessions-5004.db"
    assert default_path(Address.parse("0.0.0.0:0")) == MEMORY
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setattr(files.os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_path(Address.parse("[::]:6")) == f"{tmp_path}/rtpfanout/sessions-6.db"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = f"{tmp_path}/.local/state/rtpfanout/sessions-6.db"
    assert default_path(Address.parse("[::]:6")) == expected
    monkeypatch.setattr(files.os, "geteuid", lambda: 0)
    monkeypatch.setattr(files, "_SYSTEM_DIRECTORY", tmp_path / "var")
    assert default_path(Address.parse("[::]:6")) == f"{tmp_path}/var/sessions-6.db"
    (tmp_path / "file").touch()
    monkeypatch.setattr(files, "_SYSTEM_DIRECTORY", tmp_path / "file/below")
    assert default_path(Address.parse("[::]:6")) == expected


@pytest.mark.parametrize("labels", [{"a=b": "c"}, {"a\n": "c"}, {"a": "\n"}])
def test_labels_that_cant_be_packed(labels: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="label"):
        pack_labels(labels)
