"""The names the seam gives out are those of stats_fields.h and of the stub."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from fastpath.engines import engine, local

from rtpfanout import _fastpath
from rtpfanout._fastpath import (
    CLASSES,
    DROP_REASONS,
    LATENCY_BOUNDS_NS,
    SEND_FAILURES,
    SESSION_FIELDS,
    STATS_FIELDS,
    WITHHELD,
    Engine,
    _engine,
)
from rtpfanout.model import SubscriberClass, Withheld

FASTPATH = Path(__file__).resolve().parents[2] / "src" / "rtpfanout" / "_fastpath"


def declared() -> dict[str, list[str]]:
    """Each X-macro list of stats_fields.h, lists within lists written out."""
    text = (FASTPATH / "core" / "stats_fields.h").read_text()
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).replace("\\\n", " ")
    lists = "KINDS|REASONS|FAILURES|FALLBACKS|FIELDS|DROPS|REFUSALS"
    lines = dict(re.findall(rf"#define RF_(\w+_(?:{lists}))\(X\) (.*)", text))
    prefixes = dict(re.findall(r"#define (RF_\w+)\(name\) X\((\w+?)##name, \"\"\)", text))
    found: dict[str, list[str]] = {}
    for name, line in lines.items():
        found[name] = []
        for nested, by, own in re.findall(r"RF_(\w+)\((RF_\w+)\)|X\((\w+)[,)]", line):
            found[name] += (
                [f"{prefixes[by]}{field}" for field in found[nested]] if nested else [own]
            )
    return found


def test_every_counter_declared_has_its_name() -> None:
    fields = declared()
    assert fields["DROP_REASONS"] == list(DROP_REASONS)
    assert fields["SEND_FAILURES"] == list(SEND_FAILURES)
    assert fields["WORKER_FIELDS"] + fields["ENGINE_FIELDS"] == list(STATS_FIELDS)
    drops = [f"dropped_{r}" for r in fields["SESSION_DROPS"] + fields["SESSION_REFUSALS"]]
    assert fields["SESSION_FIELDS"] + drops == list(SESSION_FIELDS)
    assert {f"dropped_{reason}" for reason in DROP_REASONS} < set(STATS_FIELDS)
    assert {f"failed_{reason}" for reason in SEND_FAILURES} < set(STATS_FIELDS)


def test_snapshots_have_every_field() -> None:
    e = engine()
    handle = e.add_session(local(1), 1, 5)
    times = {"subscribers", "created_ns", "last_packet_ns", "packets_per_second"}
    assert list(e.stats()) == list(STATS_FIELDS)
    assert set(e.session_stats(handle, 5)) == {*SESSION_FIELDS, *times}
    assert set(e.all_session_stats(5)[handle]) == {*SESSION_FIELDS, *times}


def test_latency_bounds_and_counts_fit() -> None:
    e = engine()
    handle = e.add_session(local(1), 1, 5)
    for counts, total in (*e.latency(), *e.session_latency(handle)):
        assert len(counts) == len(LATENCY_BOUNDS_NS) + 1
        assert total == sum(counts) == 0
    assert list(LATENCY_BOUNDS_NS) == sorted(set(LATENCY_BOUNDS_NS))
    assert LATENCY_BOUNDS_NS[0] == 1_000
    assert LATENCY_BOUNDS_NS[-1] == 1_000 << 24


def test_stub_and_extension_agree() -> None:
    stub = ast.parse((FASTPATH / "_engine.pyi").read_text())
    variables = {n.target.id for n in stub.body if isinstance(n, ast.AnnAssign)}  # type: ignore[union-attr]
    classes = {n.name: n for n in stub.body if isinstance(n, ast.ClassDef)}
    cls = classes["Engine"]
    methods = {n.name for n in cls.body if isinstance(n, ast.FunctionDef)}
    functions = {n.name for n in stub.body if isinstance(n, ast.FunctionDef)}
    compiled = {
        name for name in _fastpath.__all__ if hasattr(_engine, name)
    }  # the others are made in Python
    assert variables | functions | set(classes) == compiled
    assert methods - {"__init__"} == {name for name in dir(Engine) if not name.startswith("_")}


def test_classes_and_reasons_to_withhold_have_the_numbers_of_the_model() -> None:
    assert {kind.value: kind.number for kind in SubscriberClass} == CLASSES
    bits = {name.lower(): bit for name, bit in vars(Withheld).items() if name.isupper()}
    assert bits == WITHHELD
