"""From the options of ``unlearnkit erase`` to a recipe, checked before anything heavy is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, nearest
from ..errors import quoted as cut
from ..io.files import user_path
from .terminal import known_model, note

if TYPE_CHECKING:
    from ..schema import Concept, Recipe

__all__ = ["NAMES", "notes", "recipe_of", "several_of"]

NAMES = 120  # characters of names in a line
NOTES = 10  # concepts that notes are printed on
CLOSE = 0.85  # similarity from which a word is taken for a typing error


def notes(recipe: Recipe) -> None:
    """Print notes on input that may be a mistake."""
    from ..model.load import note_of

    for concept in recipe.request.erase[:NOTES]:
        if "," in concept.name:
            note(f"{concept.name!r} is one concept: for several concepts repeat --concept")
    if text := note_of(recipe.model):
        note(text)


def recipe_of(
    model: str | None,
    concept: list[str] | None,
    concepts: Path | None,
    kind: str | None,
    phrase: list[str] | None,
    instead: str | None,
    keep: list[str] | None,
    method: str | None,
    pairs: list[str] | None,
    parts: dict[str, str | None],
    seed: int,
) -> Recipe:
    """A recipe from the command line, checked before anything heavy is loaded."""
    from ..schema import Recipe, folded

    if model is None:
        raise InputError(
            "the model is missing: name canvas, a diffusers folder, a hub id or a .safetensors file"
        )
    several = several_of(known_model(model), concept, concepts, kind, phrase, instead)
    from ..known import find
    from ..model.places import hints_of
    from ..runs.requests import request_for

    known = hints_of(model)
    request = request_for(
        several, kind=kind, phrases=phrase or (), instead=instead, keep=keep or (), known=known
    )
    for one in request.erase[:NOTES]:
        words = known.vocabulary(one.kind)
        if folded(one.name) not in map(folded, words) and (close := nearest(one.name, words, cutoff=CLOSE)):
            note(f"the model's vocabulary does not have {cut(one.name)}{close}")
    method = method or known.method
    settings = _settings(find(method), method, pairs or [], parts)
    return Recipe(model, method, request, settings, seed)


def several_of(
    model: str,
    concept: list[str] | None,
    concepts: Path | None,
    kind: str | None,
    phrase: list[str] | None,
    instead: str | None,
) -> list[str | Concept]:
    """What ``--concept`` and ``--concepts`` name, in this order."""
    if not concept and concepts is None:
        raise InputError("the concept is missing: name it, for example --concept cat")
    if concepts is None:
        return [*(concept or ())]
    if phrase or instead:
        raise InputError(
            "--phrase and --instead are for a single concept: put them into columns of --concepts"
        )
    from ..model.places import hints_of
    from ..runs.concept_files import read_concepts

    return [*(concept or ()), *read_concepts(user_path(concepts), kind=kind, known=hints_of(model))]


def _settings(cls: type, method: str, pairs: list[str], parts: dict[str, str | None]) -> dict[str, Any]:
    """The method's settings, from ``--set`` and from the options of the same names."""
    from ..settings import describe, parse_pairs

    known, settings = {one.name for one in describe(cls)}, parse_pairs(pairs, cls)
    for name, text in parts.items():
        if text is None:
            continue
        if name not in known:
            raise InputError(
                f"--{name} is for methods that train, and {cut(method)} does not train: leave "
                "it out, or choose another method"
            )
        value = parse_pairs([f"{name}={text}"], cls)[name]
        if settings.setdefault(name, value) != value:
            raise InputError(f"--{name} {cut(text)} and --set {name}=... differ: give one of them")
    return settings
