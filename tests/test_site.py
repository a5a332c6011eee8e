"""The documentation's site: every page is in its navigation, and a dead link or a file from elsewhere is found.

``scripts/docs`` makes it, strictly, and is a part of ``scripts/check``.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from test_supply import script

ROOT = Path(__file__).parent.parent


def pages(entries: Any) -> list[str]:
    if isinstance(entries, str):
        return [entries]
    every = entries.values() if isinstance(entries, dict) else entries
    return [page for entry in every for page in pages(entry)]


def test_every_page_is_in_the_navigation_once():
    nav = tomllib.loads((ROOT / "docs" / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    listed, docs = pages(nav), script("docs")
    there = [str(path.relative_to(ROOT)) for pattern in docs.PAGES for path in ROOT.glob(pattern)]
    assert sorted(listed) == sorted(path for path in there if path.endswith(".md"))


def test_dead_links_and_files_from_elsewhere_are_found(tmp_path: Path):
    docs = script("docs")
    (tmp_path / "in").mkdir()
    page = tmp_path / "in" / "a.html"
    page.write_text(
        '<link rel="canonical" href="https://a.example/"><script src="../b.js"></script>'
        '<a href="a.html#x">here</a><a href="https://b.example">there</a>'
    )
    (tmp_path / "b.js").touch()
    assert docs.faults(tmp_path) == []
    page.write_text('<script src="https://cdn.example/c.js"></script><a href="../d.html">gone</a>')
    assert docs.faults(tmp_path) == [
        "in/a.html loads https://cdn.example/c.js",
        "in/a.html: ../d.html leads nowhere",
    ]
