"""Rows of figures in a file of JSON lines: a row's ``key`` says all that it depends on, and none is made twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from unlearnkit.errors import UnlearnError

__all__ = ["keep", "once", "plain", "read"]


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Every row that there is."""
    if path.is_file():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def keep(path: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Append a row, and show it."""
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    return dict(row)


def once(path: Path, facts: Mapping[str, Any], made: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """The row of these facts, from the file or made now; what unlearnkit refuses is a row as well."""
    key = plain(facts)
    if found := next((row for row in read(path) if row["key"] == key), None):
        return found
    try:
        return keep(path, {"key": key, **made()})
    except UnlearnError as refused:
        return keep(path, {"key": key, "refused": str(refused)})


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as JSON gives them back."""
    return dict(json.loads(json.dumps(facts)))
