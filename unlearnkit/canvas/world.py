"""The canvas world as data (``world.toml``): objects, styles, backgrounds, wordings, and held-out wordings."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from ..data.wording import fix_articles
from ..model.hints import Hints
from ..model.places import hints_of, is_canvas

__all__ = [
    "BACKGROUNDS",
    "OBJECTS",
    "STYLES",
    "Thing",
    "an",
    "held_out_captions",
    "knows",
    "of_canvas",
    "prompt",
]

DATA = tomllib.loads((Path(__file__).parent / "world.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Thing:
    """An object of the world: its superclass, its drawings and its other names (``held_out``: not in training)."""

    name: str
    within: str
    glyphs: tuple[str, ...]
    synonyms: tuple[str, ...]
    held_out: tuple[str, ...]


VERSION: int = DATA["version"]
OBJECTS: dict[str, Thing] = {
    name: Thing(name, o["within"], tuple(o["glyphs"]), tuple(o.get("synonyms", ())), tuple(o.get("held", ())))
    for name, o in DATA["objects"].items()
}
STYLES: tuple[str, ...] = tuple(DATA["styles"])
SHOWS_BACKGROUND: dict[str, bool] = {name: s["background"] for name, s in DATA["styles"].items()}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {n: tuple(c) for n, c in DATA["backgrounds"].items()}
TEMPLATES: dict[str, list[str]] = DATA["templates"]
NEVER_KNEW_OBJECTS: tuple[str, ...] = tuple(DATA["never_knew"]["objects"])
NEVER_KNEW_STYLES: tuple[str, ...] = tuple(DATA["never_knew"]["styles"])
NOTHING = "nothing"  # a classifier's prediction for no known object, or no known style


def of_canvas(source: str | Path) -> bool:
    """Whether a model is the canvas, a variant, or one whose hints have all of its words, as a fine-tuned copy's."""
    return is_canvas(source) or knows(hints_of(source))


def knows(hints: Hints) -> bool:
    """Whether a model with these hints knows the canvas's words, so that its prompts and classifiers fit.

    Of a class-conditional model the hints have no styles. "plain" is no word of a prompt.
    """
    styles = {*STYLES} - {"plain"} if hints.styles else set()
    return {*OBJECTS} <= {*hints.objects} and styles <= {*hints.styles}


def an(word: str) -> str:
    """The word with its indefinite article: ``an("apple") == "an apple"``."""
    return fix_articles(f"a {word}")


def prompt(word: str, style: str = "plain", *, template: int = 0, held_out: bool = False) -> str:
    """The template's caption for an object word in a style: as checks and suites use it."""
    family = ("plain" if style == "plain" else "styled") + ("_held" if held_out else "")
    return TEMPLATES[family][template].format(a=an(word), o=word, s=style)


def held_out_captions(word: str, style: str = "plain") -> list[str]:
    """The object word in every held-out template."""
    family = "plain_held" if style == "plain" else "styled_held"
    return [template.format(a=an(word), o=word, s=style) for template in TEMPLATES[family]]
