"""The broader word for a thing, ``superclasses.toml``: of a word, of a concept, and the words that share it."""

from __future__ import annotations

import functools
from pathlib import Path

from ..errors import InputError
from ..io.reading import read_toml
from ..model.model import Model
from ..schema import Concept, Request, folded
from .prompts import unerased

__all__ = ["broader", "superclass_of", "words_within"]

TABLE = Path(__file__).parent / "superclasses.toml"


def broader(word: str) -> str | None:
    """The superclass of a word, ``broader("cat") == "animal"``; None if the table does not have it."""
    return _table().get(folded(word))


def superclass_of(concept: Concept, default: str | None = None) -> str:
    """What takes the concept's place: its ``instead``, the default, or the table's word (for a style "art").

    Raises InputError where none is known, and where it is the concept itself.
    """
    if concept.instead == "":
        raise InputError("a superclass is a word, not nothing: give one with --instead, or leave it out")
    word = concept.instead or default or ("art" if concept.kind == "style" else broader(concept.name))
    if word is None:
        raise InputError(
            f"no superclass of {concept.name!r} is known: say what takes its place with --instead, for example a "
            "broader word, or with superclass=..."
        )
    if folded(word) in concept.folded:
        raise InputError(f"the superclass {word!r} is the concept itself: give another with --instead")
    return word


def words_within(model: Model, request: Request, concept: Concept, *, all_of_kind: bool) -> list[str]:
    """The vocabulary's words that share the concept's superclass, none of which the request erases.

    For a style, and with all_of_kind, these are all words of the kind. Raises InputError where there is none.
    """
    words, shared = unerased(model, request)[concept.kind], broader(concept.name)
    if concept.kind != "style" and not all_of_kind:
        words = [word for word in words if shared and broader(word) == shared]
    if not words:
        raise InputError(
            f"no other word of the model's vocabulary is known to share a superclass with {concept.name!r}: "
            "leave retain_set=superclass as it is"
        )
    return words


@functools.cache
def _table() -> dict[str, str]:
    data = read_toml(TABLE, what="table of superclasses")
    return {word: wide for wide, words in data.items() for word in words}
