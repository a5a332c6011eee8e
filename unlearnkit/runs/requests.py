"""From names to a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from ..errors import InputError, quoted
from ..model.hints import GENERAL, Hints
from ..schema import Concept, Kind, Request, folded

__all__ = ["kind_of", "request_for"]


def request_for(
    concept: str | Concept | Request | Iterable[str | Concept],
    *,
    kind: str | None = None,
    phrases: Iterable[str] = (),
    instead: str | None = None,
    keep: Iterable[str | Concept] = (),
    known: Hints = GENERAL,
) -> Request:
    """A Request from names: ``kind`` applies to every plain name, ``phrases`` and ``instead`` to a single one.

    kind: None: style for a name that the model's hints know only as a style, else object.
    keep: a plain name has the kind under which the hints know it; if they know neither or both, the erased kind.
    """
    words: Any = _names(phrases)
    keep = _names(keep)
    if isinstance(concept, Request):
        if instead is not None or words or keep:
            raise InputError("a Request has its own phrases, instead and keep: put them into it")
        return concept
    several = _names(concept)
    if (words or instead is not None) and [type(one) for one in several] != [str]:
        raise InputError(
            "phrases and 'instead' belong to a single concept given by name: for several, use a file "
            "(--concepts) or Concept objects"
        )
    kinds = [kind_of(one, "object", known) if kind is None else cast(Kind, kind) for one in several]
    usual = kinds[0] if kinds else "object"
    return Request(
        tuple(
            one if isinstance(one, Concept) else Concept(one, own, phrases=words, instead=instead)
            for one, own in zip(several, kinds, strict=True)
        ),
        tuple(one if isinstance(one, Concept) else Concept(one, kind_of(one, usual, known)) for one in keep),
    )


def _names(concepts: Any) -> tuple[str | Concept, ...]:
    """A tuple of them. Raises InputError for anything that is no name."""
    several = isinstance(concepts, Iterable) and not isinstance(concepts, str)
    names: tuple[Any, ...] = tuple(concepts) if several else (concepts,)
    for one in names:
        if not isinstance(one, str | Concept):
            raise InputError(f"{quoted(one)} is no concept: give a name, a Concept, or a list of these")
    return names


def kind_of(name: str | Concept, kind: Kind, known: Hints) -> Kind:
    """The kind under which the model knows the name; ``kind`` if it knows both or neither."""
    if isinstance(name, Concept):
        return name.kind
    kinds: tuple[Kind, ...] = (kind, "object", "style")
    return next((k for k in kinds if folded(name) in map(folded, known.vocabulary(k))), kind)
