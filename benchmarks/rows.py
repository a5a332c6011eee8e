"""Rows of figures in a file of JSON lines: a row's ``key`` says all that it depends on, and none is made twice.

And tables of them in Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from unlearnkit.errors import UnlearnError

__all__ = ["keep", "markdown", "once", "part", "plain", "read", "share"]

T = TypeVar("T")


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


def share(text: str) -> tuple[int, int]:
    """``"1/4"``: the second of four processes that divide the cells among them, side by side on one GPU."""
    place, slash, count = text.partition("/")
    if not (slash and place.isdigit() and count.isdigit() and int(place) < int(count)):
        raise argparse.ArgumentTypeError(f"{text!r}: write 0/4 for the first of four")
    return int(place), int(count)


def part(cells: Iterable[T], share: tuple[int, int]) -> list[T]:
    """The cells that this process makes."""
    return list(cells)[share[0] :: share[1]]


def markdown(heads: Sequence[str], cells: Iterable[Iterable[object]]) -> Iterator[str]:
    """The lines of a table."""
    yield _line(heads)
    yield "|---" * len(heads) + "|"
    yield from map(_line, cells)


def _line(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
