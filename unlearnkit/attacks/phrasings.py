"""Other words for a concept, ``phrasings.toml``: synonyms, other languages, descriptions; and spellings of its name."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..io.reading import read_toml
from ..schema import Concept, folded

__all__ = ["descriptions", "sentences", "typos", "words_for"]

TABLE = Path(__file__).parent / "phrasings.toml"


def words_for(concept: Concept) -> dict[str, list[str]]:
    """``synonyms``: the request's phrases and other words. ``spellings``: other languages, upper case, typos."""
    known = _known(concept)
    spellings = [
        *known.get("languages", ()),
        concept.name.upper(),
        concept.name.title(),
        *typos(concept.name),
    ]
    words = {"synonyms": [*concept.wordings[1:], *known.get("synonyms", ())], "spellings": spellings}
    return {arm: list(dict.fromkeys(all_)) for arm, all_ in words.items()}


def descriptions(concept: Concept) -> list[str]:
    """Texts that describe the concept without its name; empty if the table has none."""
    return list(_known(concept).get("descriptions", ()))


def sentences(kind: str) -> list[str]:
    """Templates with ``{}`` for a concept of this kind and ``{other}`` for another object."""
    return list(_table()["sentences"][kind])


def typos(word: str) -> Iterator[str]:
    """Each letter left out, doubled, and exchanged with the next one."""
    for i, letter in enumerate(word):
        if letter != " ":
            yield word[:i] + word[i + 1 :]
            yield word[:i] + letter + word[i:]
            if word[i + 1 : i + 2].strip() and word[i + 1] != letter:
                yield word[:i] + word[i + 1] + letter + word[i + 2 :]


def _known(concept: Concept) -> dict[str, Any]:
    known: dict[str, Any] = _table()["words"].get(folded(concept.name), {})
    return known


@functools.cache
def _table() -> dict[str, Any]:
    return read_toml(TABLE, what="table of phrasings")
