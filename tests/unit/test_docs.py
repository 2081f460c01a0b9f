"""Documents name files that are there, and link to pages that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
HISTORY = {"CHANGELOG.md"}
FILE = re.compile(r"[\w./-]*\w\.(?:py|pyx|pxi|pxd|[ch]|sh|proto|toml|service|socket)")
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
TREE = [
    path.relative_to(ROOT).as_posix()
    for top in ("src", "tests", "benchmarks", "docker", "proto", "scripts", "config", ".ci", ".")
    for path in (ROOT.glob("*.*") if top == "." else (ROOT / top).rglob("*.*"))
]
OTHERS = {"server.toml", "config.toml"}  # which a reader may have elsewhere


def is_there(name: str) -> bool:
    name = name.removeprefix("./")
    return any(path == name or path.endswith("/" + name) for path in TREE)


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in HISTORY], ids=ids)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = {
        word
        for code in CODE.findall(page.read_text())
        for word in code.split()
        if FILE.fullmatch(word) and "*" not in word and not word.startswith(("/", "~"))
    }
    assert not sorted(name for name in named - OTHERS if not is_there(name))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]
