"""The broader word for a thing: ``superclasses.toml``, the one place where it is looked up."""

from __future__ import annotations

import functools
from pathlib import Path

from ..io.reading import read_toml
from ..schema import folded

__all__ = ["broader"]

TABLE = Path(__file__).parent / "superclasses.toml"


def broader(word: str) -> str | None:
    """The superclass of a word, ``broader("cat") == "animal"``; None if the table does not have it."""
    return _table().get(folded(word))


@functools.cache
def _table() -> dict[str, str]:
    data = read_toml(TABLE, what="table of superclasses")
    return {word: wide for wide, words in data.items() for word in words}
