"""Stores that earlier versions wrote, with every field in use, open with all that is in them.

Files of tests/unit/data, made there by make_store.py; they are kept for ever. What the server of
then said of its sessions, and answered to calls with a request id, it says and answers today.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import json
import runpy
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf import json_format
from managers import policy_of

from rtpfanout._fastpath import Engine
from rtpfanout.api import session_pb2, session_pb2_grpc
from rtpfanout.auth import Access
from rtpfanout.model import Address
from rtpfanout.service import ControlServer
from rtpfanout.sessions import Limits, SessionManager
from rtpfanout.store import Store
from rtpfanout.store.migrations import LAYOUT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

DATA = Path(__file__).with_name("data")
OLD = sorted(DATA.glob("store_*.db"))
SECOND = 10**9
ANYWHERE = tuple(map(ipaddress.ip_network, ("fe80::/16", "::/0", "0.0.0.0/0")))
EPOCH = "1970-01-01T00:00:00Z"


@pytest.fixture(params=OLD, ids=lambda path: path.stem)
def old(request: pytest.FixtureRequest) -> Path:
    """The file itself; no test changes it."""
    return Path(request.param)


@pytest.fixture
def path(old: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(old, tmp_path / "store.db"))


@pytest.fixture
def said(old: Path) -> Any:
    """What the server said that wrote it."""
    return json.loads(old.with_suffix(".json").read_text())


Columns = dict[str, list[str]]


def columns(path: Path) -> Columns:
    """By table."""
    with closing(sqlite3.connect(path)) as connection:
        query = """SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c
            WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' ORDER BY t.name, c.cid"""
        found: Columns = {}
        for table, column in connection.execute(query):
            found.setdefault(table, []).append(column)
        return found


def tables(path: Path, known: Columns | None = None) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the file, by table; of tables in `known` those columns alone."""
    of = columns(path) | (known or {})
    with closing(sqlite3.connect(path)) as connection:
        return {
            name: sorted(connection.execute(f"SELECT {', '.join(of[name])} FROM {name}"))  # noqa: S608
            for name in of
        }


def layout(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[60:64])


def test_there_is_one_of_each_earlier_layout() -> None:
    """Of the layout before today's, too: make it with the version before (see make_store.py)."""
    assert {layout(path) for path in OLD} >= set(range(1, LAYOUT))


def test_the_next_one_can_be_made() -> None:
    """The script finds in this version what it uses."""
    runpy.run_path(str(DATA / "make_store.py"))


def test_every_row_is_there(path: Path) -> None:
    """In the columns that it had. What a migration changes in these it says here."""
    had = columns(path)
    before = tables(path)
    kept = Path(f"{path}.layout-{layout(path)}")
    with Store(str(path)):
        pass
    after = tables(path, had)
    assert {name: after.pop(name) for name in before} == before
    assert set(map(len, after.values())) <= {0}, "tables that were not there"
    assert layout(path) == LAYOUT
    assert not kept.exists() or tables(kept) == before


def test_the_store_reads_what_lies_there(old: Path, path: Path) -> None:
    rows = tables(old)
    with Store(str(path)) as store:
        some = zip(store.sessions(), rows["session"], strict=True)
        assert [tuple(each)[: len(row)] for each, row in some] == rows["session"]
        sources = [(each.sequence, each.source_text) for each in store.sources()]
        assert sources == [(each.sequence, each.source_text) for each in store.sessions()]
        found = [(row[0], row[5], row[4], row[2], row[3]) for r in store.subscribers() for row in r]
        assert sorted(found) == rows["subscriber"]
        assert sorted(map(tuple, store.answers())) == rows["answer"]
        for name, value in rows["secret"]:
            assert store.secret(name) == value
        assert [(store.revision, store.sequence)] == [row[1:3] for row in rows["state"]]
        boots = {row[3] for row in rows["consent"]}
        consents = [(*each, boot) for boot in boots for each in store.consents(boot, 0)]
        assert sorted(consents) == rows["consent"]
        counters = [(key, n.to_bytes(8)) for key, n in store.move_counters()]
        assert counters == [row[1:] for row in rows.get("move_counter", [])]
        assert sorted(map(tuple, store.deliveries())) == rows.get("delivery", [])
        assert sorted(store.place_interfaces({}).items()) == rows.get("interface", [])
        clock = [(1, *store.kept_clock)] if store.kept_clock else []
        assert clock == rows.get("clock", [])


def server_of(path: Path, said: Any) -> Iterator[SessionManager]:
    """The sessions of the file, at the moment when the server that wrote it last spoke."""
    moment = said["unix_secs"]
    with Store(str(path)) as store:
        engine = Engine(
            Address.parse("[::]:0"),
            max_sessions=100,
            max_subscribers=1000,
            receive_queue_packets=100,
        )
        policy = dataclasses.replace(policy_of(engine), allow=ANYWHERE)
        manager = SessionManager(
            engine,
            policy,
            store,
            limits=Limits(sessions=100, fanout=1000, session_timeout_ns=30 * SECOND),
            monotonic_ns=lambda: 1000 * SECOND,
            utc_now=lambda: datetime.fromtimestamp(moment, UTC),
        )
        manager.restore()
        yield manager


manager = pytest.fixture(server_of)


def answered(
    manager: SessionManager, calls: Callable[[Callable[..., Awaitable[Any]]], Awaitable[None]]
) -> None:
    """`calls` gets what calls the API of `manager`, by names and JSON."""

    async def run() -> None:
        server = ControlServer(manager, Counter(), Access(), Counter())
        port = server.listen("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = session_pb2_grpc.SessionServiceStub(channel)
            service = session_pb2.DESCRIPTOR.services_by_name["SessionService"]

            async def call(method: str, request: Any) -> Any:
                kind = service.methods_by_name[method].input_type.name
                message = json_format.ParseDict(request, getattr(session_pb2, kind)())
                answer = await getattr(stub, method)(message)
                return json_format.MessageToDict(answer, preserving_proto_field_name=True)

            try:
                await calls(call)
            finally:
                await server.stop(0)

    asyncio.run(run())


def known(found: Any, expected: Any) -> Any:
    """Of `found` the fields that the version of then could know."""
    return {name: value for name, value in found.items() if name in expected}


def by_address(subscriber: Any) -> str:
    """Who came within a second may have another order after a restart."""
    return str(subscriber["subscriber_address"])


def test_sessions_and_subscribers_are_shown_as_they_were(
    manager: SessionManager, said: Any
) -> None:
    async def look(call: Any) -> None:
        for session_id, expected in said["sessions"].items():
            found = await call("GetSession", {"session_id": session_id})
            expected["status"] = found["status"]  # of packets, which none comes after a restart
            assert known(found, expected) == expected
        for session_id, expected in said["subscribers"].items():
            page = await call("ListSubscribers", {"session_id": session_id, "limit": 1000})
            found = page.get("subscribers", [])
            both = zip(*(sorted(some, key=by_address) for some in (found, expected)), strict=True)
            for one, other in both:
                for name in ("packets_sent", "send_failures", "state"):  # since the start
                    one.pop(name, None)
                    other.pop(name, None)
                for name in ("since", "expires_at"):  # which the packet path knows by the second
                    times = [datetime.fromisoformat(each.pop(name, EPOCH)) for each in (one, other)]
                    assert abs(times[0] - times[1]) < timedelta(seconds=1)
                assert known(one, other) == other

    answered(manager, look)


def test_answers_are_still_given_and_ids_are_still_taken(
    manager: SessionManager, said: Any
) -> None:
    assert len(said["calls"]) > 15

    async def ask(call: Any) -> None:
        for each in said["calls"]:
            found = await call(each["method"], each["request"])
            assert known(found, each["answer"]) == each["answer"], each
        for each in said["calls"]:
            changed = dict(each["request"])
            for name, value in (("ssrc", 77), ("subscriber_class", "monitor"), ("paused", False)):
                if name in changed or name == "paused":
                    changed[name] = value
            if each["method"] != "UpdateSession":
                changed.pop("paused")
            if changed == each["request"]:
                changed["session_id"] = "00000000-0000-4000-8000-000000000000"
            with pytest.raises(grpc.RpcError) as error:
                await call(each["method"], changed)
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "the id of another call" in str(error.value.details())

    before = manager.counts["created"], manager.total_subscribers
    answered(manager, ask)
    assert (manager.counts["created"], manager.total_subscribers) == before
